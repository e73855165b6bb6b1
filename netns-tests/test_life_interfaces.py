# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces come, go, change their names and are shared with other programs."""
import signal

import pytest

from fwdtest import kernel
from fwdtest.rules import ETH0
from fwdtest.traffic import Flow, rises, udp, wait_until

OURS = (kernel.TC_PRIORITY, kernel.TC_HANDLE)
BLOCKED = "10.1.0.2"


def interface(name, **keys):
    return f'[[interface]]\nname = "{name}"\n' + "".join(f'{key} = "{value}"\n' for key, value in keys.items())


def status(daemon):
    """{name: interface}."""
    return {interface["name"]: interface for interface in daemon.fwctl_json("status")["interfaces"]}


def xdp(daemon):
    return {name: interface["xdp"] for name, interface in status(daemon).items()}


def slots(daemon):
    return {int(pin.name.removeprefix("xdp_")) for pin in (daemon.pin_dir / "current").glob("xdp_*")}


def veth(net, name):
    """NAME at the host and its other end NAME-p at the peer, which has nothing to report in IPv6."""
    ends = net.sandbox.link(net.host, name, net.peer, f"{name}-p")
    net.peer.sysctl(f"net.ipv6.conf.{name}-p.disable_ipv6", 1)
    return ends


def is_blocked(net, ends, listener):
    here, there = ends
    Flow(there, udp(there, 7), listener).is_dropped()


# ---- coming and going ----

def test_an_interface_that_appears_is_filtered_from_its_first_packets(net, listener):
    """Its peer floods it before it is there for the daemon; nothing but the first moments may pass."""
    daemon = net.daemon(ETH0 + interface("late0") + '[blacklist]\naddresses = ["10.0.0.0/8"]\n')
    assert daemon.fwctl_json("status")["waiting"] == ["late0"]
    ends = veth(net, "late0")
    wait_until(lambda: xdp(daemon).get("late0") == "native", wait_s=1)
    assert daemon.fwctl_json("status")["waiting"] == []
    is_blocked(net, ends, listener)


def test_an_interface_is_attached_before_it_is_up(net):
    """Made, and set up later: what it receives first is filtered."""
    daemon = net.daemon(ETH0 + interface("late0"))
    net.host.ip("link", "add", "late0", "type", "veth", "peer", "late1")
    wait_until(lambda: xdp(daemon).get("late0") == "native", wait_s=1)


def test_a_deleted_interface_is_forgotten_and_its_slot_reused(net, listener):
    daemon = net.daemon(ETH0 + interface("veth*"))
    veth(net, "veth1")
    wait_until(lambda: "veth1" in xdp(daemon))
    assert slots(daemon) == {0, 1}
    for turn in range(3):
        net.host.ip("link", "del", "veth1")
        wait_until(lambda: "veth1" not in xdp(daemon))
        assert slots(daemon) == {0}
        ends = veth(net, "veth1")
        wait_until(lambda: xdp(daemon).get("veth1") == "native")
        assert slots(daemon) == {0, 1}
        daemon.fwctl("add", ends[1].ipv4)
        with rises(daemon, {("veth1", "xdp", "drop"): 3}):
            is_blocked(net, ends, listener)
        assert daemon.verdicts()["veth1", "xdp", "drop"] == 3, "with an earlier interface's packets"
        assert "No such device" not in daemon.log()


def test_an_interface_that_goes_and_comes_while_no_daemon_runs_is_filtered(net, listener):
    daemon = net.daemon(ETH0 + interface("veth*"))
    veth(net, "veth1")
    wait_until(lambda: "veth1" in xdp(daemon))
    daemon.kill()
    net.host.ip("link", "del", "veth1")
    ends = veth(net, "veth2")
    daemon.start()
    assert xdp(daemon) == {"eth0": "native", "veth2": "native"}
    assert slots(daemon) == {0, 1}
    daemon.fwctl("add", ends[1].ipv4)
    is_blocked(net, ends, listener)


