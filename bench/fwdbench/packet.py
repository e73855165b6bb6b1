# SPDX-License-Identifier: GPL-2.0-or-later
"""Cost per packet through the loaded program.

The driver's program writes a source drawn at random into the packet and tail-calls the program under
test, BPF_PROG_TEST_RUN repeats it 2^20 times, and the thread's CPU time is taken. The floor is the
same with a program that only returns XDP_DROP. A hit's source is an address of an entry, each entry
equally likely; a miss's is any address that no entry covers.
"""
import contextlib
import os
import random
import statistics
from pathlib import Path

from fwdtest.sandbox import Sandbox

from . import bpf, sets
from .contenders import Fwd, Hash, Lpm
from .packets import Driver, SOURCES, draw, pinned

FLOOR = "XDP_DROP"
KINDS = (("IPv4 hosts", 4, sets.hosts), ("IPv4 mixed", 4, sets.mixed), ("IPv6 mixed", 6, sets.mixed))


class NotTestable(Exception):
    """libxdp's dispatcher holds the program: its type cannot be run by BPF_PROG_TEST_RUN."""


def rows(options):
    """(name, family, function that makes the set)."""
    for name, family, make in KINDS:
        for count in options.entries:
            yield name, family, lambda rng, make=make, family=family, count=count: make(family, count, rng)
    for path in options.lists:
        yield Path(path).stem, 4, lambda rng, path=path: sets.from_file(path)


def _driver(build, family, fwd):
    """A tail call joins programs alike: fwd has BPF_F_XDP_HAS_FRAGS where the kernel knows it."""
    with contextlib.suppress(OSError):
        driver = Driver(build, family, bpf.BPF_F_XDP_HAS_FRAGS)
        driver.test(fwd)
        return driver, bpf.BPF_F_XDP_HAS_FRAGS
    return Driver(build, family, 0), 0


def _summary(samples, floor):
    return {"min": min(samples) - min(floor), "median": statistics.median(samples) - statistics.median(floor)}


def _measure_row(options, sandbox, family, entries, rng):
    host, peer = sandbox.namespace("host"), sandbox.namespace("peer")
    sandbox.link(host, "eth0", peer, "wire")
    fwd = Fwd(sandbox, host, family, entries)
    program = fwd.open_program()
    sandbox.at_exit(os.close, program)
    if int(bpf.descriptor_info(program)["prog_type"]) == bpf.BPF_PROG_TYPE_EXT:
        raise NotTestable
    addresses = sets.representatives(family, entries, rng)
    sources = {"hit": draw(family, addresses, rng),
               "miss": draw(family, sets.misses(family, entries, SOURCES, rng), rng)}
    driver, flags = _driver(options.build, family, program)
    with driver:
        contenders = [Hash(sandbox, options.build, family, addresses, flags),
                      Lpm(sandbox, options.build, family, len(entries), flags).load(entries)]
        programs = {FLOOR: driver.program("bare_drop"), "XDP_PASS": driver.program("bare_pass"), "fwd": program}
        programs |= {contender.name: contender.program for contender in contenders}
        with pinned(options.cpu):
            costs = {kind: _rounds(options, driver, programs, records, kind) for kind, records in sources.items()}
    return costs | {"memory": fwd.memory()}


def _rounds(options, driver, programs, records, kind):
    """{contender: summary}; the contenders take turns."""
    driver.fill(records)
    samples = {name: [] for name in programs}
    for name, program in programs.items():
        driver.test(program)
        if name not in (FLOOR, "XDP_PASS"):
            driver.verify({"hit": bpf.XDP_DROP, "miss": bpf.XDP_PASS}[kind], name)
        driver.measure()  # caches and branches warm
    for _ in range(options.rounds):
        for name, program in programs.items():
            driver.test(program)
            samples[name].append(driver.measure())
    floor = samples.pop(FLOOR)
    result = {name: _summary(values, floor) for name, values in samples.items()}
    return {FLOOR: {"min": min(floor), "median": statistics.median(floor)}} | result


def run(options, log):
    """{"rows": [{"set", "family", "entries", "hit": {contender: {min, median}}, "miss": ...}]}"""
    measured = []
    for name, family, make in rows(options):
        rng = random.Random(f"{options.seed} {name}")
        entries = make(rng)
        log(f"packet: {name}, {len(entries)} entries")
        with Sandbox() as sandbox:
            try:
                costs = _measure_row(options, sandbox, family, entries, rng)
            except NotTestable:
                return {"skipped": "libxdp's dispatcher holds fwd's program on this kernel, which "
                                   "BPF_PROG_TEST_RUN cannot run; see the part \"wire\""}
        measured.append({"set": name, "family": family, "entries": len(entries)} | costs)
    return {"floor": FLOOR, "rows": measured}
