# SPDX-License-Identifier: GPL-2.0-or-later
"""The contract in its shortest form: start, add, redirect, reload, stop, on real packets."""
import time

import pytest

from fwdtest.daemon import FWCTL, FWD
from fwdtest.rules import ETH0
from fwdtest.sandbox import run
from fwdtest.traffic import Capture, Flow, Listener, TunReceiver, rises, tcp, udp, wait_until

DROP = ("eth0", "xdp", "drop")
PASS = {("eth0", "xdp", "pass"): 3}
REDIRECT = {("eth0", "xdp", "pass"): 3, ("eth0", "tc_in", "redirect"): 3}


def flow_from(net, source, listener):
    return Flow(net.wire, udp(net.wire, 7, source), listener)


@pytest.mark.parametrize("rules, tc_in", [("", False), ('[[redirect]]\nprotocol = "udp"\nport = 9\ntarget = "tun0"\n', True)])
def test_ready_means_attached_where_there_is_something_to_do(net, rules, tc_in):
    daemon = net.daemon(ETH0 + rules)
    [interface] = daemon.fwctl_json("status")["interfaces"]
    assert (interface["name"], interface["ifindex"], interface["error"]) == ("eth0", net.eth0.ifindex, None)
    assert interface["xdp"] == net.eth0.xdp_mode() == "native"
    assert (interface["tc_in"], interface["tc_out"]) == (tc_in, False)
    assert bool(net.host.run("tc", "filter", "show", "dev", "eth0", "ingress").stdout) == tc_in


@pytest.mark.parametrize("source, other", [("10.1.0.2", "10.1.0.3"), ("2001:db8:1::2", "2001:db8:1::3")])
def test_add_drops_this_source_and_no_other_until_del(net, listener, source, other):
    daemon = net.daemon()
    flow, other_flow = flow_from(net, source, listener), flow_from(net, other, listener)
    with rises(daemon, PASS):
        flow.passes()

    daemon.fwctl("add", source)
    with rises(daemon, {DROP: 3}):
        flow.is_dropped()
    with rises(daemon, PASS):
        other_flow.passes()
    [entry] = daemon.fwctl_json("list")["entries"]
    assert (entry["prefix"], entry["origin"], entry["packets"]) == (source, "runtime", 3)
    assert entry["bytes"] == 3 * len(flow.frame)

    daemon.fwctl("del", source)
    flow.passes()


def test_a_configured_prefix_drops_and_the_allowlist_lets_pass(net, listener):
    flow = flow_from(net, "10.1.0.2", listener)
    allowed = flow_from(net, "10.1.0.3", listener)
    flow.passes()
    daemon = net.daemon(f'{ETH0}[blacklist]\naddresses = ["10.1.0.0/28"]\n[allowlist]\naddresses = ["10.1.0.3"]\n')
    with rises(daemon, {DROP: 3}):
        flow.is_dropped()
    with rises(daemon, {("eth0", "xdp", "allow"): 3}):
        allowed.passes()


def test_an_entry_ends_with_its_ttl_even_without_the_daemon(net, listener):
    daemon = net.daemon()
    flow = flow_from(net, "10.1.0.2", listener)
    daemon.fwctl("add", "10.1.0.2", "--ttl", "2s")
    flow.is_dropped()
    daemon.kill()
    time.sleep(2.1)
    flow.passes()


def test_test_tells_the_verdict_by_its_exit_status(net):
    daemon = net.daemon()
    daemon.fwctl("add", "192.0.2.0/24")
    assert daemon.fwctl("test", "192.0.2.7", check=False).returncode == 1
    assert daemon.fwctl("test", "198.51.100.7", check=False).returncode == 0


@pytest.mark.parametrize("build", [udp, tcp])
def test_redirect_to_a_tun_device(net, build):
    daemon = net.daemon()
    tun = net.sandbox.tun(net.host, "tun0")
    frame = build(net.wire, 8080)
    with Capture(net.eth0) as at_host, TunReceiver(tun) as at_tun:
        Flow(net.wire, frame, at_tun).is_dropped()
        Flow(net.wire, frame, at_host).passes()
        daemon.fwctl("redirect", "add", f"{build.__name__}/8000-8099", "tun0", "--on", "eth0")
        with rises(daemon, REDIRECT):
            arrived = Flow(net.wire, frame, at_tun).passes()
    assert arrived == [bytes(frame)[14:]] * 3


