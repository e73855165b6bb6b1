# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes go back by themselves unless they are confirmed, whatever becomes of the daemon meanwhile."""
import signal
import time

import pytest

from fwdtest import kernel
from fwdtest.daemon import fwd
from fwdtest.rules import ETH0, blacklist
from fwdtest.traffic import Flow, udp, wait_until

BLOCKED, OTHER, MINE = "10.1.0.2", "10.1.0.3", "10.1.0.4"
AFTER_S = 20  # by when what goes back has gone back; far more than it takes


def redirect(port):
    return f'[[redirect]]\nprotocol = "udp"\nport = {port}\ntarget = "tun0"\n'


def entries(daemon):
    return {entry["prefix"]: entry for entry in daemon.fwctl_json("list")["entries"]}


def waits(daemon):
    return daemon.fwctl_json("status")["confirm"]


def goes_back(daemon):
    wait_until(lambda: waits(daemon) is None, AFTER_S)


def refused(daemon, *words):
    done = daemon.fwctl(*words, check=False)
    assert done.returncode == 1 and done.stdout == ""
    return done.stderr


# ---- add ----

def test_an_add_goes_back_and_rules_that_were_there_stay_as_they_are(net, listener):
    daemon = net.daemon()
    daemon.fwctl("add", MINE, "--comment", "mine")
    before = entries(daemon)[MINE]
    done = daemon.fwctl("add", BLOCKED, MINE, "--comment", "new", "--confirm", "3s")
    assert done.stdout == "added; confirm within 3 s with: fwctl confirm\n"
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.is_dropped()
    assert waits(daemon)["command"] == "add" and 0 <= waits(daemon)["left_s"] <= 3
    assert [entries(daemon)[MINE][key] for key in ("left_s", "comment")] == [None, "mine"]
    goes_back(daemon)
    flow.passes()
    wait_until(lambda: entries(daemon).keys() == {MINE})
    assert entries(daemon)[MINE]["created_s"] == before["created_s"]
    assert "the add was not confirmed within 3 s: what it added, 1 entry, has ended" in daemon.log()


def test_a_confirmed_add_stays_as_it_was_asked_for(net, listener):
    daemon = net.daemon()
    daemon.fwctl("add", MINE, "--comment", "mine")
    daemon.fwctl("add", BLOCKED, MINE, "--ttl", "1h", "--comment", "new", "--confirm", "3s")
    assert daemon.fwctl("confirm").stdout == "confirmed: add\n"
    assert waits(daemon) is None
    time.sleep(3)
    after = entries(daemon)
    assert after.keys() == {BLOCKED, MINE}
    assert all(entry["comment"] == "new" and 3000 < entry["left_s"] <= 3597 for entry in after.values())
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()


def test_a_long_list_goes_back_or_is_confirmed(net, listener):
    n = 5000
    daemon = net.daemon()
    path = net.sandbox.folder / "list"
    path.write_text("".join(f"172.16.{i // 256}.{i % 256} ; listed\n" for i in range(n)) + BLOCKED + "\n")
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    assert daemon.fwctl_json("add", "-f", path, "--confirm", "3s") == {"added": n + 1, "updated": 0, "confirm_s": 3}
    flow.is_dropped()
    goes_back(daemon)
    flow.passes()
    wait_until(lambda: not entries(daemon))
    daemon.fwctl("add", "172.16.0.1")
    assert daemon.fwctl_json("add", "-f", path, "--confirm", "30s")["added"] == n
    assert daemon.fwctl_json("confirm") == {"confirmed": "add"}
    flow.is_dropped()
    assert {entry["left_s"] for entry in entries(daemon).values()} == {None}


def test_without_a_daemon_an_add_ends_all_the_same(net, listener):
    daemon = net.daemon()
    daemon.fwctl("add", MINE)
    daemon.fwctl("add", BLOCKED, "--confirm", "3s")
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    daemon.kill()
    flow.is_dropped()
    time.sleep(3)
    flow.passes()
    daemon.start()
    assert entries(daemon).keys() == {MINE}
    assert waits(daemon) is None


# ---- reload ----

