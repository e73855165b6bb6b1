# SPDX-License-Identifier: GPL-2.0-or-later
"""The framework itself: a test that cannot fail proves nothing."""
import signal
import stat

import pytest

from fwdtest import traffic
from fwdtest.daemon import Daemon
from fwdtest.sandbox import BPFFS, NETNS, Sandbox, remove_leftovers, run
from fwdtest.traffic import Capture, Flow, Listener, TunReceiver, ether, ip, tcp, udp


def program(sandbox, text):
    """A stand-in for fwd."""
    path = sandbox.folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def notify(text):
    return ("/usr/bin/python3 -c 'import os, socket; socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
            f".sendto(b\"{text}\", os.environ[\"NOTIFY_SOCKET\"])'")


def test_hosts_reach_each_other_in_both_families(net):
    assert net.peer.ping(net.eth0.ipv4)
    assert net.peer.ping(net.eth0.ipv6)
    assert not net.peer.ping("10.1.0.99")


def test_an_added_address_is_reached(net):
    net.wire.add_address("10.1.0.3/24")
    assert net.host.ping("10.1.0.3")


def test_a_link_is_silent_unless_spoken_to(net):
    Flow(net.wire, udp(net.wire, 7), Listener(net.host, 7)).passes()
    with Capture(net.eth0, marker=b"") as capture:
        assert capture.packets(1, 1) == []


@pytest.mark.parametrize("source", [None, "10.1.0.77", "2001:db8:1::2", "2001:db8:1::77"])
def test_a_listener_gets_what_was_sent(net, source):
    with Listener(net.host, 7) as listener:
        Flow(net.wire, udp(net.wire, 7, source), listener).passes()


@pytest.mark.parametrize("vlans", [(), (5,), (5, 6)])
def test_a_capture_shows_the_frame_as_it_was_sent(net, vlans):
    frame = bytes(tcp(net.wire, 80, vlans=vlans))
    with Capture(net.eth0) as capture:
        assert Flow(net.wire, frame, capture).passes() == [frame] * 3


def test_a_tun_device_gives_its_packets(net):
    tun = net.sandbox.tun(net.host, "tun0")
    net.host.ip("route", "add", "192.0.2.0/24", "dev", "tun0")
    net.host.sysctl("net.ipv4.ip_forward", 1)
    frame = udp(net.wire, 7, destination="192.0.2.1")
    Flow(net.wire, frame, TunReceiver(tun)).passes()


def test_a_flow_that_arrives_is_not_dropped(net):
    flow = Flow(net.wire, udp(net.wire, 7), Listener(net.host, 7))
    with pytest.raises(AssertionError, match="3 of 3 packets"):
        flow.is_dropped()


def test_a_flow_that_does_not_arrive_does_not_pass(net, monkeypatch):
    monkeypatch.setattr(traffic, "ARRIVAL_WAIT_S", 0.2)
    flow = Flow(net.wire, udp(net.wire, 7, destination="192.0.2.1"), Listener(net.host, 7), count=1)
    with pytest.raises(AssertionError, match="0 of 1 packets"):
        flow.passes()
    flow.is_dropped()


def test_nothing_sent_is_not_taken_for_dropped(net):
    net.host.ip("link", "set", "eth0", "down")
    flow = Flow(net.wire, ether(net.wire) / ip(net.wire), Capture(net.eth0), count=1)
    with pytest.raises((AssertionError, OSError)):
        flow.is_dropped()


def test_a_sandbox_goes_with_an_exception():
    with pytest.raises(ZeroDivisionError), Sandbox() as sandbox:
        process = Daemon(sandbox, sandbox.namespace("host"), binary=program(sandbox, "exec sleep 60")).spawn().process
        raise ZeroDivisionError
    assert process.returncode == -signal.SIGTERM
    assert not list(NETNS.glob(f"{sandbox.name}-*"))
    assert not sandbox.bpffs.exists() and not sandbox.folder.exists()


def test_a_sandbox_removes_what_a_killed_run_left():
    gone = 4194304  # the first number that no process can have, proc(5)
    name = f"fwd-{gone}-0-host"
    with Sandbox() as sandbox:
        (BPFFS / f"fwd-test-{gone}-x").mkdir()
        sandbox.namespace("host")
        run("ip", "netns", "add", name)
        remove_leftovers()
        assert sandbox.namespaces["host"].path.exists()
    assert not (NETNS / name).exists() and not (BPFFS / f"fwd-test-{gone}-x").exists()


def test_a_start_waits_for_readiness(sandbox):
    ready = program(sandbox, f"sleep 0.3; echo up; {notify('STATUS=x')}; {notify('READY=1')}; exec sleep 60")
    daemon = Daemon(sandbox, sandbox.namespace("host"), binary=ready).start()
    assert daemon.log() == "up\n"
    daemon.kill()
    assert not daemon.running()


def test_a_start_that_ends_shows_why(sandbox):
    daemon = Daemon(sandbox, sandbox.namespace("host"), binary=program(sandbox, "echo no bpffs >&2; exit 3"))
    with pytest.raises(AssertionError, match="ended with 3 before READY=1:\nno bpffs"):
        daemon.start()


def test_a_sanitizer_report_fails_the_stop(sandbox):
    reporting = program(sandbox, f"echo '==1==ERROR: AddressSanitizer: x' >&2; {notify('READY=1')}; exec sleep 60")
    daemon = Daemon(sandbox, sandbox.namespace("host"), binary=reporting).start()
    with pytest.raises(AssertionError, match="a sanitizer reports"):
        daemon.kill()