def test_a_redirect_takes_only_its_port_and_waits_for_its_target(net, listener):
    daemon = net.daemon()
    with Listener(net.host, 8) as at_host:
        flow = Flow(net.wire, udp(net.wire, 8), at_host)
        flow.passes()
        daemon.fwctl("redirect", "add", "udp/8", "tun0", "--on", "eth0")
        with rises(daemon, {("eth0", "xdp", "pass"): 3, ("eth0", "tc_in", "no_target"): 3}):
            flow.is_dropped()
        tun = net.sandbox.tun(net.host, "tun0")
        wait_until(lambda: daemon.fwctl_json("redirect", "list")["redirects"][0]["effective_mode"] == "l2")
        with TunReceiver(tun) as at_tun:
            Flow(net.wire, flow.frame, at_tun).passes()
        assert at_host.packets(0, 0) == []
    flow_from(net, None, listener).passes()


def test_redirect_to_the_far_end_of_another_link(net):
    daemon = net.daemon()
    scrubber = net.sandbox.namespace("scrubber")
    scrub0, far = net.sandbox.link(net.host, "scrub0", scrubber, "far")
    frame = udp(net.wire, 8080)
    daemon.fwctl("redirect", "add", "udp/8080", scrub0.name, "--on", "eth0", "--mode", "l2")
    with Capture(far) as at_scrubber, rises(daemon, REDIRECT):
        assert Flow(net.wire, frame, at_scrubber).passes() == [bytes(frame)] * 3


def test_reload_takes_the_new_rules_and_leaves_all_on_an_error(net, listener):
    daemon = net.daemon()
    flow = flow_from(net, None, listener)
    flow.passes()
    daemon.write_rules(f'{ETH0}[blacklist]\naddresses = ["10.1.0.2"]\n')
    daemon.fwctl("reload")
    flow.is_dropped()

    daemon.write_rules(f'{ETH0}[blacklist]\naddresses = ["10.1.0.300"]\n')
    failed = daemon.fwctl("reload", check=False)
    assert failed.returncode == 1 and f"{daemon.config_path}:" in failed.stderr and "10.1.0.300" in failed.stderr
    flow.is_dropped()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_the_filter_goes_on_without_the_daemon_and_is_adopted(net, listener, end):
    daemon = net.daemon()
    flow = flow_from(net, None, listener)
    flow.passes()
    daemon.fwctl("add", "10.1.0.2", "--comment", "kept")
    flow.is_dropped()

    getattr(daemon, end)()
    flow.is_dropped()

    daemon.start()
    flow.is_dropped()
    assert daemon.fwctl_json("status")["adopted"] is True
    [entry] = daemon.fwctl_json("list")["entries"]
    assert (entry["comment"], entry["packets"]) == ("kept", 9)


def test_detach_leaves_the_interface_as_it_was(net, listener):
    before = net.host.ip_json("link", "show", "dev", "eth0")[0]
    daemon = net.daemon(on_stop="detach")
    daemon.fwctl("add", "10.1.0.2")
    flow = flow_from(net, None, listener)
    flow.is_dropped()

    daemon.stop()
    flow.passes()
    after = net.host.ip_json("link", "show", "dev", "eth0")[0]
    assert after.get("xdp") == before.get("xdp")
    assert net.host.run("tc", "filter", "show", "dev", "eth0", "ingress").stdout == ""
    assert "clsact" not in net.host.run("tc", "qdisc", "show", "dev", "eth0").stdout

    daemon.start()
    flow.is_dropped()


def test_exit_statuses(net):
    daemon = net.daemon()

    def status(*words):
        return daemon.fwctl(*words, check=False).returncode

    assert status("add", "192.0.2.1") == 0
    assert status("add", "192.0.2.1") == 0
    assert status("del", "192.0.2.2") == 1
    assert status("add", "192.0.2.256") == 2
    assert status("frobnicate") == 2
    daemon.stop()
    assert status("list") == 3


@pytest.mark.parametrize("program", [FWD, FWCTL])
def test_version_and_help(program):
    assert run(program, "--version").stdout.startswith(program.name)
    assert run(program, "--help").stdout
