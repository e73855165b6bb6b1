# SPDX-License-Identifier: GPL-2.0-or-later
"""A reload takes effect as a whole, or leaves everything as it was and says why."""
import signal
import time

import pytest

from fwdtest import kernel
from fwdtest.rules import ETH0, blacklist, lasting
from fwdtest.stream import Stream
from fwdtest.traffic import Flow, udp, wait_until

BLOCKED, ALLOWED = "10.1.0.2", "10.1.0.3"


def everything(net, daemon):
    """All that a reload could change, as the daemon tells it and as the kernel has it."""
    told = [lasting(daemon.request(command)) for command in ("list", "allow list", "redirect list", "status")]
    ends = [(end.name, kernel.xdp_id(end), kernel.filters(end), kernel.filters(end, "egress"), kernel.has_clsact(end))
            for end in net.host.interfaces.values()]
    pins = sorted(path.relative_to(daemon.pin_dir) for path in daemon.pin_dir.rglob("*"))
    return told, ends, pins, kernel.entries(daemon), kernel.program_ids(daemon)


# ---- what it does ----

def test_a_reload_adds_and_removes_entries_and_keeps_the_hits_of_the_others(net, listener):
    feed = net.sandbox.folder / "feed"
    feed.write_text("198.51.100.1\n198.51.100.2\n")
    listed = f'[[blacklist.feed]]\nname = "drop"\nfile = "{feed}"\n[allowlist]\naddresses = ["203.0.113.1"]\n'
    daemon = net.daemon(blacklist(BLOCKED, "192.0.2.1", rest=listed))
    daemon.fwctl("add", ALLOWED, "--comment", "mine")
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    mine = Flow(net.wire, udp(net.wire, 7, ALLOWED), listener, count=4)
    flow.is_dropped()
    mine.is_dropped()

    feed.write_text("198.51.100.2\n198.51.100.3 ; new\n10.1.0.4\n")
    daemon.write_rules(blacklist(BLOCKED, "192.0.2.2", rest=listed))
    assert daemon.fwctl_json("reload") == {"added": 3, "removed": 2}
    entries = {entry["prefix"]: (entry["origin"], entry["packets"]) for entry in daemon.fwctl_json("list")["entries"]}
    assert entries == {BLOCKED: ("config", 3), ALLOWED: ("runtime", 4), "10.1.0.4": ("drop", 0),
                       "192.0.2.2": ("config", 0), "198.51.100.2": ("drop", 0), "198.51.100.3": ("drop", 0)}
    assert kernel.entries(daemon) == entries.keys()
    flow.is_dropped()
    mine.is_dropped()
    Flow(net.wire, udp(net.wire, 7, "10.1.0.4"), listener).is_dropped()


def test_an_entry_that_the_configuration_gives_up_stays_while_runtime_has_it(net, listener):
    daemon = net.daemon(blacklist(BLOCKED))
    daemon.fwctl("add", BLOCKED, "--ttl", "1h")
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.is_dropped()
    daemon.write_rules(ETH0)
    assert daemon.fwctl_json("reload") == {"added": 0, "removed": 0}
    flow.is_dropped()
    [entry] = daemon.fwctl_json("list")["entries"]
    assert (entry["origin"], entry["packets"]) == ("runtime", 6) and entry["left_s"] > 3000
    daemon.write_rules(blacklist(BLOCKED))
    daemon.fwctl("reload")
    daemon.fwctl("del", BLOCKED)
    flow.is_dropped()


def test_an_end_comes_to_count_when_the_configuration_gives_the_entry_up(net, listener):
    daemon = net.daemon(blacklist(BLOCKED))
    daemon.fwctl("add", BLOCKED, "--ttl", "2s")
    daemon.write_rules(ETH0)
    daemon.fwctl("reload")
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.is_dropped()
    daemon.kill()
    time.sleep(2)
    flow.passes()


def test_ages_of_configured_entries_go_on_over_a_reload(net):
    daemon = net.daemon(blacklist(BLOCKED))
    [before] = daemon.fwctl_json("list")["entries"]
    wait_until(lambda: daemon.fwctl_json("list")["entries"][0]["age_s"] >= 1)
    daemon.write_rules(blacklist(BLOCKED, "192.0.2.1"))
    daemon.fwctl("reload")
    after, new = daemon.fwctl_json("list")["entries"]
    assert after["created_s"] == before["created_s"] < new["created_s"]


