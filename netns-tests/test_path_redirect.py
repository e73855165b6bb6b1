# SPDX-License-Identifier: GPL-2.0-or-later
"""Redirects: each mode between each two kinds of device, what the target gets, and what it does not."""
import contextlib
import hashlib
import itertools
import socket
import threading
from types import SimpleNamespace

import pytest

from fwdtest.daemon import Daemon
from fwdtest.sandbox import Sandbox
from fwdtest.traffic import (MARKER, Capture, Flow, Listener, Program, TunReceiver, ether, ip, rises, tcp, udp,
                             wait_until)

PORT = 9000
NEXT_HOP_MAC = "02:00:00:00:77:77"  # of every destination, on the target
BEYOND = {"ipv4": "198.51.100.9", "ipv6": "2001:db8:f::9"}  # behind tun0

RULES = """
[[interface]]
name = "eth0"
[[interface]]
name = "tun0"
"""
# So that the programs stay attached from test to test, which saves time.
UNUSED = "".join(f"""
[[redirect]]
direction = "{direction}"
protocol  = "udp"
port      = 2
target    = "nowhere"
""" for direction in ("in", "out"))


@pytest.fixture(scope="module")
def paths():
    """A host with two sources of packets and two targets:

        peer.wire ── eth0 ┐      ┌ scrub0 ── far
                          ├ host ┤
                     tun0 ┘      └ tun1
    """
    with Sandbox() as sandbox:
        host, peer, scrubber = (sandbox.namespace(name) for name in ("host", "peer", "scrubber"))
        eth0, wire = sandbox.link(host, "eth0", peer, "wire")
        scrub0, far = sandbox.link(host, "scrub0", scrubber, "far")
        tun0, tun1 = sandbox.tun(host, "tun0"), sandbox.tun(host, "tun1")
        tun0.ipv4, tun0.ipv6 = BEYOND["ipv4"], BEYOND["ipv6"]
        for family in ("ipv4", "ipv6"):
            host.ip("route", "add", BEYOND[family], "dev", "tun0", "src", getattr(eth0, family))
            for address in (BEYOND[family], getattr(eth0, family), getattr(wire, family)):
                host.ip("neighbour", "add", address, "lladdr", NEXT_HOP_MAC, "dev", "scrub0", "nud", "permanent")
        daemon = Daemon(sandbox, host, RULES + UNUSED).start()
        yield SimpleNamespace(host=host, eth0=eth0, wire=wire, scrub0=scrub0, far=far, tun0=tun0, tun1=tun1,
                              daemon=daemon)
        daemon.stop()


def octets(mac):
    return bytes.fromhex(mac.replace(":", ""))


def incoming(paths, source, family):
    """A sender into the source, its frame, the bare packet, and where it is for: the host itself."""
    sender = {"eth0": paths.wire, "tun0": paths.tun0}[source]
    destination = getattr(paths.eth0, family)
    from scapy.layers.inet import UDP

    packet = bytes(ip(sender, getattr(sender, family), destination) / UDP(sport=40000, dport=PORT) / MARKER)
    frame = bytes(udp(paths.wire, PORT, paths.wire.ipv6 if family == "ipv6" else None)) if source == "eth0" else packet
    return Flow(sender, frame, None), packet, Listener(paths.host, PORT, getattr(paths, source))


def outgoing(paths, source, family):
    """A program of the host that sends out of the source, and the far end of it."""
    destination = {"eth0": getattr(paths.wire, family), "tun0": BEYOND[family]}[source]
    original = Capture(paths.wire) if source == "eth0" else TunReceiver(paths.tun0)
    return Flow(Program(paths.host, destination, port=PORT), MARKER, None), None, original


def target_end(paths, target, mode):
    """Where redirected packets come out; of `ingress` the target itself, as a receiver."""
    if mode == "ingress":
        return Capture(getattr(paths, target))
    return Capture(paths.far) if target == "scrub0" else TunReceiver(paths.tun1)


