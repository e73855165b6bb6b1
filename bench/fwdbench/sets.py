# SPDX-License-Identifier: GPL-2.0-or-later
"""Blocklists and the addresses that hit and miss them.

A set is a list of (address, length), the address an integer; all of one family. Everything drawn
comes from a random.Random that the caller seeds.
"""
import bisect
import itertools
import socket
from pathlib import Path

BITS = {4: 32, 6: 128}
SIZE = {4: 4, 6: 16}  # bytes

# The shares of real blocklists, roughly: mostly hosts, then the smallest networks that are routed.
LENGTHS4 = [(32, 0.7), (24, 0.2)] + [(length, 0.1 / 16) for length in range(16, 32)]
LENGTHS6 = [(128, 0.4), (64, 0.3), (56, 0.1), (48, 0.15), (32, 0.05)]


def _host4(rng):
    return rng.randrange(1 << 24, 224 << 24)


def _host6(rng):
    return 1 << 125 | rng.getrandbits(125)  # 2000::/3


_HOST = {4: _host4, 6: _host6}


def _masked(address, length, bits):
    return address >> (bits - length) << (bits - length)


def _drawn(family, lengths, count, rng):
    """`count` different prefixes, in no order."""
    bits, host = BITS[family], _HOST[family]
    population, weights = zip(*lengths)
    entries = {}
    while len(entries) < count:
        missing = count - len(entries)
        for length in rng.choices(population, weights, k=missing):
            entries[_masked(host(rng), length, bits), length] = None
    return list(entries)


def hosts(family, count, rng):
    return _drawn(family, [(BITS[family], 1)], count, rng)


def mixed(family, count, rng):
    return _drawn(family, {4: LENGTHS4, 6: LENGTHS6}[family], count, rng)


def from_file(path):
    """What a real list has of IPv4."""
    entries = {}
    for line in Path(path).read_text().splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        if not words or ":" in words[0]:
            continue
        address, _, length = words[0].partition("/")
        entries[int.from_bytes(socket.inet_pton(socket.AF_INET, address), "big"), int(length or 32)] = None
    return list(entries)


def packed(family, address):
    return address.to_bytes(SIZE[family], "big")


def text(family, entry):
    address, length = entry
    name = socket.inet_ntop({4: socket.AF_INET, 6: socket.AF_INET6}[family], packed(family, address))
    return name if length == BITS[family] else f"{name}/{length}"


def write(path, family, entries, line="{}"):
    path = Path(path)
    with open(path, "w") as file:
        file.writelines(line.format(text(family, entry)) + "\n" for entry in entries)
    return path


def representatives(family, entries, rng):
    """One address of each entry."""
    bits = BITS[family]
    return [address | rng.getrandbits(bits - length) if length < bits else address for address, length in entries]


class Ranges:
    """The addresses that a set covers, as disjoint ranges."""

    def __init__(self, family, entries):
        self._starts, self._ends = [], []
        for start, length in sorted(entries):
            end = start + (1 << (BITS[family] - length))
            if not self._ends or start >= self._ends[-1]:
                self._starts.append(start)
                self._ends.append(end)

    def __contains__(self, address):
        i = bisect.bisect_right(self._starts, address) - 1
        return i >= 0 and address < self._ends[i]


def misses(family, entries, count, rng):
    """Addresses in no entry, of all of IPv4 or of 2000::/3."""
    covered = Ranges(family, entries)
    draw = _host6 if family == 6 else lambda rng: rng.getrandbits(32)
    candidates = (draw(rng) for _ in itertools.count())
    return list(itertools.islice((address for address in candidates if address not in covered), count))
