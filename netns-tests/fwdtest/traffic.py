# SPDX-License-Identifier: GPL-2.0-or-later
"""What is sent, what arrives, and which counters rose.

A flow is the same packet some times over, from an interface to a place that counts them:

    flow = Flow(wire, udp(wire, port=7), Listener(host, 7))
    flow.passes()
    daemon.fwctl("add", wire.ipv4)
    with rises(daemon, {("eth0", "xdp", "drop"): flow.count}):
        flow.is_dropped()

Both look at what the sender's kernel says it sent, so that nothing sent is never taken for dropped.
"""
import contextlib
import select
import socket
import struct
import time

from .sandbox import SLOW

ETH_P_ALL = 3  # linux/if_ether.h
SOL_PACKET, PACKET_AUXDATA = 263, 8  # linux/socket.h, linux/if_packet.h
SO_RCVBUFFORCE = 33  # asm-generic/socket.h
TP_STATUS_VLAN_VALID = 1 << 4  # linux/if_packet.h

# In every packet that is made here, and what a capture goes by.
MARKER = b"fwd-netns-test"

ARRIVAL_WAIT_S = 3 * SLOW  # for packets that should arrive, on a busy machine
SILENCE_WAIT_S = 0.2  # for packets that should not
COUNT_WAIT_S = 1 * SLOW  # for packets that are still on their way to be counted


def ether(sender, *vlans):
    """The frame's start, to the other end of the sender's link; the outermost tag first."""
    from scapy.layers.l2 import Dot1Q, Ether

    frame = Ether(src=sender.mac, dst=sender.peer.mac)
    for vlan in vlans:
        frame /= Dot1Q(vlan=vlan)
    return frame


def ip(sender, source=None, destination=None, **fields):
    """IPv4 or IPv6, as the addresses say; by default the IPv4 addresses of the sender's link."""
    from scapy.layers.inet import IP
    from scapy.layers.inet6 import IPv6

    destination = destination or (sender.peer.ipv6 if source and ":" in source else sender.peer.ipv4)
    version, own = (IPv6, sender.ipv6) if ":" in destination else (IP, sender.ipv4)
    return version(src=source or own, dst=destination, **fields)


def udp(sender, port, source=None, destination=None, vlans=()):
    from scapy.layers.inet import UDP

    return ether(sender, *vlans) / ip(sender, source, destination) / UDP(sport=40000, dport=port) / MARKER


def tcp(sender, port, source=None, destination=None, vlans=()):
    from scapy.layers.inet import TCP

    return ether(sender, *vlans) / ip(sender, source, destination) / TCP(sport=40000, dport=port) / MARKER


class Receiver:
    """Counts packets: those that `_take()` returns, without blocking, from `_socket`."""

    def drain(self):
        self.packets(0, 0)

    def make_room(self, size):
        """For packets that nobody takes for a while."""
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)

    def packets(self, expected, wait_s):
        """What has arrived, as soon as it is as much as expected; waits for that at most so long."""
        packets, deadline = [], time.monotonic() + wait_s
        while True:
            with contextlib.suppress(BlockingIOError):
                while True:
                    packets += self._take()
            left_s = deadline - time.monotonic()
            if left_s <= 0 or (expected and len(packets) >= expected):
                return packets
            select.select([self._socket], [], [], left_s)

    def close(self):
        self._socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Listener(Receiver):
    """A UDP socket of a host, on all its addresses: what the host's applications get.

    With `device` only what that interface has received.
    """

    def __init__(self, namespace, port, device=None):
        self._socket = namespace.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if device:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.name.encode())
        self._socket.bind(("::", port))
        self._socket.setblocking(False)

    def _take(self):
        return [self._socket.recv(65536)]


class Capture(Receiver):
    """Frames that an interface receives (after XDP, before TC), with their tags, if the marker is in them."""

    def __init__(self, interface, marker=MARKER):
        self._marker = marker
        self._socket = interface.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.bind((interface.name, ETH_P_ALL))
        self._socket.setblocking(False)

    def _take(self):
        data, control, _, address = self._socket.recvmsg(65536, 128)
        if address[2] == socket.PACKET_OUTGOING or self._marker not in data:
            return []
        return [_with_tag(data, control)]


def _with_tag(data, control):
    """The frame with the outermost tag, which the kernel takes out (struct tpacket_auxdata)."""
    for level, kind, aux in control:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
            status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", aux[:20])
            if status & TP_STATUS_VLAN_VALID:
                return data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
    return data


