# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocked addresses, whatever their packets look like, on each kind of interface and in each direction."""
from types import SimpleNamespace

import pytest

from fwdtest.daemon import Daemon
from fwdtest.sandbox import Sandbox
from fwdtest.traffic import MARKER, Capture, Flow, Listener, Program, ether, ip, rises, udp

IPV4, IPV6 = "203.0.113.9", "2001:db8:bad::9"
ANOTHER = {IPV4: "203.0.113.8", IPV6: "2001:db8:bad::8"}

COUNTED_WAIT_S = 0.03  # after the drops were counted, one by one
TAGS = {"one tag": (5,), "two tags": (5, 6)}


def ipv4_shapes(destination):
    """Packets of the source by what is special about them."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_RR

    def packet(**fields):
        return IP(src=IPV4, dst=destination, **fields)

    datagram = UDP(sport=40000, dport=7) / MARKER
    return {
        "udp": packet() / datagram,
        "tcp": packet() / TCP(dport=7) / MARKER,
        "icmp": packet() / ICMP() / MARKER,
        "unknown protocol": packet(proto=253) / MARKER,
        "options": packet(options=[IPOption_NOP()] * 4) / datagram,
        "the most options": packet(options=[IPOption_RR(length=39, routers=["192.0.2.1"] * 9), IPOption_NOP()])
        / datagram,
        "first fragment": packet(flags="MF", proto=17) / (bytes(datagram) + b"0123456789"),
        "later fragment": packet(frag=3, proto=17) / MARKER,
    }


def ipv6_shapes(destination):
    from scapy.layers.inet import TCP, UDP
    from scapy.layers.inet6 import (ICMPv6EchoRequest, IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment,
                                    IPv6ExtHdrHopByHop, IPv6ExtHdrRouting, PadN)

    packet = IPv6(src=IPV6, dst=destination)
    datagram = UDP(sport=40000, dport=7) / MARKER
    return {
        "udp": packet / datagram,
        "tcp": packet / TCP(dport=7) / MARKER,
        "icmp": packet / ICMPv6EchoRequest(data=MARKER),
        "no next header": IPv6(src=IPV6, dst=destination, nh=59) / MARKER,
        "options": packet / IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)]) / IPv6ExtHdrDestOpt() / datagram,
        "a chain of headers": packet / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / IPv6ExtHdrRouting(segleft=0)
        / IPv6ExtHdrDestOpt() / datagram,
        "first fragment": packet / IPv6ExtHdrFragment(m=1, nh=17) / (bytes(datagram) + b"0123456789"),
        "later fragment": packet / IPv6ExtHdrFragment(offset=3, nh=17) / MARKER,
    }


IPV4_SHAPES = ["udp", "tcp", "icmp", "unknown protocol", "options", "the most options", "first fragment",
               "later fragment"]
IPV6_SHAPES = ["udp", "tcp", "icmp", "no next header", "options", "a chain of headers", "first fragment",
               "later fragment"]
SHAPES = [(IPV4, shape) for shape in IPV4_SHAPES] + [(IPV6, shape) for shape in IPV6_SHAPES]
TAGGED = [(source, tags + ", " + shape) for source in (IPV4, IPV6) for tags in TAGS
          for shape in ("udp", "options", "later fragment")]


def packet_of(source, shape, host):
    """To an interface of the host."""
    return ipv4_shapes(host.ipv4)[shape] if source == IPV4 else ipv6_shapes(host.ipv6)[shape]


@pytest.fixture(scope="module", params=["native", "generic"])
def wired(request):
    """A host with one daemon for many tests, each of which leaves it without rules."""
    with Sandbox() as sandbox:
        host, peer = sandbox.namespace("host"), sandbox.namespace("peer")
        eth0, wire = sandbox.link(host, "eth0", peer, "wire")
        daemon = Daemon(sandbox, host, f'[[interface]]\nname = "eth0"\nxdp_mode = "{request.param}"\n').start()
        assert eth0.xdp_mode() == request.param
        yield SimpleNamespace(sandbox=sandbox, host=host, peer=peer, eth0=eth0, wire=wire, daemon=daemon)
        daemon.stop()


@pytest.fixture(scope="module")
def tunneled():
    """A tun device, for which the kernel has generic XDP only."""
    with Sandbox() as sandbox:
        host = sandbox.namespace("host")
        tun0 = sandbox.tun(host, "tun0")
        tun0.ipv4, tun0.ipv6 = "10.9.0.1", "2001:db8:9::1"  # just to have a destination
        daemon = Daemon(sandbox, host, '[[interface]]\nname = "tun0"\n').start()
        assert tun0.xdp_mode() == "generic"
        yield SimpleNamespace(sandbox=sandbox, host=host, tun0=tun0, daemon=daemon)
        daemon.stop()


def is_dropped_while_blocked(daemon, flow, source, name):
    """Passes, is dropped with just these counters, and passes again."""
    with rises(daemon, {(name, "xdp", "pass"): flow.count}):
        flow.passes()
    assert daemon.request("add", prefixes=[source])["added"] == 1
    with rises(daemon, {(name, "xdp", "drop"): flow.count}):
        flow.is_dropped(COUNTED_WAIT_S)
    [entry] = daemon.request("list", prefix=source)["entries"]
    assert (entry["packets"], entry["bytes"]) == (flow.count, flow.count * len(flow.frame))
    assert daemon.request("del", prefixes=[source])["deleted"] == 1
    flow.passes()


@pytest.mark.parametrize("source, shape", SHAPES + TAGGED)
def test_a_blocked_source_is_dropped_on_ethernet(wired, source, shape):
    tags, _, shape = shape.rpartition(", ")
    frame = ether(wired.wire, *TAGS.get(tags, ())) / packet_of(source, shape, wired.eth0)
    with Capture(wired.eth0) as capture:
        flow = Flow(wired.wire, frame, capture)
        is_dropped_while_blocked(wired.daemon, flow, source, "eth0")


@pytest.mark.parametrize("source, shape", SHAPES)
def test_a_blocked_source_is_dropped_on_a_tun_device(tunneled, source, shape):
    with Capture(tunneled.tun0) as capture:
        flow = Flow(tunneled.tun0, packet_of(source, shape, tunneled.tun0), capture)
        is_dropped_while_blocked(tunneled.daemon, flow, source, "tun0")


@pytest.mark.parametrize("source", [IPV4, IPV6])
def test_the_allowlist_wins_over_a_more_specific_block(wired, source):
    daemon = wired.daemon
    wide = {IPV4: "203.0.113.0/24", IPV6: "2001:db8:bad::/48"}[source]
    with Listener(wired.host, 7) as listener:
        flow = Flow(wired.wire, udp(wired.wire, 7, source), listener)
        daemon.request("add", prefixes=[source, wide], force=True)
        with rises(daemon, {("eth0", "xdp", "drop"): 3}):
            flow.is_dropped()
        daemon.request("allow add", prefixes=[wide])
        with rises(daemon, {("eth0", "xdp", "allow"): 3}):
            flow.passes()
        [entry] = daemon.request("allow list")["entries"]
        assert (entry["prefix"], entry["packets"], entry["bytes"]) == (wide, 3, 3 * len(flow.frame))
        daemon.request("allow del", prefixes=[wide])
        flow.is_dropped()
        daemon.request("flush")


@pytest.mark.parametrize("source", [IPV4, IPV6])
def test_the_most_specific_entry_counts(wired, source):
    daemon = wired.daemon
    wide = {IPV4: "0.0.0.0/0", IPV6: "::/0"}[source]
    with Listener(wired.host, 7) as listener:
        daemon.request("add", prefixes=[source, wide], force=True)
        Flow(wired.wire, udp(wired.wire, 7, source), listener, count=2).is_dropped()
        Flow(wired.wire, udp(wired.wire, 7, ANOTHER[source]), listener, count=5).is_dropped()
    entries = daemon.request("list")["entries"]
    daemon.request("flush")
    assert {entry["prefix"]: entry["packets"] for entry in entries} == {source: 2, wide: 5}


def test_what_is_not_ip_passes_and_is_counted(wired):
    from scapy.layers.l2 import Ether

    wired.daemon.request("add", prefixes=["0.0.0.0/0", "::/0"], force=True)
    frame = Ether(src=wired.wire.mac, dst=wired.eth0.mac, type=0x88B5) / MARKER  # IEEE 802's for experiments
    with Capture(wired.eth0) as capture, rises(wired.daemon, {("eth0", "xdp", "not_ip"): 3}):
        Flow(wired.wire, frame, capture).passes()
    wired.daemon.request("flush")


@pytest.mark.parametrize("cut", ["10.9.0.2", "2001:db8:9::2"])
def test_what_is_shorter_than_its_headers_passes_and_is_counted(wired, cut):
    frame = bytes(ether(wired.wire) / ip(wired.wire, cut))[:14 + 12] + MARKER[:4]
    wired.daemon.request("add", prefixes=["0.0.0.0/0", "::/0"], force=True)
    with Capture(wired.eth0, MARKER[:4]) as capture, rises(wired.daemon, {("eth0", "xdp", "malformed"): 3}):
        Flow(wired.wire, frame, capture).passes()
    wired.daemon.request("flush")


# ---- direction ----

OUT = '[[interface]]\nname = "eth0"\n[blacklist]\ndirection = ["out"]\n'
BOTH = '[[interface]]\nname = "eth0"\n[blacklist]\ndirection = ["in", "out"]\n'
TC_OUT = ("eth0", "tc_out", "drop")


def arrivals(net, kind):
    """What the peer gets: of TCP the connection requests, which carry no marker."""
    return Capture(net.wire, b"\0\x50" if kind == "tcp" else MARKER)


@pytest.fixture(scope="module")
def outward():
    with Sandbox() as sandbox:
        host, peer = sandbox.namespace("host"), sandbox.namespace("peer")
        _, wire = sandbox.link(host, "eth0", peer, "wire")
        daemon = Daemon(sandbox, host, OUT).start()
        yield SimpleNamespace(host=host, wire=wire, daemon=daemon)
        daemon.stop()


@pytest.mark.parametrize("kind", ["udp", "tcp", "icmp"])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_what_this_host_sends_to_a_blocked_address_is_dropped(outward, family, kind):
    daemon, address = outward.daemon, getattr(outward.wire, family)
    marker = b"\0\x50" if kind == "tcp" else MARKER  # a connection request is known by its port
    with Capture(outward.wire, marker) as capture:
        flow = Flow(Program(outward.host, address, kind, port=80), MARKER, capture)
        with rises(daemon, {("eth0", "tc_out", "pass"): 3}):
            [frame, *_] = flow.passes()
        daemon.request("add", prefixes=[address])
        with rises(daemon, {TC_OUT: 3}):
            flow.is_dropped()
    [entry] = daemon.request("list")["entries"]
    assert (entry["packets"], entry["bytes"]) == (3, 3 * len(frame))
    daemon.request("flush")


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_what_this_host_forwards_to_a_blocked_address_is_dropped(net, family):
    far = net.sandbox.namespace("far")
    lan0, end = net.sandbox.link(net.host, "lan0", far, "end")
    net.host.sysctl("net.ipv4.ip_forward", 1)
    net.host.sysctl("net.ipv6.conf.all.forwarding", 1)
    daemon = net.daemon(OUT.replace("eth0", "lan0"))
    address = getattr(end, family)
    with Capture(end) as capture:
        flow = Flow(net.wire, udp(net.wire, 7, destination=address), capture)
        flow.passes()
        daemon.request("add", prefixes=[address])
        with rises(daemon, {("lan0", "tc_out", "drop"): 3}):
            flow.is_dropped()


@pytest.mark.parametrize("source", [IPV4, IPV6])
@pytest.mark.parametrize("rules, dropped", [(OUT, False), (BOTH, True)], ids=["out", "both"])
def test_a_blocked_source_is_dropped_where_direction_has_in(net, source, rules, dropped):
    daemon = net.daemon(rules)
    daemon.request("add", prefixes=[source])
    with Listener(net.host, 7) as listener:
        flow = Flow(net.wire, udp(net.wire, 7, source), listener)
        with rises(daemon, {("eth0", "xdp", "drop"): 3} if dropped else {}):
            flow.is_dropped() if dropped else flow.passes()
    assert daemon.request("list")["entries"][0]["packets"] == (3 if dropped else 0)


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_both_directions_drop_what_comes_and_what_goes(net, family):
    daemon = net.daemon(BOTH)
    address = getattr(net.wire, family)
    with Listener(net.host, 7) as at_host, Listener(net.peer, 7) as at_peer:
        comes = Flow(net.wire, udp(net.wire, 7, address), at_host)
        goes = Flow(Program(net.host, address), MARKER, at_peer)
        with rises(daemon, {("eth0", "xdp", "pass"): 3, ("eth0", "tc_out", "pass"): 3}):
            comes.passes()
            goes.passes()
        daemon.request("add", prefixes=[address])
        with rises(daemon, {("eth0", "xdp", "drop"): 3, TC_OUT: 3}):
            comes.is_dropped()
            goes.is_dropped()
        daemon.request("allow add", prefixes=[address])
        with rises(daemon, {("eth0", "xdp", "allow"): 3, ("eth0", "tc_out", "allow"): 3}):
            comes.passes()
            goes.passes()


@pytest.mark.parametrize("vlans", [(5,), (5, 6)])
def test_a_tag_does_not_hide_a_blocked_destination(net, vlans):
    """What has been received with a tag has the outermost one beside the frame when it is sent on."""
    office = net.sandbox.namespace("office")
    _, desk = net.sandbox.link(net.host, "lan0", office, "desk")
    daemon = net.daemon(OUT + '[[interface]]\nname = "lan0"\n')
    daemon.request("redirect add", ports="udp/7", target="eth0", interface="lan0", mode="l2")
    for address in (net.wire.ipv4, net.wire.ipv6):
        with Capture(net.wire) as capture:
            flow = Flow(desk, udp(desk, 7, destination=address, vlans=vlans), capture)
            assert flow.passes() == [flow.frame] * 3
            daemon.request("add", prefixes=[address])
            with rises(daemon, {("lan0", "tc_in", "redirect"): 3, TC_OUT: 3}):
                flow.is_dropped()
