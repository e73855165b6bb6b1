# SPDX-License-Identifier: GPL-2.0-or-later
"""The driver: writes source after source into a packet and runs a program on it."""
import contextlib
import os
import time

from . import bpf, sets

SOURCES = 1 << 20  # bench/driver.bpf.c
RECORD = 16  # struct source
CHECKED = 64  # packets whose verdict is looked at one by one

_ETHERNET = bytes.fromhex("020000000001 020000000002")
_UDP = bytes.fromhex("c000 0009 0000 0000")


@contextlib.contextmanager
def pinned(cpu):
    """This process stays on one core, before others; what it starts meanwhile does, too."""
    cores, nice = os.sched_getaffinity(0), os.getpriority(os.PRIO_PROCESS, 0)
    os.sched_setaffinity(0, {cpu})
    os.setpriority(os.PRIO_PROCESS, 0, -20)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        os.sched_setaffinity(0, cores)


def packet(family, source=0, ethernet=_ETHERNET):
    """A UDP packet in a frame of 64 bytes; the driver writes sources and the IPv4 checksum."""
    payload = 64 - len(_ETHERNET) - 2 - {4: 20, 6: 40}[family]
    if family == 4:
        header = bytes.fromhex("4500") + (20 + payload).to_bytes(2, "big") + bytes.fromhex("00000000 4011 0000")
        kind, destination = b"\x08\x00", bytes([192, 0, 2, 1])
    else:
        header = bytes.fromhex("60000000") + payload.to_bytes(2, "big") + bytes.fromhex("1140")
        kind, destination = b"\x86\xdd", bytes.fromhex("20010db8") + bytes(12)
    udp = _UDP[:4] + payload.to_bytes(2, "big") + _UDP[6:]
    return (ethernet + kind + header + sets.packed(family, source) + destination + udp).ljust(64, b"\0")


def draw(family, addresses, rng):
    """The records of SOURCES addresses, drawn from these."""
    pad = bytes(RECORD - sets.SIZE[family])
    return b"".join(sets.packed(family, address) + pad for address in rng.choices(addresses, k=SOURCES))


def same(family, address):
    """The records of one address alone."""
    return sets.packed(family, address).ljust(RECORD, b"\0") * SOURCES


class Driver:
    """bench/driver.bpf.c, loaded with the flags that a tail call to the tested programs asks for."""

    def __init__(self, build, family, flags):
        self.packet = packet(family)
        self._object = bpf.Object(build / "driver.bpf.o", constants=bytes([family == 6]), flags=flags)
        self._memory = bpf.map_memory(self._object.map("sources"), SOURCES * RECORD)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._memory.close()
        self._object.close()

    def program(self, name):
        return self._object.program(name)

    def fill(self, records):
        self._memory[:] = records

    def test(self, fd):
        """Runs this program from now on."""
        bpf.update(self._object.map("tested"), bytes(4), fd.to_bytes(4, "little"))

    def run(self, repeat=1):
        return bpf.test_run(self._object.program("run_tested"), self.packet, repeat)

    def verify(self, verdict, who):
        """The next packets, each with this verdict."""
        for _ in range(CHECKED):
            got = self.run()
            if got != verdict:
                raise AssertionError(f"{who}: verdict {got}, expected {verdict}")

    def measure(self):
        """ns of this thread a packet, everything told."""
        began = time.thread_time_ns()
        self.run(SOURCES)
        return (time.thread_time_ns() - began) / SOURCES