def expected_macs(paths, source, target, direction, mode):
    """Destination and source address of the frame that an Ethernet target gets."""
    mac = {name: octets(getattr(paths, name).mac) for name in ("eth0", "wire", "scrub0")}
    original = (mac["eth0"], mac["wire"]) if direction == "in" else (mac["wire"], mac["eth0"])
    if mode == "l2":
        return original
    if mode in ("neigh", "auto"):
        return octets(NEXT_HOP_MAC), mac["scrub0"]
    return mac["scrub0"], original[1] if source == "eth0" else mac["scrub0"]


def check_arrived(paths, arrived, packet, source, target, direction, mode):
    """All three are what they should be, headers and all."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6

    for data in arrived:
        if target == "scrub0":
            destination, sender = expected_macs(paths, source, target, direction, mode)
            assert (data[:6], data[6:12]) == (destination, sender)
            kind, data = data[12:14], data[14:]
            assert kind == {4: b"\x08\x00", 6: b"\x86\xdd"}[data[0] >> 4]
        parsed = (IP if data[0] >> 4 == 4 else IPv6)(data)
        assert parsed[UDP].dport == PORT and bytes(parsed[UDP].payload) == MARKER
        if packet:
            assert data == packet
        elif target == "tun1" and mode != "ingress":  # only what is sent has its checksum for sure
            del parsed[UDP].chksum
            assert data == bytes(parsed)


def runtime_redirects(paths):
    return [row for row in paths.daemon.request("redirect list")["redirects"] if row["origin"] == "runtime"]


@contextlib.contextmanager
def redirect(paths, target, source=None, direction="in", mode="auto", ports=f"udp/{PORT}"):
    """Gone at the end, so that one test's failure is not the next one's."""
    rule = {"ports": ports, "direction": direction} | ({"interface": source} if source else {})
    answer = paths.daemon.request("redirect add", target=target, mode=mode, **rule)
    try:
        assert answer == {"ok": True, "added": 1, "updated": 0}
        yield
    finally:
        paths.daemon.request("redirect del", **rule)


CASES = [case for case in itertools.product(("eth0", "tun0"), ("scrub0", "tun1"), ("in", "out"),
                                            ("auto", "l2", "neigh", "ingress"), ("ipv4", "ipv6"))
         if case[0:2] + (case[3],) != ("tun0", "scrub0", "l2")]


@pytest.mark.parametrize("source, target, direction, mode, family", CASES)
def test_a_redirect_takes_the_packets_to_its_target(paths, source, target, direction, mode, family):
    flow, packet, original = (incoming if direction == "in" else outgoing)(paths, source, family)
    hook = "tc_" + direction
    xdp = {(source, "xdp", "pass"): flow.count} if direction == "in" else {}
    received = flow.count if (direction, mode) == ("in", "ingress") else 0
    with original, target_end(paths, target, mode) as at_target, \
            Listener(paths.host, PORT, getattr(paths, target)) as program:
        flow.receiver = original
        flow.passes()
        assert at_target.packets(0, 0) == []

        with redirect(paths, target, source, direction, mode):
            original.drain()
            flow.receiver = at_target
            with rises(paths.daemon, xdp | {(source, hook, "redirect"): flow.count}):
                arrived = flow.passes()
            assert original.packets(0, 0) == []
            assert program.packets(received, 1 if received else 0) == [MARKER] * received
            check_arrived(paths, arrived, packet, source, target, direction, mode)
            [row] = runtime_redirects(paths)
            assert row["packets"] == flow.count
            assert row["effective_mode"] == {"auto": "neigh" if target == "scrub0" else "l2"}.get(mode, mode)

        flow.receiver = original
        flow.passes()


def test_l2_from_a_device_without_link_layer_to_ethernet_is_refused(paths):
    done = paths.daemon.fwctl("redirect", "add", f"udp/{PORT}", "scrub0", "--on", "tun0", "--mode", "l2", check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert all(word in done.stderr for word in ('"l2"', "tun0", "scrub0", '"neigh"', '"ingress"')), done.stderr
    assert runtime_redirects(paths) == []


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_l2_of_every_interface_drops_what_cannot_have_a_frame(paths, family):
    from_wire, _, at_eth0 = incoming(paths, "eth0", family)
    from_tun, _, at_tun0 = incoming(paths, "tun0", family)
    with at_eth0, at_tun0, Capture(paths.far) as from_wire.receiver, redirect(paths, "scrub0", mode="l2"):
        from_tun.receiver = at_tun0
        with rises(paths.daemon, {("eth0", "xdp", "pass"): 3, ("eth0", "tc_in", "redirect"): 3,
                                  ("tun0", "xdp", "pass"): 3, ("tun0", "tc_in", "no_target"): 3}):
            from_wire.passes()
            from_tun.is_dropped()
        assert at_eth0.packets(0, 0) == from_wire.receiver.packets(0, 0) == []


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_neigh_asks_the_routing_table_for_the_next_hop(paths, family):
    """A destination behind a gateway on the target gets the gateway's address, not its own."""
    destination = {"ipv4": "192.0.2.77", "ipv6": "2001:db8:e::77"}[family]
    paths.host.ip("route", "add", destination, "via", getattr(paths.far, family), "dev", "scrub0")
    with Capture(paths.far) as at_far, redirect(paths, "scrub0", "eth0", mode="neigh"):
        arrived = Flow(paths.wire, udp(paths.wire, PORT, destination=destination), at_far).passes()
    assert {(frame[:6], frame[6:12]) for frame in arrived} == {(octets(paths.far.mac), octets(paths.scrub0.mac))}