def test_a_reload_goes_back_with_redirects_interfaces_and_feeds(net, listener):
    one, _ = net.sandbox.link(net.host, "one", net.peer, "wire1")
    feed = net.sandbox.folder / "feed"
    feed.write_text("198.51.100.1\n")
    lists = f'[[blacklist.feed]]\nname = "drop"\nfile = "{feed}"\n[[blacklist.feed]]\nname = "given"\n'
    daemon = net.daemon(blacklist(BLOCKED, rest=redirect(8) + lists))
    daemon.fwctl("feed", "replace", "drop", "-", input="198.51.100.2\n")
    daemon.fwctl("feed", "replace", "given", "-", input="198.51.100.3\n")
    before = {command: daemon.request(command) for command in ("list", "redirect list", "feed list")}
    loaded_s = daemon.fwctl_json("status")["config_loaded_s"]

    daemon.write_rules('[[interface]]\nname = "one"\n' + redirect(9) + '[blacklist]\nmax_entries = 7\n' + lists)
    done = daemon.fwctl("reload", "--confirm", "3s")
    assert done.stdout == "reloaded; confirm within 3 s with: fwctl confirm\n"
    assert (net.eth0.xdp_mode(), one.xdp_mode()) == (None, "native")
    assert entries(daemon).keys() == {"198.51.100.1", "198.51.100.3"}
    daemon.fwctl("add", MINE)
    daemon.fwctl("redirect", "add", "udp/10", "tun0")
    daemon.fwctl("feed", "replace", "given", "-", input="198.51.100.4\n")
    feed.unlink()

    goes_back(daemon)
    assert (net.eth0.xdp_mode(), one.xdp_mode()) == ("native", None)
    assert [row["ports"] for row in daemon.request("redirect list")["redirects"]] == ["udp/8", "udp/10"]
    after = entries(daemon)
    assert after.keys() == {BLOCKED, MINE, "198.51.100.2", "198.51.100.4"}
    assert kernel.entries(daemon) == after.keys()
    old = {entry["prefix"]: entry["created_s"] for entry in before["list"]["entries"]}
    assert after[BLOCKED]["created_s"] == old[BLOCKED]
    assert [row["replaced"] for row in daemon.request("feed list")["feeds"]] == [True, True]
    status = daemon.fwctl_json("status")
    assert (status["config_loaded_s"], status["config_unconfirmed"]) == (loaded_s, True)
    assert "not confirmed:" in daemon.fwctl("status").stdout
    assert "the reload was not confirmed within 3 s" in daemon.log()
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()

    daemon.kill()
    daemon.start()
    assert entries(daemon).keys() == after.keys()


def test_a_confirmed_reload_stays_over_a_restart(net, listener):
    daemon = net.daemon(blacklist(BLOCKED))
    daemon.write_rules(blacklist(OTHER))
    assert daemon.fwctl_json("reload", "--confirm", "2s") == {"added": 1, "removed": 1, "confirm_s": 2}
    assert daemon.fwctl("confirm").stdout == "confirmed: reload\n"
    time.sleep(2)
    assert entries(daemon).keys() == {OTHER}
    daemon.kill()
    daemon.start()
    assert entries(daemon).keys() == {OTHER}
    assert daemon.fwctl_json("status")["config_unconfirmed"] is False


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_a_start_takes_the_configuration_before_one_that_waits(net, listener, end):
    daemon = net.daemon(blacklist(BLOCKED))
    in_force = daemon.config_path.read_bytes()
    daemon.write_rules(blacklist(OTHER))
    daemon.fwctl("reload", "--confirm", "1h")
    daemon.kill() if end == signal.SIGKILL else daemon.stop()
    Flow(net.wire, udp(net.wire, 7, OTHER), listener).is_dropped()
    daemon.start()
    assert entries(daemon).keys() == {BLOCKED}
    status = daemon.fwctl_json("status")
    assert status["config_unconfirmed"] is True and status["confirm"] is None
    assert "was not confirmed: the one before it is in force" in daemon.log()
    assert (daemon.folder / "state/unconfirmed/fwd.toml").read_bytes() == in_force
    assert "nothing waits for confirmation" in refused(daemon, "confirm")
    Flow(net.wire, udp(net.wire, 7, OTHER), listener).passes()

    daemon.fwctl("reload")
    assert entries(daemon).keys() == {OTHER}
    assert daemon.fwctl_json("status")["config_unconfirmed"] is False
    daemon.kill()
    daemon.start()
    assert entries(daemon).keys() == {OTHER}