def test_a_bridge_and_its_ports_are_interfaces_as_any_other(net):
    daemon = net.daemon(ETH0 + interface("br*") + interface("veth*"))
    veth(net, "veth1")
    net.host.ip("link", "add", "br0", "type", "bridge")
    net.host.ip("link", "set", "veth1", "master", "br0")
    net.host.ip("link", "set", "br0", "up")
    wait_until(lambda: xdp(daemon) == {"eth0": "native", "br0": "generic", "veth1": "native"})
    net.host.ip("link", "set", "veth1", "nomaster")
    net.host.ip("link", "set", "veth1", "master", "br0")
    net.host.ip("link", "del", "veth1")
    wait_until(lambda: xdp(daemon) == {"eth0": "native", "br0": "generic"})
    net.host.ip("link", "set", "br0", "down")  # else kernels before 6.2 do not rename it
    net.host.ip("link", "set", "br0", "name", "other")
    wait_until(lambda: xdp(daemon) == {"eth0": "native"})
    net.host.ip("link", "set", "other", "name", "br1")
    wait_until(lambda: xdp(daemon) == {"eth0": "native", "br1": "generic"})
    net.host.ip("link", "del", "br1")
    wait_until(lambda: xdp(daemon) == {"eth0": "native"})


def test_a_storm_of_interfaces_while_the_daemon_is_held_up_loses_none(net):
    """More messages than its netlink socket holds: what it knows is out of date until it asks again."""
    daemon = net.daemon(ETH0 + interface("late*"))
    daemon.signal(signal.SIGSTOP)
    batch = net.sandbox.folder / "batch"
    batch.write_text("".join(f"link set dev eth0 alias {i}\n" for i in range(1000))
                     + "link add name late0 type veth peer name late1\n")
    net.host.ip("-batch", batch)
    daemon.signal(signal.SIGCONT)
    wait_until(lambda: xdp(daemon) == {"eth0": "native", "late0": "native", "late1": "native"}, wait_s=5)
    net.host.ip("link", "del", "late0")
    wait_until(lambda: xdp(daemon) == {"eth0": "native"})


# ---- names ----

def test_an_exact_name_goes_before_a_glob(net):
    for name in "veth1", "veth2":
        veth(net, name)
    daemon = net.daemon(interface("veth*", xdp_mode="generic") + interface("veth2", xdp_mode="native"))
    assert xdp(daemon) == {"veth1": "generic", "veth2": "native"}
    assert [net.host.interfaces[name].xdp_mode() for name in ("veth1", "veth2", "eth0")] == ["generic", "native", None]


def test_a_glob_takes_what_is_renamed_into_it_and_leaves_what_is_renamed_out(net, listener):
    daemon = net.daemon(ETH0 + interface("veth*", xdp_mode="generic"))
    here, there = ends = veth(net, "other")
    daemon.fwctl("add", there.ipv4)
    flow = Flow(there, udp(there, 7), listener)
    flow.passes()

    def rename(name):
        net.host.ip("link", "set", here.name, "down")
        net.host.ip("link", "set", here.name, "name", name)
        net.host.ip("link", "set", name, "up")
        here.name = name

    for _ in range(2):
        rename("veth5")
        wait_until(lambda: xdp(daemon) == {"eth0": "native", "veth5": "generic"})
        is_blocked(net, ends, listener)
        rename("veth6")
        wait_until(lambda: xdp(daemon) == {"eth0": "native", "veth6": "generic"})
        is_blocked(net, ends, listener)
        rename("other")
        wait_until(lambda: xdp(daemon) == {"eth0": "native"})
        assert here.xdp_mode() is None
        flow.passes()


def test_a_redirect_follows_the_name_of_its_interface_and_of_its_target(net):
    daemon = net.daemon(ETH0 + interface("veth*") + '[[redirect]]\ninterface = "veth5"\nprotocol = "udp"\n'
                        'port = 9\ntarget = "tun0"\n')
    here, _ = veth(net, "veth1")
    tun = net.sandbox.tun(net.host, "tun1")
    wait_until(lambda: "veth1" in xdp(daemon))
    assert not status(daemon)["veth1"]["tc_in"]
    for old, new in ("veth1", "veth5"), ("tun1", "tun0"):
        net.host.ip("link", "set", old, "down")
        net.host.ip("link", "set", old, "name", new)
        net.host.ip("link", "set", new, "up")
    here.name, tun.name = "veth5", "tun0"
    wait_until(lambda: status(daemon).get("veth5", {}).get("tc_in"))
    wait_until(lambda: daemon.fwctl_json("redirect", "list")["redirects"][0]["effective_mode"] == "l2")
    assert list(kernel.filters(here)) == [OURS]


# ---- modes ----