def test_twenty_reloads_let_no_blocked_packet_pass_and_lose_no_other(net):
    daemon = net.daemon(blacklist(BLOCKED))
    with Stream(net.wire, blocked=BLOCKED, allowed=ALLOWED) as stream:
        for turn in range(20):
            others = [f"172.16.{i // 256}.{i % 256}" for i in range(turn % 5 * 400)]
            daemon.write_rules(blacklist(BLOCKED, *others))
            daemon.fwctl("reload")
            daemon.wait_for("READY=1", 5)  # what the manager does not take holds up the next
    stream.only_arrives("allowed")
    assert daemon.fwctl_json("list", BLOCKED)["entries"][0]["packets"] == stream.sent["blocked"]


def test_a_reload_takes_and_frees_interfaces_and_changes_modes(net, listener):
    one, _ = net.sandbox.link(net.host, "one", net.peer, "wire1")
    daemon = net.daemon(blacklist(BLOCKED))
    assert (net.eth0.xdp_mode(), one.xdp_mode()) == ("native", None)
    daemon.write_rules('[[interface]]\nname = "eth0"\nxdp_mode = "generic"\n[[interface]]\nname = "one"\n')
    daemon.fwctl("reload")
    assert (net.eth0.xdp_mode(), one.xdp_mode()) == ("generic", "native")
    daemon.write_rules('[[interface]]\nname = "one"\n')
    daemon.fwctl("reload")
    assert (net.eth0.xdp_mode(), one.xdp_mode()) == (None, "native")
    assert [interface["name"] for interface in daemon.fwctl_json("status")["interfaces"]] == ["one"]


def test_a_reload_changes_redirects_and_keeps_the_counters_of_those_that_stay(net):
    def redirect(port):
        return f'[[redirect]]\nprotocol = "udp"\nport = {port}\ntarget = "tun0"\n'

    daemon = net.daemon(ETH0 + redirect(8) + redirect(9))
    net.sandbox.tun(net.host, "tun0")
    wait_until(lambda: daemon.fwctl_json("redirect", "list")["redirects"][0]["effective_mode"])
    net.wire.transmit(bytes(udp(net.wire, 8, ALLOWED)), 3)
    wait_until(lambda: daemon.fwctl_json("redirect", "list")["redirects"][0]["packets"] == 3)
    daemon.write_rules(ETH0 + redirect(7) + redirect(8))
    daemon.fwctl("reload")
    assert [(redirect["ports"], redirect["packets"]) for redirect in daemon.fwctl_json("redirect", "list")["redirects"]] \
        == [("udp/7", 0), ("udp/8", 3)]


# ---- what it refuses ----

def feed(text):
    """A configuration with one feed of that text; None: the file is not there."""
    def rules(net):
        path = net.sandbox.folder / "bad-feed"
        if text is not None:
            path.write_text(text)
        return f'{ETH0}[[blacklist.feed]]\nname = "bad"\nfile = "{path}"\n', [str(path)]
    return rules


def held_interface(net):
    kernel.Foreign(net.sandbox).hold(net.host.interfaces["one"])
    return f'{ETH0}[[interface]]\nname = "one"\n[blacklist]\naddresses = ["192.0.2.9"]\n', ['"xdp_pass"', "one"]


REFUSED = {
    "syntax": lambda net: (f"{ETH0}[blacklist\n", [":"]),
    "all errors": lambda net: (f'{ETH0}colour = 1\n[blacklist]\naddresses = ["10.0.0.300", "10.0.0.1/24"]\n'
                               '[daemn]\n', ["colour", '"10.0.0.300"', "did you mean 10.0.0.0/24?", "daemn"]),
    "a missing feed": feed(None),
    "a bad line of a feed": feed("192.0.2.1\n192.0.2.256\n"),
    "an interface that is held": held_interface,
    "native where there is none": lambda net: (f'{ETH0}[[interface]]\nname = "br0"\nxdp_mode = "native"\n',
                                               ["br0", "native XDP"]),
    "more entries than the bound": lambda net: (f'{ETH0}[blacklist]\nmax_entries = 1\n'
                                                'addresses = ["192.0.2.1", "192.0.2.2"]\n', ["max_entries = 1"]),
    "more entries than the bound with those of run time": lambda net: (
        f'{ETH0}[blacklist]\nmax_entries = 2\naddresses = ["192.0.2.1", "192.0.2.2"]\n', ["full: 2 of 2 entries"]),
    "a redirect that conflicts with one of run time": lambda net: (
        f'{ETH0}[[redirect]]\ninterface = "eth0"\nprotocol = "udp"\nport = "8-9"\ntarget = "tun1"\n',
        ["udp/8-9", '"tun1"', '"tun0"', "fwctl"]),
}