def test_the_file_of_a_reload_that_went_back_stays_refused_until_one_succeeds(net):
    daemon = net.daemon(blacklist(BLOCKED))
    daemon.write_rules(blacklist(OTHER))
    daemon.fwctl("reload", "--confirm", "1s")
    goes_back(daemon)
    for _ in range(2):
        assert entries(daemon).keys() == {BLOCKED}
        daemon.stop()
        daemon.start()
    daemon.write_rules("[blacklist\n")
    refused(daemon, "reload")
    daemon.write_rules(blacklist(OTHER))
    daemon.stop()
    daemon.start()
    assert entries(daemon).keys() == {BLOCKED}
    daemon.fwctl("reload", "--confirm", "1m")
    daemon.fwctl("confirm")
    daemon.stop()
    daemon.start()
    assert entries(daemon).keys() == {OTHER}


def test_a_reload_that_fails_leaves_nothing_to_confirm(net):
    daemon = net.daemon(blacklist(BLOCKED))
    daemon.write_rules("[blacklist\n")
    assert "1 error" in refused(daemon, "reload", "--confirm", "1m")
    assert waits(daemon) is None
    assert not (daemon.folder / "state/unconfirmed/fwd.toml").exists()


def test_what_holds_an_interface_does_not_hold_up_the_way_back(net):
    net.sandbox.link(net.host, "one", net.peer, "wire1")
    both = f'{ETH0}[[interface]]\nname = "one"\n[blacklist]\naddresses = ["{BLOCKED}"]\n'
    daemon = net.daemon(both)
    daemon.write_rules(blacklist(OTHER))
    daemon.fwctl("reload", "--confirm", "2s")
    kernel.Foreign(net.sandbox).hold(net.host.interfaces["one"])
    goes_back(daemon)
    assert entries(daemon).keys() == {BLOCKED}
    [held] = [row for row in daemon.fwctl_json("status")["interfaces"] if row["name"] == "one"]
    assert "xdp_pass" in held["error"]


# ---- one at a time ----

def test_while_one_waits_another_is_refused_and_other_changes_are_made(net):
    daemon = net.daemon(blacklist(BLOCKED))
    assert "nothing waits for confirmation" in refused(daemon, "confirm")
    daemon.fwctl("add", OTHER, "--confirm", "1m")
    for words in (["add", MINE, "--confirm", "1m"], ["reload", "--confirm", "1m"]):
        assert "the add before it waits for confirmation" in refused(daemon, *words)
    daemon.fwctl("add", MINE)
    daemon.fwctl("reload")
    daemon.fwctl("confirm")

    daemon.fwctl("reload", "--confirm", "1m")
    answer = daemon.request("add", prefixes=["192.0.2.1"], confirm="1m")
    assert answer["error"]["code"] == "busy"
    assert "waits for confirmation" in refused(daemon, "reload")
    daemon.signal(signal.SIGHUP)
    wait_until(lambda: "SIGHUP: nothing is reloaded: a reload waits for confirmation" in daemon.log())
    daemon.fwctl("del", MINE)
    assert "to confirm:     reload, which goes back in" in daemon.fwctl("status").stdout
    daemon.fwctl("confirm")
    assert entries(daemon).keys() == {BLOCKED, OTHER}
    daemon.fwctl("reload")


@pytest.mark.parametrize("words, why", [
    (["reload", "--confirm", "61m"], "too long to wait"),
    (["reload", "--confirm", "0"], "0"),
    (["add", MINE, "--ttl", "60s", "--confirm", "1m"], "nothing to confirm"),
])
def test_a_time_that_makes_no_sense_is_bad_usage(net, words, why):
    daemon = net.daemon()
    done = daemon.fwctl(*words, check=False)
    assert done.returncode == 2 and why in done.stderr
    assert waits(daemon) is None


def test_a_damaged_configuration_to_go_back_to_is_told_with_its_place(net):
    daemon = net.daemon()
    daemon.stop()
    text = daemon.folder / "state/unconfirmed/fwd.toml"
    text.parent.mkdir()
    text.write_text("[daemon\n")
    done = fwd("-c", daemon.config_path, namespace=net.host, check=False)
    assert done.returncode == 1 and f"{text}:1:" in done.stderr
    assert fwd("--check", "-c", daemon.config_path).returncode == 0