# ---- which packets ----


def is_taken(paths, frame):
    """Whether a frame from the wire takes a redirect to tun1."""
    with TunReceiver(paths.tun1) as at_tun, Capture(paths.eth0) as received:
        before = paths.daemon.verdicts().get(("eth0", "tc_in", "redirect"), 0)
        Flow(paths.wire, frame, received).passes()
        taken = paths.daemon.verdicts().get(("eth0", "tc_in", "redirect"), 0) - before
        assert taken in (0, 3) and len(at_tun.packets(taken, 1 if taken else 0)) == taken
    return taken == 3


@pytest.mark.parametrize("build, other", [(udp, tcp), (tcp, udp)], ids=["udp", "tcp"])
def test_a_range_takes_its_protocol_from_its_first_to_its_last_port(paths, build, other):
    with redirect(paths, "tun1", "eth0", ports=f"{build.__name__}/8000-8300"):
        taken = {port: is_taken(paths, build(paths.wire, port)) for port in (7999, 8000, 8127, 8128, 8300, 8301, 80)}
        assert taken == {7999: False, 8000: True, 8127: True, 8128: True, 8300: True, 8301: False, 80: False}
        assert not is_taken(paths, other(paths.wire, 8100))


@pytest.mark.parametrize("ports", ["udp/1", "udp/65535", "udp/1-65535"])
def test_the_ends_of_the_port_numbers_are_ports(paths, ports):
    with redirect(paths, "tun1", "eth0", ports=ports):
        for port in (1, 65535):
            assert is_taken(paths, udp(paths.wire, port)) == (str(port) in ports.split("/")[1].split("-"))
        assert not is_taken(paths, udp(paths.wire, 0))


def test_a_redirect_of_the_interface_goes_before_one_of_every_interface(paths):
    frame = udp(paths.wire, 8005)
    with Capture(paths.far) as at_far, TunReceiver(paths.tun1) as at_tun:
        with redirect(paths, "scrub0", ports="udp/8000-8010"):
            Flow(paths.wire, frame, at_far).passes()
            with redirect(paths, "tun1", "eth0", ports="udp/8005"):
                Flow(paths.wire, frame, at_tun).passes()
                Flow(paths.wire, udp(paths.wire, 8006), at_far).passes()
                assert at_tun.packets(0, 0) == []
            Flow(paths.wire, frame, at_far).passes()


