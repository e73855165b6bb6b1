# SPDX-License-Identifier: GPL-2.0-or-later
"""What others do to programs, filters and interfaces while the daemon runs: it puts right what it can
within a second, tells what it cannot, and tells each thing once."""
import resource
import shutil
import signal
import subprocess
from types import SimpleNamespace

import pytest

from fwdtest import kernel
from fwdtest.sandbox import SLOW, Interface
from fwdtest.traffic import MARKER, Flow, Listener, Program, TunReceiver, udp, wait_until

PLACE = (kernel.TC_PRIORITY, kernel.TC_HANDLE)
BLOCKED, FREE = "10.1.0.2", "10.1.0.9"
RULES = f"""
[[interface]]
name = "eth*"
[[interface]]
name = "br*"
[blacklist]
direction = ["in", "out"]
addresses = ["{BLOCKED}"]
[[redirect]]
interface = "eth0"
protocol = "udp"
port = 9
target = "tun0"
"""
WITHIN_S = 10  # at rest a tenth of a second, or the first pauses
SILENCE_S = 0.1


@pytest.fixture
def host(net):
    """With rules at all three hooks of eth0: `acts()` proves each by packets."""
    tun0 = net.sandbox.tun(net.host, "tun0")
    net.wire.add_address(f"{FREE}/24")
    daemon = net.daemon(RULES)

    def acts():
        with Listener(net.host, 7) as here, Listener(net.peer, 7) as there, TunReceiver(tun0) as tun:
            Flow(net.wire, udp(net.wire, 7, FREE), here).passes()
            Flow(net.wire, udp(net.wire, 7, BLOCKED), here).is_dropped(SILENCE_S)
            Flow(net.wire, udp(net.wire, 9, FREE), tun).passes()
            Flow(Program(net.host, FREE), MARKER, there).passes()
            Flow(Program(net.host, BLOCKED), MARKER, there).is_dropped(SILENCE_S)

    return SimpleNamespace(**vars(net) | {"daemon": daemon, "acts": acts})


def interfaces(daemon):
    """{name: interface} as status has them."""
    return {interface["name"]: interface for interface in daemon.request("status")["interfaces"]}


def error(daemon, name="eth0"):
    return interfaces(daemon).get(name, {}).get("error")


def hooks(interface):
    """What the kernel has of anybody at our three places."""
    return (kernel.xdp_id(interface), kernel.filters(interface).get(PLACE),
            kernel.filters(interface, "egress").get(PLACE))


def lines(daemon, text):
    return [line for line in daemon.log().splitlines() if text in line]


def block_and_count(daemon, sender, name="eth0"):
    """What the sender sends from a blocked address is dropped by the interface at its other end."""
    def dropped():
        return daemon.verdicts().get((name, "xdp", "drop"), 0)

    before = dropped()
    sender.transmit(bytes(udp(sender, 7, BLOCKED)), 3)
    wait_until(lambda: dropped() == before + 3)


# ---- programs and filters ----

@pytest.mark.parametrize("command, lost", [
    ("ip link set dev eth0 xdp off", ["XDP"]),
    ("tc filter del dev eth0 ingress", ["TC in"]),
    (f"tc filter del dev eth0 egress pref {PLACE[0]}", ["TC out"]),
    ("tc qdisc del dev eth0 clsact", ["TC in", "TC out"]),
], ids=["xdp-off", "filters-del", "filter-del", "clsact-del"])
def test_what_somebody_takes_off_is_back_and_told_once(host, command, lost):
    before = hooks(host.eth0)
    host.host.run(*command.split())
    wait_until(lambda: all(hooks(host.eth0)) and hooks(host.eth0) != before, WITHIN_S)
    wait_until(lambda: len(lines(host.daemon, "somebody took")) == len(lost), WITHIN_S)
    host.acts()
    for hook in lost:
        [line] = lines(host.daemon, f"took our {hook} program off")
        assert line == f"fwd: eth0: somebody took our {hook} program off; attached again"
    assert error(host.daemon) is None


def test_a_foreign_filter_in_the_place_of_ours_is_told_once_and_left_and_ours_is_back_behind_it(host):
    foreign = kernel.Foreign(host.sandbox)
    place = ["dev", "eth0", "ingress", "pref", PLACE[0]]
    host.host.run("tc", "filter", "replace", *place, "handle", hex(PLACE[1]),
                  "bpf", "direct-action", "obj", foreign.path, "sec", "mark")
    wait_until(lambda: error(host.daemon), WITHIN_S)
    theirs = kernel.filters(host.eth0)[PLACE]
    said = error(host.daemon)
    assert f"id {theirs}" in said and "tc filter del dev eth0 ingress pref 10" in said
    for mtu in 1400, 1300:
        host.host.ip("link", "set", "eth0", "mtu", mtu)
    assert kernel.filters(host.eth0)[PLACE] == theirs and len(lines(host.daemon, said)) == 1
    host.host.run("tc", "filter", "del", *place)
    wait_until(lambda: error(host.daemon) is None, WITHIN_S)
    host.acts()


