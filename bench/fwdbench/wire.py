# SPDX-License-Identifier: GPL-2.0-or-later
"""Packets per second over veth, all told on one core.

A program draws each source and sends the frame (BPF_PROG_TEST_RUN's live frames) into a veth whose
other end, in another namespace, is filtered. The veth's receiving side runs in softirqs of the core
that sends. What passes a filter ends in a rule of raw PREROUTING, for everybody the same; that
rule's counter, the driver's and the filter's own must tell of each packet.
"""
import dataclasses
import random
import re
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

from fwdtest.sandbox import Sandbox

from . import bpf, sets
from .contenders import Fwd, Lpm
from .others import Ipset, LOAD_WAIT_S, Nftables, Skipped, XDP_FILTER_MAX, XdpFilter, iptables_packets, need_memory
from .packets import Driver, SOURCES, draw, packet, pinned

SETTLE_S = 2
STRAYS = 8  # frames of a round that are not ours: IPv6's multicast reports


class Path:
    """wire (sender) -> eth0 (receiver), with the rule that ends what passes."""

    def __init__(self, sandbox, driver, label):
        self.host = sandbox.namespace(f"{label}-host")
        self.peer = sandbox.namespace(f"{label}-peer")
        self.eth0, self.wire = sandbox.link(self.host, "eth0", self.peer, "wire", queues=1)
        self._driver = driver
        # A veth takes XDP frames from a side that has a program itself.
        self.attach(self.wire, driver.program("bare_pass"))
        self.host.run("iptables", "-t", "raw", "-A", "PREROUTING", "-j", "DROP", "-m", "comment", "--comment", "passed")
        self.frame = packet(4, ethernet=bytes.fromhex((self.eth0.mac + self.wire.mac).replace(":", "")))

    def attach(self, interface, program):
        with interface.namespace.inside():
            bpf.attach_native(interface.ifindex, program)

    def send(self, count):
        """Seconds from the first frame to the last."""
        with self.peer.inside():
            began = time.perf_counter()
            bpf.test_run(self._driver.program("send"), self.frame, count, live_from=self.wire.ifindex)
            return time.perf_counter() - began

    def driver_counts(self):
        """(packets that reached the XDP program, packets that it dropped)"""
        shown = self.host.run("ethtool", "-S", "eth0").stdout
        return tuple(int(re.search(rf"rx_queue_0_{name}: (\d+)", shown)[1]) for name in ("xdp_packets", "xdp_drops"))

    def passed(self):
        return iptables_packets(self.host, "passed")


@dataclasses.dataclass
class Contender:
    """`dropped()`: what its own counter says. `hits`: the drawn sources that it drops."""
    path: Path
    dropped: Callable[[], int]
    kinds: tuple = ("hit", "miss")
    hits: str = "hit"
    note: str | None = None


def _by_driver(path, **more):
    """A contender that drops in XDP and has no counter that tells: veth's driver counts."""
    return Contender(path, lambda: path.driver_counts()[1], **more)


def _set_up_drop(bench, path):
    path.attach(path.eth0, bench.driver.program("bare_drop"))
    return _by_driver(path, kinds=("hit",))


def _set_up_pass(bench, path):
    path.attach(path.eth0, bench.driver.program("bare_pass"))
    return _by_driver(path, kinds=("miss",))


def _set_up_fwd(bench, path):
    fwd = Fwd(bench.sandbox, path.host, 4, bench.entries)
    return Contender(path, lambda: fwd.daemon.verdicts().get(("eth0", "xdp", "drop"), 0))


def _set_up_lpm(bench, path):
    lpm = Lpm(bench.sandbox, bench.build, 4, len(bench.entries)).load(bench.entries)
    path.attach(path.eth0, lpm.program)
    return _by_driver(path)


def _set_up_xdp_filter(bench, path):
    XdpFilter(path.eth0, bench.few)
    return _by_driver(path, hits="few", note=f"holds {len(bench.few):,} hosts")


def _set_up_nftables(bench, path):
    need_memory(len(bench.entries))
    path.attach(path.eth0, bench.driver.program("bare_pass"))
    nftables = Nftables(path.host, "eth0", bench.sandbox.folder)
    path.host.run(*nftables.write(bench.entries, "wire"), timeout=LOAD_WAIT_S)
    return Contender(path, nftables.dropped)


