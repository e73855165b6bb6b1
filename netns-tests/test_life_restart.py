# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets never wait for the daemon: stops, crashes, upgrades and growth, under traffic."""
import signal
import threading
import time

import pytest

from fwdtest import kernel
from fwdtest.daemon import Daemon
from fwdtest.rules import ETH0
from fwdtest.stream import Stream
from fwdtest.traffic import Flow, TunReceiver, udp

BLOCKED, ALLOWED = "10.1.0.2", "10.1.0.3"


def entry(daemon, prefix=BLOCKED):
    [entry] = daemon.fwctl_json("list", prefix)["entries"]
    return entry


def redirect(daemon):
    [redirect] = daemon.fwctl_json("redirect", "list")["redirects"]
    return redirect


def test_counters_go_on_while_no_daemon_runs(net, listener):
    daemon = net.daemon()
    daemon.fwctl("add", BLOCKED)
    daemon.stop()
    assert not daemon.running() and net.eth0.xdp_mode() == "native"
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener, count=5).is_dropped()
    Flow(net.wire, udp(net.wire, 7, ALLOWED), listener, count=7).passes()
    daemon.start()
    assert entry(daemon)["packets"] == 5
    assert daemon.verdicts() == {("eth0", "xdp", "drop"): 5, ("eth0", "xdp", "pass"): 7}


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_restart_adopts_programs_entries_and_redirects_as_they_are(net, listener, end):
    daemon = net.daemon(f'{ETH0}[blacklist]\naddresses = ["{BLOCKED}"]\n')
    tun = net.sandbox.tun(net.host, "tun0")
    daemon.fwctl("redirect", "add", "udp/8080", "tun0", "--on", "eth0")
    daemon.fwctl("add", "192.0.2.1", "--ttl", "1h", "--comment", "mine")
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()
    Flow(net.wire, udp(net.wire, 8080, ALLOWED), TunReceiver(tun), count=5).passes()
    assert daemon.fwctl_json("status")["adopted"] is False
    before = entry(daemon), entry(daemon, "192.0.2.1"), redirect(daemon)
    programs = kernel.program_ids(daemon), kernel.xdp_id(net.eth0), kernel.filters(net.eth0)

    time.sleep(1.1)
    daemon.stop() if end == signal.SIGTERM else daemon.kill()
    daemon.start()

    assert daemon.fwctl_json("status")["adopted"] is True
    assert (kernel.program_ids(daemon), kernel.xdp_id(net.eth0), kernel.filters(net.eth0)) == programs
    assert redirect(daemon) == before[2] and before[2]["packets"] == 5
    now = entry(daemon)
    assert [now[key] for key in ("packets", "bytes")] == [before[0][key] for key in ("packets", "bytes")]
    assert abs(now["last_hit_s"] - before[0]["last_hit_s"]) <= 1
    after = entry(daemon, "192.0.2.1")
    assert (after["comment"], after["created_s"]) == ("mine", before[1]["created_s"])
    assert after["age_s"] >= 1 and before[1]["left_s"] - 60 <= after["left_s"] < before[1]["left_s"]
    Flow(net.wire, udp(net.wire, 8080, ALLOWED), TunReceiver(tun)).passes()


def test_pins_of_another_abi_are_replaced_with_no_packet_unfiltered(net):
    daemon = net.daemon()
    scrub0, _ = net.sandbox.link(net.host, "scrub0", net.sandbox.namespace("scrubber"), "far")
    daemon.fwctl("redirect", "add", "udp/8080", "scrub0", "--on", "eth0")
    daemon.fwctl("add", BLOCKED)
    programs = kernel.program_ids(daemon)
    with Stream(net.wire, blocked=BLOCKED, allowed=ALLOWED) as stream:
        daemon.stop()
        kernel.set_abi_version(daemon, 4000)
        daemon.start()
        stream.wait_for(20)
    stream.only_arrives("allowed")
    assert daemon.fwctl_json("status")["adopted"] is False
    now = kernel.program_ids(daemon)
    assert now.keys() == programs.keys() and not set(now.values()) & set(programs.values())
    assert kernel.filters(net.eth0) == {(kernel.TC_PRIORITY, kernel.TC_HANDLE): now["tc_in_0"]}
    assert [pin.name for pin in daemon.pin_dir.iterdir()] == ["current"]
    assert entry(daemon)["packets"] > 0


def test_an_upgrade_over_another_abi_frees_interfaces_that_are_configured_no_more(net):
    one, _ = net.sandbox.link(net.host, "one", net.peer, "wire1")
    daemon = net.daemon(f'{ETH0}[[interface]]\nname = "one"\n[[redirect]]\nprotocol = "udp"\nport = 9\n'
                        'target = "tun0"\n')
    assert one.xdp_mode() and kernel.filters(one)
    daemon.stop()
    kernel.set_abi_version(daemon, 4000)
    daemon.write_rules(ETH0)
    daemon.start()
    assert (one.xdp_mode(), kernel.filters(one)) == (None, {})
    assert net.eth0.xdp_mode() == "native"


