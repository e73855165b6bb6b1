# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets that go on while something happens to the daemon.

    with Stream(net.wire, blocked="10.1.0.2", allowed="10.1.0.3") as stream:
        daemon.kill()
        daemon.start()
    stream.only_arrives("allowed")

Every packet is counted where it is sent and where it arrives, so that a single one that should not
have passed, or is lost, is seen.
"""
import collections
import socket
import threading
import time

from .sandbox import SLOW
from .traffic import MARKER, Listener, udp

PORT = 4000
BURST = 4  # far below the 256 packets that veth keeps for a receiver that is late
PAUSE_S = 0.001
ARRIVAL_WAIT_S = 3 * SLOW


class Stream:
    """A flow of each source, by name, from the interface `sender` to the host at its other end.

    Each of several streams to one host has a port of its own.
    """

    def __init__(self, sender, port=PORT, **sources):
        self.sender = sender
        self.frames = {name: bytes(udp(sender, port, source) / name.encode()) for name, source in sources.items()}
        self.sent, self.arrived = collections.Counter(), collections.Counter()
        self._listener = Listener(sender.peer.namespace, port)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._before = self.sender.tx_packets()
        self._raw = self.sender.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._raw.bind((self.sender.name, 0))
        self._thread.start()
        self.wait_for(20)
        return self

    def __exit__(self, *_):
        self._end.set()
        self._thread.join()
        self._raw.close()
        self._counted = self.sender.tx_packets() - self._before

    def wait_for(self, packets):
        """Until so many more of each flow have been sent."""
        wanted = {name: self.sent[name] + packets for name in self.frames}
        while any(self.sent[name] < count for name, count in wanted.items()):
            assert self._thread.is_alive(), "the sender died"
            time.sleep(PAUSE_S)

    def _run(self):
        while not self._end.is_set():
            for name, frame in self.frames.items():
                for _ in range(BURST):
                    self._raw.send(frame)
                self.sent[name] += BURST
            self._take(0, 0)
            time.sleep(PAUSE_S)

    def _take(self, expected, wait_s):
        self.arrived.update(payload.removeprefix(MARKER).decode()
                            for payload in self._listener.packets(expected, wait_s))

    def only_arrives(self, *names):
        """All packets of these flows have arrived, and none of any other."""
        expected = collections.Counter({name: self.sent[name] for name in names})
        missing = sum(expected.values()) - sum(self.arrived.values())
        if missing > 0:
            self._take(missing, ARRIVAL_WAIT_S)
        self._listener.close()
        assert self._counted == sum(self.sent.values()), f"{self._counted} of {self.sent} were sent"
        assert self.arrived == expected, f"arrived: {self.arrived}, sent: {self.sent}, should arrive: {names}"