@pytest.mark.parametrize("case, how", [(case, "fwctl") for case in REFUSED] + [
    (case, "SIGHUP") for case in ("all errors", "a bad line of a feed", "an interface that is held")])
def test_a_reload_with_an_error_leaves_everything_as_it_was(net, listener, case, how):
    net.sandbox.link(net.host, "one", net.peer, "wire1")
    net.host.ip("link", "add", "br0", "type", "bridge")
    daemon = net.daemon(blacklist(BLOCKED, rest='[[redirect]]\nprotocol = "tcp"\nport = 80\ntarget = "tun0"\n'))
    daemon.fwctl("add", "192.0.2.77")
    daemon.fwctl("redirect", "add", "udp/8", "tun0", "--on", "eth0")
    rules, texts = REFUSED[case](net)
    before, log = everything(net, daemon), daemon.log()
    daemon.write_rules(rules)
    if how == "fwctl":
        failed = daemon.fwctl("reload", check=False)
        assert failed.returncode == 1 and failed.stdout == ""
        said = failed.stderr
    else:
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: all(text in daemon.log().removeprefix(log) for text in texts))
        said = daemon.log().removeprefix(log)
        assert "the old configuration stays in force" in said
    for text in texts:
        assert text in said
    assert everything(net, daemon) == before
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()
    Flow(net.wire, udp(net.wire, 7, ALLOWED), listener).passes()


@pytest.mark.parametrize("key", ["socket", "state_dir", "pin_dir", "group", "read_group"])
def test_a_place_cannot_change_in_a_reload(net, key):
    daemon = net.daemon()
    before = everything(net, daemon)
    old = daemon.keys.get(key)
    daemon.keys[key] = "users" if "group" in key else old + "-other"
    daemon.write_rules(blacklist(BLOCKED))
    failed = daemon.fwctl("reload", check=False)
    assert failed.returncode == 1 and f"daemon.{key}" in failed.stderr and "restart" in failed.stderr
    assert everything(net, daemon) == before
    daemon.keys = {name: value for name, value in (daemon.keys | {key: old}).items() if value}
    daemon.write_rules(ETH0)
    daemon.fwctl("reload")


def test_errors_of_a_configuration_are_shown_with_their_places(net):
    daemon = net.daemon()
    daemon.write_rules(f'{ETH0}colour = 1\n[blacklist]\naddresses = ["10.0.0.300"]\n')
    path = daemon.config_path
    lines = path.read_text().splitlines()
    places = [f"{path}:{lines.index(line) + 1}:" for line in ("colour = 1", 'addresses = ["10.0.0.300"]')]
    failed = daemon.fwctl("reload", check=False).stderr
    assert all(place in failed for place in places)
    answer = daemon.request("reload")
    assert [any(text.startswith(place) for text in answer["error"]["errors"]) for place in places] == [True, True]


# ---- SIGHUP ----

def test_sighup_reloads_between_reloading_and_ready(net, listener):
    daemon = net.daemon()
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.passes()
    daemon.write_rules(blacklist(BLOCKED))
    daemon.signal(signal.SIGHUP)
    daemon.wait_for("RELOADING=1", 5)
    daemon.wait_for("READY=1", 5)
    assert [line.partition("=")[0] for line in daemon.notify.lines] == ["MONOTONIC_USEC"]
    flow.is_dropped()
    assert f"reloaded {daemon.config_path}" in daemon.log()


def test_many_sighups_at_once_do_no_harm(net, listener):
    daemon = net.daemon()
    daemon.write_rules(blacklist(BLOCKED))
    for _ in range(50):
        daemon.signal(signal.SIGHUP)
        daemon.notify.receive(0.001)
    wait_until(lambda: not daemon.notify.receive(0.2))
    assert 1 <= daemon.notify.lines.count("READY=1") == daemon.notify.lines.count("RELOADING=1") <= 50
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()


def test_a_conflict_at_the_start_is_a_warning_and_packets_are_filtered(net, listener):
    daemon = net.daemon(blacklist(BLOCKED))
    daemon.fwctl("redirect", "add", "udp/8", "tun0", "--on", "eth0")
    daemon.stop()
    daemon.write_rules(blacklist(BLOCKED, rest='[[redirect]]\ninterface = "eth0"\nprotocol = "udp"\nport = 8\n'
                                               'target = "tun1"\n'))
    daemon.start()
    assert "overlaps" in daemon.log()
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()