def test_maps_grow_under_traffic_and_keep_their_counters(net, listener):
    daemon = net.daemon()
    tun = net.sandbox.tun(net.host, "tun0")
    daemon.fwctl("redirect", "add", "udp/8080", "tun0", "--on", "eth0")
    daemon.fwctl("add", BLOCKED, "--comment", "old")
    Flow(net.wire, udp(net.wire, 8080, ALLOWED), TunReceiver(tun), count=5).passes()
    listed = net.sandbox.folder / "list"
    with Stream(net.wire, blocked=BLOCKED, allowed=ALLOWED) as stream:
        for size in (1500, 20000):
            listed.write_text("10.1.0.4\n" + "".join(f"172.16.{i // 256}.{i % 256}\n" for i in range(size)))
            daemon.fwctl("add", "-f", listed)
            stream.wait_for(20)
    stream.only_arrives("allowed")
    assert (entry(daemon)["comment"], entry(daemon)["packets"]) == ("old", stream.sent["blocked"])
    assert redirect(daemon)["packets"] == 5
    assert daemon.fwctl_json("status")["blacklist"]["entries"] == 20002 == len(kernel.entries(daemon))
    assert [pin.name for pin in daemon.pin_dir.iterdir()] == ["current"]
    Flow(net.wire, udp(net.wire, 7, "10.1.0.4"), listener).is_dropped()
    Flow(net.wire, udp(net.wire, 8080, ALLOWED), TunReceiver(tun)).passes()


def test_detach_leaves_nothing_of_its_own(net):
    daemon = net.daemon(ETH0, on_stop="detach")
    net.sandbox.tun(net.host, "tun0")
    daemon.fwctl("redirect", "add", "udp/9", "tun0", "--on", "eth0", "--direction", "in")
    daemon.fwctl("redirect", "add", "udp/9", "tun0", "--on", "eth0", "--direction", "out")
    assert kernel.filters(net.eth0) and kernel.filters(net.eth0, "egress") and kernel.has_clsact(net.eth0)
    daemon.stop()
    assert net.eth0.xdp_mode() is None and not kernel.has_clsact(net.eth0)
    assert not daemon.pin_dir.exists()
    assert not [path for path in net.sandbox.bpffs.rglob("*") if not path.is_dir()]
    assert not daemon.socket_path.exists()


@pytest.mark.parametrize("direction", ["in", "out"])
def test_detach_after_a_restart_takes_the_qdisc_of_the_first_run_away(net, direction):
    daemon = net.daemon(ETH0, on_stop="keep")
    daemon.fwctl("redirect", "add", "udp/9", "tun0", "--on", "eth0", "--direction", direction)
    daemon.stop()
    daemon.keys["on_stop"] = "detach"
    daemon.write_rules(ETH0)
    daemon.start()
    assert kernel.has_clsact(net.eth0)
    daemon.stop()
    assert not kernel.has_clsact(net.eth0)


@pytest.mark.parametrize("theirs", ["qdisc", "filter"])
def test_detach_leaves_a_foreign_qdisc_and_filter(net, theirs):
    foreign = kernel.Foreign(net.sandbox)
    if theirs == "qdisc":
        net.host.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    daemon = net.daemon(ETH0, on_stop="detach")
    daemon.fwctl("redirect", "add", "udp/9", "tun0", "--on", "eth0")
    if theirs == "filter":
        foreign.filter(net.eth0, 20, "mark")
    before = kernel.filters(net.eth0)
    daemon.stop()
    assert kernel.has_clsact(net.eth0)
    ours = (kernel.TC_PRIORITY, kernel.TC_HANDLE)
    assert ours in before
    assert kernel.filters(net.eth0) == {place: program for place, program in before.items() if place != ours}


def test_a_reboot_starts_from_the_durable_rules(net, listener):
    """bpffs and the programs are lost; what fwctl added is not."""
    daemon = net.daemon()
    daemon.fwctl("add", BLOCKED)
    daemon.stop()
    net.host.ip("link", "set", "dev", "eth0", "xdp", "off")
    for path in sorted(daemon.pin_dir.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.passes()
    daemon.start()
    assert daemon.fwctl_json("status")["adopted"] is False
    flow.is_dropped()


@pytest.mark.parametrize("delay_s", [0.02, 0.05, 0.1, 0.3])
def test_a_daemon_killed_while_its_maps_grow_is_adopted_whole(net, delay_s):
    """Or afterwards, while what it added becomes rows of the database."""
    daemon = net.daemon()
    daemon.fwctl("add", BLOCKED)
    listed = "".join(f"172.16.{i // 256}.{i % 256}\n" for i in range(50000))
    with Stream(net.wire, blocked=BLOCKED, allowed=ALLOWED) as stream:
        killer = threading.Timer(delay_s, daemon.signal, [signal.SIGKILL])
        killer.start()
        added = daemon.fwctl("add", "-", input=listed, check=False).returncode == 0
        killer.join()
        daemon.kill()
        daemon.start()
        stream.wait_for(20)
    stream.only_arrives("allowed")
    size = daemon.fwctl_json("status")["blacklist"]["entries"]
    assert size == 50001 or not added and size == 1
    assert kernel.entries(daemon) == {entry["prefix"] for entry in daemon.fwctl_json("list")["entries"]}
    assert len(kernel.entries(daemon)) == size
    assert [pin.name for pin in daemon.pin_dir.iterdir()] == ["current"]


def test_of_two_instances_neither_harms_the_other(net, listener):
    first = net.daemon(ETH0)
    first.fwctl("add", BLOCKED)
    second = Daemon(net.sandbox, net.host, ETH0, label="second", on_stop="detach").start()
    [seen] = second.fwctl_json("status")["interfaces"]
    assert seen["dispatcher"] or "another XDP program (\"fwd_xdp\"" in seen["error"]
    assert second.fwctl_json("list")["entries"] == []
    second.stop()
    assert [interface["error"] for interface in first.fwctl_json("status")["interfaces"]] == [None]
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()