def test_options_and_extension_headers_do_not_hide_a_port(paths):
    from scapy.layers.inet import UDP, IPOption_NOP
    from scapy.layers.inet6 import IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop

    start, datagram = ether(paths.wire), UDP(sport=40000, dport=PORT) / MARKER
    ipv6 = start / ip(paths.wire, paths.wire.ipv6)
    with redirect(paths, "tun1", "eth0"):
        assert is_taken(paths, start / ip(paths.wire, options=[IPOption_NOP()] * 40) / datagram)
        assert is_taken(paths, ipv6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / datagram)
        assert is_taken(paths, ipv6 / IPv6ExtHdrFragment() / datagram)
        assert is_taken(paths, start / ip(paths.wire, flags="MF", proto=17) / bytes(datagram))
        # A later fragment has no ports, whatever its first bytes look like.
        assert not is_taken(paths, start / ip(paths.wire, frag=1, proto=17) / bytes(datagram))
        assert not is_taken(paths, ipv6 / IPv6ExtHdrFragment(offset=1, nh=17) / bytes(datagram))


# ---- VLAN tags ----


@pytest.mark.parametrize("vlans", [(5,), (5, 6)])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
@pytest.mark.parametrize("direction", ["in", "out"])
def test_tags_stay_in_l2_and_go_where_there_is_no_room_for_them(paths, direction, family, vlans):
    sender = {"in": paths.wire, "out": paths.eth0}[direction]
    frame = bytes(udp(sender, PORT, getattr(sender, family), vlans=vlans))
    bare = frame[14 + 4 * len(vlans):]

    for target, mode, receiver, expected in (
        ("tun1", "l2", TunReceiver(paths.tun1), bare),
        ("tun1", "ingress", Capture(paths.tun1), bare),
        ("scrub0", "l2", Capture(paths.far), frame),
        ("scrub0", "neigh", Capture(paths.far),
         octets(NEXT_HOP_MAC) + octets(paths.scrub0.mac) + frame[12 + 4 * len(vlans):]),
        ("scrub0", "ingress", Capture(paths.scrub0), octets(paths.scrub0.mac) + frame[6:]),
    ):
        with receiver, redirect(paths, target, "eth0", direction, mode):
            receiver.drain()
            sender.transmit(frame, 3)
            assert receiver.packets(3, 2) == [expected] * 3, (target, mode)


# ---- targets that come and go ----


def test_a_target_that_comes_and_goes(net):
    daemon = net.daemon()
    row = lambda: daemon.request("redirect list")["redirects"][0]
    daemon.request("redirect add", ports="udp/8", target="dmz0", interface="eth0", mode="l2")
    far = net.sandbox.namespace("far")
    with Listener(net.host, 8) as at_host:
        flow = Flow(net.wire, udp(net.wire, 8), at_host)
        for _ in range(2):
            assert row()["effective_mode"] is None
            with rises(daemon, {("eth0", "xdp", "pass"): 3, ("eth0", "tc_in", "no_target"): 3}):
                flow.is_dropped()
            _, end = net.sandbox.link(net.host, "dmz0", far, "end")
            wait_until(lambda: row()["effective_mode"] == "l2")
            with Capture(end) as at_far, rises(daemon, {("eth0", "xdp", "pass"): 3, ("eth0", "tc_in", "redirect"): 3}):
                assert Flow(net.wire, flow.frame, at_far).passes() == [flow.frame] * 3
            net.host.ip("link", "delete", "dmz0")
            wait_until(lambda: row()["effective_mode"] is None)
        daemon.request("redirect del", ports="udp/8", interface="eth0")
        flow.passes()


def test_a_target_that_is_replaced_under_its_name_gets_the_packets(net):
    """Another kind of device takes the name of the target: mode and headers follow."""
    daemon = net.daemon()
    far = net.sandbox.namespace("far")
    net.sandbox.link(net.host, "dmz0", far, "end")
    daemon.request("redirect add", ports="udp/8", target="dmz0", interface="eth0")
    net.host.ip("link", "set", "dmz0", "down")
    net.host.ip("link", "set", "dmz0", "name", "old0")
    wait_until(lambda: daemon.request("redirect list")["redirects"][0]["effective_mode"] is None)
    with TunReceiver(net.sandbox.tun(net.host, "dmz0")) as at_tun:
        wait_until(lambda: daemon.request("redirect list")["redirects"][0]["effective_mode"] == "l2")
        frame = bytes(udp(net.wire, 8))
        assert Flow(net.wire, frame, at_tun).passes() == [frame[14:]] * 3