class TunReceiver(Receiver):
    """Packets that a tun or tap device was given."""

    def __init__(self, tun, marker=MARKER):
        self._tun, self._marker = tun, marker
        self._socket = tun.fd

    def _take(self):
        packets = self._tun.read_packets()
        if not packets:
            raise BlockingIOError
        return [packet for packet in packets if self._marker in packet]

    def close(self):
        """The device is the sandbox's."""


class Program:
    """A program of a host that sends, as a Flow's sender: what it sends goes where routes lead it.

    "udp" sends the frame as payload to a port; "tcp" tries to connect to the port; "icmp" sends an
    echo request with the frame in it.
    """

    def __init__(self, namespace, destination, kind="udp", port=7):
        self.namespace, self.destination, self.kind, self.port = namespace, destination, kind, port
        self._sent = 0

    def __repr__(self):
        return f"{self.kind} from {self.namespace} to {self.destination}"

    def sent_packets(self):
        return self._sent

    def transmit(self, payload, count):
        family = socket.AF_INET6 if ":" in self.destination else socket.AF_INET
        for _ in range(count):
            getattr(self, "_" + self.kind)(family, payload)
            self._sent += 1

    def _udp(self, family, payload):
        with self.namespace.socket(family, socket.SOCK_DGRAM) as program:
            program.sendto(payload, (self.destination, self.port))

    def _tcp(self, family, _):
        with self.namespace.socket(family, socket.SOCK_STREAM) as program:
            program.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                program.connect((self.destination, self.port))

    def _icmp(self, family, payload):
        echo, protocol = {socket.AF_INET: (8, socket.IPPROTO_ICMP),
                          socket.AF_INET6: (128, socket.IPPROTO_ICMPV6)}[family]
        header = struct.pack("!BBHHH", echo, 0, 0, 1, 1)
        if family == socket.AF_INET:
            header = header[:2] + struct.pack("!H", _checksum(header + payload)) + header[4:]
        with self.namespace.socket(family, socket.SOCK_RAW, protocol) as program:
            with contextlib.suppress(OSError):  # a raw socket is told of a drop: ENOBUFS
                program.sendto(header + payload, (self.destination, 0))


def _checksum(data):
    """RFC 1071."""
    total = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF


class Flow:
    """`frame`, `count` times, from `sender`, an interface or a Program, to the Receiver `receiver`."""

    def __init__(self, sender, frame, receiver, count=3):
        self.sender, self.frame, self.receiver, self.count = sender, bytes(frame), receiver, count

    def send(self, expected, wait_s):
        """The packets that arrived."""
        self.receiver.drain()
        before = self.sender.sent_packets()
        self.sender.transmit(self.frame, self.count)
        arrived = self.receiver.packets(expected, wait_s)
        sent = self.sender.sent_packets() - before
        assert sent == self.count, f"{self.sender} sent {sent} packets, not {self.count}"
        return arrived

    def passes(self):
        """All arrive, once each; returns them."""
        arrived = self.send(self.count, ARRIVAL_WAIT_S)
        assert len(arrived) == self.count, f"{len(arrived)} of {self.count} packets of {self.sender} arrived"
        return arrived

    def is_dropped(self, wait_s=SILENCE_WAIT_S):
        """None arrives within the wait, which may be short where counters tell of each packet, too."""
        arrived = self.send(0, wait_s)
        assert not arrived, f"{len(arrived)} of {self.count} packets of {self.sender} arrived, but none should"


def wait_until(condition, wait_s=5):
    """For what the daemon does on its own time, such as following an interface that appears."""
    deadline = time.monotonic() + wait_s * SLOW
    while not condition():
        assert time.monotonic() < deadline, f"not within {wait_s * SLOW} s"
        time.sleep(0.02)


@contextlib.contextmanager
def rises(daemon, expected):
    """Exactly these counters rise, by so many packets: {(interface, hook, verdict): packets}."""
    before = daemon.verdicts()
    yield
    deadline = time.monotonic() + COUNT_WAIT_S
    while True:
        after = daemon.verdicts()
        risen = {key: count - before.get(key, 0) for key, count in after.items() if count != before.get(key, 0)}
        if risen == expected:
            return
        assert time.monotonic() < deadline, f"counters that rose: {risen}, expected: {expected}"
        time.sleep(0.02)