def test_a_foreign_program_in_the_place_of_ours_is_told_once_and_left_and_ours_is_back_behind_it(host):
    foreign = kernel.Foreign(host.sandbox)
    host.host.ip("-force", "link", "set", "dev", "eth0", "xdp", "obj", foreign.path, "sec", "xdp")
    theirs = kernel.xdp_id(host.eth0)
    wait_until(lambda: error(host.daemon), WITHIN_S)
    said = error(host.daemon)
    assert '"xdp_pass"' in said and f"id {theirs}" in said
    for mtu in 1400, 1300:
        host.host.ip("link", "set", "eth0", "mtu", mtu)
    assert kernel.xdp_id(host.eth0) == theirs and len(lines(host.daemon, said)) == 1
    host.host.ip("link", "set", "dev", "eth0", "xdp", "off")
    wait_until(lambda: error(host.daemon) is None, WITHIN_S)
    host.acts()


@pytest.mark.skipif(SLOW > 1, reason="loading a program takes longer here than the time in which losses count")
def test_who_takes_filters_off_all_the_time_is_answered_after_pauses_and_told_of_once(host):
    """As fast as tc can. They are back within the pause that it has come to by then."""
    script = "while :; do tc qdisc del dev eth0 clsact; tc qdisc add dev eth0 clsact; done 2>/dev/null"
    foe = subprocess.Popen([*host.host.enter, "sh", "-c", script])
    try:
        wait_until(lambda: "again and again" in (error(host.daemon) or ""), WITHIN_S)
        block_and_count(host.daemon, host.wire)
    finally:
        foe.kill()
        foe.wait()
    wait_until(lambda: all(hooks(host.eth0)), 70)  # the longest pause
    host.acts()
    for hook in "TC in", "TC out":
        assert len(lines(host.daemon, f"took our {hook} program off")) <= 3
        assert len(lines(host.daemon, f"{hook}: somebody takes our program off again and again")) <= 1