# ---- large segments ----

PAYLOAD = bytes(range(256)) * (4 << 12)  # 4 MiB


def receive_all(server):
    connection, _ = server.accept()
    with connection:
        connection.settimeout(20)
        digest = hashlib.sha256()
        while data := connection.recv(1 << 20):
            digest.update(data)
    return digest.digest()


def transfer(client, server, destination, port):
    """What the server got of PAYLOAD, as a digest."""
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    got = []
    with server.socket(family, socket.SOCK_STREAM) as listening, client.socket(family, socket.SOCK_STREAM) as sending:
        for end in (listening, sending):
            end.settimeout(20)
        listening.bind(("", port))
        listening.listen()
        thread = threading.Thread(target=lambda: got.append(receive_all(listening)))
        thread.start()
        sending.connect((destination, port))
        sending.sendall(PAYLOAD)
        sending.shutdown(socket.SHUT_WR)
        thread.join(30)
    return got


@pytest.mark.parametrize("direction, xdp_mode", [("out", "native"), ("in", "generic")])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_large_segments_are_redirected_whole(net, family, direction, xdp_mode):
    """A scrubber, which has the server's address, too, takes the connection to it.

    (A link's end gives no large ones to native XDP.)
    """
    daemon = net.daemon(f'[[interface]]\nname = "eth0"\nxdp_mode = "{xdp_mode}"\n')
    scrubber = net.sandbox.namespace("scrubber")
    scrub0, far = net.sandbox.link(net.host, "scrub0", scrubber, "far")
    ends = {"in": (net.peer, net.wire, net.eth0), "out": (net.host, net.eth0, net.wire)}
    client, here, there = ends[direction][0], *(getattr(end, family) for end in ends[direction][1:])
    scrubber.ip("address", "add", there + {"ipv4": "/32", "ipv6": "/128"}[family], "dev", "far", "nodad")
    scrubber.ip("route", "add", here, "dev", "far")
    scrubber.ip("neighbour", "add", here, "lladdr", scrub0.mac, "dev", "far", "nud", "permanent")
    net.host.ip("neighbour", "add", there, "lladdr", far.mac, "dev", "scrub0", "nud", "permanent")
    if direction == "in":  # the answers come from the host's own address, and go through it
        for setting in ("ipv4.ip_forward", "ipv6.conf.all.forwarding", "ipv4.conf.all.accept_local"):
            net.host.sysctl(f"net.{setting}", 1)
    daemon.request("redirect add", ports="tcp/80", target="scrub0", interface="eth0", direction=direction)

    assert transfer(client, scrubber, there, 80) == [hashlib.sha256(PAYLOAD).digest()]
    [row] = daemon.request("redirect list")["redirects"]
    assert row["bytes"] > len(PAYLOAD) and row["bytes"] / row["packets"] > 2 * 1500, row


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_stream_of_large_segments_passes_unharmed(net, family, mode):
    daemon = net.daemon(f'[[interface]]\nname = "eth0"\nxdp_mode = "{mode}"\n[blacklist]\ndirection = ["in", "out"]\n'
                        '[[redirect]]\nprotocol = "tcp"\nport = 81\ntarget = "tun0"\n')
    assert net.eth0.xdp_mode() == mode
    assert transfer(net.peer, net.host, getattr(net.eth0, family), 80) == [hashlib.sha256(PAYLOAD).digest()]
    assert transfer(net.host, net.peer, getattr(net.wire, family), 80) == [hashlib.sha256(PAYLOAD).digest()]
    assert {key[2] for key in daemon.verdicts()} == {"pass"}, daemon.verdicts()