def _set_up_ipset(bench, path):
    path.attach(path.eth0, bench.driver.program("bare_pass"))
    ipset = Ipset(path.host, bench.sandbox.folder, len(bench.entries))
    path.host.run(*ipset.write(bench.entries, "wire"), timeout=LOAD_WAIT_S)
    return Contender(path, ipset.dropped)


CONTENDERS = {
    "XDP_DROP": _set_up_drop, "XDP_PASS": _set_up_pass, "fwd": _set_up_fwd, "LPM trie": _set_up_lpm,
    "xdp-filter": _set_up_xdp_filter, "nftables": _set_up_nftables, "ipset": _set_up_ipset,
}


def _counts(contender):
    return contender.path.driver_counts()[0], contender.dropped(), contender.path.passed()


def _settled(contender, before, count):
    """What has risen, once all have arrived that will."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        received, dropped, passed = (after - old for after, old in zip(_counts(contender), before))
        if dropped + passed == count or time.monotonic() > deadline:
            return received, dropped, passed
        time.sleep(0.02)


def _measure(contender, name, kind, count):
    """Seconds a packet that arrived, and the share that did; all must have ended as they have to."""
    before = _counts(contender)
    elapsed = contender.path.send(count)
    received, dropped, passed = _settled(contender, before, count)
    right, wrong = (dropped, passed) if kind == "hit" else (passed, dropped)
    if not right or wrong or not 0 <= received - right <= STRAYS:
        raise AssertionError(f"{name}, {kind}: of {count} sent {received} arrived, "
                             f"{dropped} were dropped and {passed} passed")
    return elapsed / right, right / count


def _rounds(bench, contenders, kind, options):
    """{contender: summary}; the contenders take turns."""
    samples, arrived, filled = {}, {}, None
    for _ in range(options.rounds + 1):  # the first one warms up
        for name, contender in contenders.items():
            if kind not in contender.kinds:
                continue
            wanted = contender.hits if kind == "hit" else "miss"
            if filled != wanted:
                bench.driver.fill(bench.records[wanted])
                filled = wanted
            seconds, share = _measure(contender, name, kind, options.packets)
            samples.setdefault(name, []).append(seconds * 1e9)
            arrived[name] = min(share, arrived.get(name, 1))
    return {name: {"min": min(values[1:]), "median": statistics.median(values[1:]), "arrived": arrived[name]}
            for name, values in samples.items()}


def _bench(options, sandbox, driver, rng):
    """The set, and the sources drawn for it."""
    count = max(options.entries)
    entries = sets.mixed(4, count, rng)
    addresses = sets.representatives(4, entries, rng)
    few = list(dict.fromkeys(addresses))[:XDP_FILTER_MAX]
    records = {"hit": draw(4, addresses, rng), "few": draw(4, few, rng),
               "miss": draw(4, sets.misses(4, entries, SOURCES, rng), rng)}
    return SimpleNamespace(sandbox=sandbox, driver=driver, build=options.build, entries=entries, few=few,
                           records=records)


def run(options, log):
    """{"entries", "hit": {contender: {min, median, arrived}}, "miss": ..., "notes": {contender: text},
    "partial": [contender that holds less than the list]}"""
    rng = random.Random(f"{options.seed} wire")
    notes, contenders = {}, {}
    with Driver(options.build, 4, 0) as driver, Sandbox() as sandbox:
        bench = _bench(options, sandbox, driver, rng)
        for name, set_up in CONTENDERS.items():
            log(f"wire: {name}, {len(bench.entries)} entries")
            try:
                contenders[name] = set_up(bench, Path(sandbox, driver, name.replace(" ", "-")))
                notes |= {name: contenders[name].note} if contenders[name].note else {}
            except Skipped as reason:
                notes[name] = f"skipped: {reason}"
        with pinned(options.cpu):
            kinds = {kind: _rounds(bench, contenders, kind, options) for kind in ("hit", "miss")}
    partial = [name for name, contender in contenders.items() if contender.hits == "few"]
    return {"entries": len(bench.entries), "notes": notes, "partial": partial} | kinds