def test_what_fails_for_a_moment_is_tried_again_without_being_told(host):
    """No message of the kernel tells when there are descriptors again."""
    limits = resource.prlimit(host.daemon.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(host.daemon.pid, resource.RLIMIT_NOFILE, (0, limits[1]))
    host.host.ip("link", "set", "dev", "eth0", "xdp", "off")
    wait_until(lambda: lines(host.daemon, "Too many open files"), WITHIN_S)
    assert not kernel.xdp_id(host.eth0)
    resource.prlimit(host.daemon.pid, resource.RLIMIT_NOFILE, limits)
    wait_until(lambda: kernel.xdp_id(host.eth0), WITHIN_S)
    wait_until(lambda: error(host.daemon) is None, WITHIN_S)
    host.acts()
    # Which step fails for want of them may change, and is told then.
    told = lines(host.daemon, "Too many open files")
    assert len(set(told)) == len(told) <= 4


def test_status_tells_the_mode_that_somebody_has_changed(host):
    """The same program, in the other mode, which "auto" is content with."""
    if interfaces(host.daemon)["eth0"]["dispatcher"]:
        pytest.skip("ours is a component of libxdp's dispatcher: it cannot be attached by hand")
    host.daemon.signal(signal.SIGSTOP)
    host.host.ip("link", "set", "dev", "eth0", "xdp", "off")
    host.host.run("ip", "link", "set", "dev", "eth0", "xdpgeneric", "pinned", host.daemon.pin_dir / "current" / "xdp_0")
    host.daemon.signal(signal.SIGCONT)
    wait_until(lambda: interfaces(host.daemon)["eth0"]["xdp"] == "generic", WITHIN_S)
    block_and_count(host.daemon, host.wire)


def test_pins_removed_by_hand_neither_stop_the_filter_nor_the_daemon(host):
    shutil.rmtree(host.daemon.pin_dir)
    host.acts()
    host.host.ip("link", "set", "dev", "eth0", "xdp", "off")
    wait_until(lambda: kernel.xdp_id(host.eth0), WITHIN_S)
    wait_until(lambda: "cannot pin" in (error(host.daemon) or ""), WITHIN_S)
    host.daemon.fwctl("add", "192.0.2.1")
    host.daemon.fwctl("reload", check=False)
    host.acts()
    assert not lines(host.daemon, "busy"), "it was attached, and not tried again in the other mode"


# ---- interfaces ----

def test_an_interface_that_is_replaced_by_one_of_the_same_name_is_filtered(host):
    batch = host.sandbox.folder / "batch"
    add = f"link add eth1 type veth peer name wire1 netns {host.peer.name}\n"
    batch.write_text(f"{add}link del eth1\n{add}link set eth1 up\n")
    for _ in range(3):
        host.host.ip("-batch", batch)
        host.peer.ip("link", "set", "wire1", "up")
        one, wire = Interface(host.host, "eth1"), Interface(host.peer, "wire1")
        wire.peer, wire.ipv4, one.ipv4 = one, "10.5.0.2", "10.5.0.1"
        wait_until(lambda: interfaces(host.daemon).get("eth1", {}).get("ifindex") == one.ifindex
                   and kernel.xdp_id(one), WITHIN_S)
        block_and_count(host.daemon, wire, "eth1")
        host.host.ip("link", "del", "eth1")
        del host.host.interfaces["eth1"], host.peer.interfaces["wire1"]
    assert not lines(host.daemon, "somebody took") and not lines(host.daemon, "eth1: XDP")


def test_an_interface_that_moves_away_with_our_program_is_told_once_and_filtered_when_it_is_back(host):
    other = host.sandbox.namespace("other")
    for turn in range(1, 3):
        host.host.ip("link", "set", "eth0", "netns", other.name)
        wait_until(lambda: "eth0" not in interfaces(host.daemon), WITHIN_S)
        wait_until(lambda: len(lines(host.daemon, "moved to another network namespace")) == turn, WITHIN_S)
        other.ip("link", "set", "eth0", "netns", host.host.name)
        host.host.ip("link", "set", "eth0", "up")
        wait_until(lambda: all(hooks(host.eth0)) and "eth0" in interfaces(host.daemon), WITHIN_S)
        block_and_count(host.daemon, host.wire)
    host.host.ip("link", "del", "eth0")
    wait_until(lambda: lines(host.daemon, "eth0: gone"), WITHIN_S)
    assert len(lines(host.daemon, "moved to another")) == 2, "one that is deleted has not moved"


def test_another_mtu_changes_nothing(host):
    before = hooks(host.eth0)
    for mtu in 68, 9000, 65535:
        host.host.ip("link", "set", "eth0", "mtu", mtu)
        host.peer.ip("link", "set", "wire", "mtu", mtu)  # a veth's program limits that of the other end
        block_and_count(host.daemon, host.wire)
    assert hooks(host.eth0) == before
    assert interfaces(host.daemon)["eth0"]["xdp"] == "native" and error(host.daemon) is None


def test_a_port_of_a_bridge_is_filtered_and_so_is_the_bridge(host):
    """The kernel changes no XDP program below another one."""
    host.host.ip("link", "add", "br0", "type", "bridge")
    host.host.ip("link", "set", "br0", "up")
    wait_until(lambda: interfaces(host.daemon).get("br0", {}).get("xdp") == "generic", WITHIN_S)
    host.host.ip("link", "set", "eth0", "master", "br0")
    block_and_count(host.daemon, host.wire)

    before = hooks(host.eth0)
    many = "".join(f"172.{16 + i // 256}.{i % 256}.0/24\n" for i in range(4096)) + "192.0.2.0/24\n"
    host.daemon.fwctl("add", "-", input=many)
    assert hooks(host.eth0)[0] != before[0], "on other maps now"
    block_and_count(host.daemon, host.wire)
    host.daemon.write_rules(RULES.replace("eth*", "eth1").replace('interface = "eth0"\n', ""))
    host.daemon.fwctl("reload")
    assert hooks(host.eth0) == (None, None, None)
    host.daemon.write_rules(RULES)
    host.daemon.fwctl("reload")
    block_and_count(host.daemon, host.wire)

    host.host.ip("link", "set", "eth0", "nomaster")
    host.acts()
    found = interfaces(host.daemon)
    assert [(found[name]["xdp"], found[name]["error"]) for name in ("eth0", "br0")] \
        == [("native", None), ("generic", None)]
    assert len(lines(host.daemon, "br0: native XDP: ")) == 1, "auto settles once"


def test_a_foreign_program_on_top_is_named_and_ours_comes_once_it_is_off(net):
    foreign = kernel.Foreign(net.sandbox)
    net.host.ip("link", "add", "top0", "type", "bridge")
    net.host.ip("link", "set", "eth0", "master", "top0")
    net.host.ip("link", "set", "dev", "top0", "xdp", "obj", foreign.path, "sec", "xdp")
    daemon = net.daemon(RULES)
    said = error(daemon)
    assert "top0, which is on top of it" in said and "ip link set dev top0 xdp off" in said
    net.host.ip("link", "set", "top0", "mtu", 1400)
    net.host.ip("link", "set", "dev", "top0", "xdp", "off")
    wait_until(lambda: error(daemon) is None, WITHIN_S)
    assert len(lines(daemon, said)) == 1
    block_and_count(daemon, net.wire)