@pytest.mark.parametrize("mode, got", [("native", "native"), ("generic", "generic"), ("auto", "native")])
def test_the_mode_that_is_asked_for_is_the_mode_it_gets(net, listener, mode, got):
    daemon = net.daemon(interface("eth0", xdp_mode=mode))
    assert net.eth0.xdp_mode() == xdp(daemon)["eth0"] == got
    daemon.fwctl("add", BLOCKED)
    with rises(daemon, {("eth0", "xdp", "drop"): 3}):
        is_blocked(net, (net.eth0, net.wire), listener)


@pytest.mark.parametrize("name", ["lo", "br0"])
def test_auto_falls_back_to_generic_with_a_warning(net, name):
    net.host.ip("link", "add", "br0", "type", "bridge")
    daemon = net.daemon(interface(name))
    assert xdp(daemon) == {name: "generic"} and status(daemon)[name]["error"] is None
    [warning] = [line for line in daemon.log().splitlines() if f"{name}: " in line and "using generic XDP" in line]
    assert "native XDP: " in warning
    daemon.stop()
    daemon.start()
    assert xdp(daemon) == {name: "generic"}
    assert daemon.log().count("using generic XDP") == 1, "a restart keeps what auto settled for"


def test_native_where_there_is_none_is_an_error_and_the_others_are_filtered(net, listener):
    net.host.ip("link", "add", "br0", "type", "bridge")
    daemon = net.daemon(ETH0 + interface("br0", xdp_mode="native"))
    assert xdp(daemon) == {"eth0": "native", "br0": None}
    assert "native XDP" in status(daemon)["br0"]["error"] and "br0: " in daemon.log()
    daemon.fwctl("add", BLOCKED)
    is_blocked(net, (net.eth0, net.wire), listener)


# ---- programs of others ----

def test_a_foreign_xdp_program_is_named_and_left_alone(net, listener):
    foreign = kernel.Foreign(net.sandbox)
    ends = one, _ = veth(net, "one")
    foreign.hold(one)
    theirs = kernel.xdp_id(one)
    daemon = net.daemon(ETH0 + interface("one"))
    assert kernel.xdp_id(one) == theirs
    assert xdp(daemon) == {"eth0": "native", "one": None}
    error = status(daemon)["one"]["error"]
    assert '"xdp_pass"' in error and f"id {theirs}" in error and error in daemon.log()
    daemon.fwctl("add", BLOCKED)
    daemon.fwctl("add", ends[1].ipv4)
    is_blocked(net, (net.eth0, net.wire), listener)

    net.host.ip("link", "set", "one", "xdp", "off")
    net.host.ip("link", "set", "one", "mtu", "1400")
    wait_until(lambda: xdp(daemon)["one"] == "native")
    assert status(daemon)["one"]["error"] is None
    is_blocked(net, ends, listener)


def test_an_interface_that_a_foreign_program_leaves_is_taken_at_once(net):
    foreign = kernel.Foreign(net.sandbox)
    foreign.hold(net.eth0)
    daemon = net.daemon()
    assert xdp(daemon) == {"eth0": None}
    net.host.ip("link", "set", "eth0", "xdp", "off")
    wait_until(lambda: xdp(daemon) == {"eth0": "native"})


def test_a_reload_takes_an_interface_that_a_foreign_program_has_left(net):
    foreign = kernel.Foreign(net.sandbox)
    foreign.hold(net.eth0)
    daemon = net.daemon()
    daemon.signal(signal.SIGSTOP)
    net.host.ip("link", "set", "eth0", "xdp", "off")
    daemon.signal(signal.SIGCONT)
    daemon.fwctl("reload")
    assert xdp(daemon) == {"eth0": "native"}


def test_a_foreign_program_stays_over_stop_and_detach(net):
    foreign = kernel.Foreign(net.sandbox)
    foreign.hold(net.eth0)
    theirs = kernel.xdp_id(net.eth0)
    daemon = net.daemon(on_stop="detach")
    daemon.stop()
    assert kernel.xdp_id(net.eth0) == theirs


def test_foreign_filters_before_and_behind_ours_see_the_packets_that_pass(net, listener):
    foreign = kernel.Foreign(net.sandbox)
    net.host.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    foreign.filter(net.eth0, 5, "mark")
    foreign.filter(net.eth0, 20, "shot_marked")
    theirs = kernel.filters(net.eth0)
    daemon = net.daemon(ETH0 + '[[redirect]]\nprotocol = "udp"\nport = 9\ntarget = "tun0"\n')
    assert list(kernel.filters(net.eth0)) == [*sorted(theirs)[:1], OURS, *sorted(theirs)[1:]]
    flow = Flow(net.wire, udp(net.wire, 7), listener)
    with rises(daemon, {("eth0", "xdp", "pass"): 3, ("eth0", "tc_in", "pass"): 3}):
        flow.is_dropped()  # marked before us, and dropped behind us for the mark
    net.host.run("tc", "filter", "del", "dev", "eth0", "ingress", "pref", "5")
    with rises(daemon, {("eth0", "xdp", "pass"): 3, ("eth0", "tc_in", "pass"): 3}):
        flow.passes()

    daemon.stop()
    daemon.start()
    daemon.write_rules(ETH0)
    daemon.fwctl("reload")
    assert kernel.filters(net.eth0) == {place: theirs[place] for place in theirs if place[0] == 20}


def test_a_foreign_filter_at_our_place_is_named_and_left_alone(net):
    foreign = kernel.Foreign(net.sandbox)
    net.host.run("tc", "qdisc", "add", "dev", "eth0", "clsact")
    net.host.run("tc", "filter", "add", "dev", "eth0", "ingress", "pref", OURS[0], "handle", hex(OURS[1]),
                 "bpf", "direct-action", "obj", foreign.path, "sec", "mark")
    theirs = kernel.filters(net.eth0)
    assert list(theirs) == [OURS]
    daemon = net.daemon()
    failed = daemon.fwctl("redirect", "add", "udp/9", "tun0", "--on", "eth0", check=False)
    assert failed.returncode == 1 and f"id {theirs[OURS]}" in failed.stderr
    assert kernel.filters(net.eth0) == theirs
    assert daemon.fwctl_json("redirect", "list")["redirects"] == []


# ---- only where a rule needs it ----

def test_a_program_is_attached_only_where_a_rule_needs_it(net):
    veth(net, "one")
    daemon = net.daemon(ETH0 + interface("one"))

    def attached():
        return {name: (bool(kernel.xdp_id(end)), list(kernel.filters(end)), list(kernel.filters(end, "egress")))
                for name, end in net.host.interfaces.items()}

    nothing = {"eth0": (True, [], []), "one": (True, [], [])}
    assert attached() == nothing
    daemon.fwctl("redirect", "add", "udp/9", "tun0", "--on", "eth0")
    assert attached() == {"eth0": (True, [OURS], []), "one": (True, [], [])}
    daemon.fwctl("redirect", "add", "udp/10", "tun0", "--on", "eth0")
    daemon.fwctl("redirect", "add", "udp/9", "tun0", "--direction", "out")
    assert attached() == {"eth0": (True, [OURS], [OURS]), "one": (True, [], [OURS])}
    daemon.fwctl("redirect", "del", "udp/9", "--on", "eth0")
    assert attached() == {"eth0": (True, [OURS], [OURS]), "one": (True, [], [OURS])}
    daemon.fwctl("redirect", "del", "udp/10", "--on", "eth0")
    assert attached() == {"eth0": (True, [], [OURS]), "one": (True, [], [OURS])}
    daemon.fwctl("redirect", "del", "udp/9", "--direction", "out")
    assert attached() == nothing
    assert not any(kernel.has_clsact(end) for end in net.host.interfaces.values())


@pytest.mark.parametrize("directions, xdp_on, out", [(["in"], True, []), (["out"], False, [OURS]),
                                                     (["in", "out"], True, [OURS])])
def test_directions_of_the_blacklist_decide_on_the_programs(net, directions, xdp_on, out):
    daemon = net.daemon(f"{ETH0}[blacklist]\ndirection = {directions}\n")
    assert (bool(kernel.xdp_id(net.eth0)), list(kernel.filters(net.eth0, "egress"))) == (xdp_on, out)
    daemon.write_rules(f'{ETH0}[blacklist]\ndirection = ["in"]\n')
    daemon.fwctl("reload")
    assert (bool(kernel.xdp_id(net.eth0)), list(kernel.filters(net.eth0, "egress"))) == (True, [])


def test_a_program_that_was_taken_off_by_hand_comes_back(net, listener):
    daemon = net.daemon(ETH0 + '[[redirect]]\nprotocol = "udp"\nport = 9\ntarget = "tun0"\n')
    daemon.fwctl("add", BLOCKED)
    net.host.ip("link", "set", "eth0", "xdp", "off")
    net.host.run("tc", "qdisc", "del", "dev", "eth0", "clsact")
    daemon.fwctl("reload")
    assert kernel.xdp_id(net.eth0) and list(kernel.filters(net.eth0)) == [OURS]
    is_blocked(net, (net.eth0, net.wire), listener)
