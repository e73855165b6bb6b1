# SPDX-License-Identifier: GPL-2.0-or-later
"""Time from a command to enforcement, and memory.

fwd is asked by a packet (BPF_PROG_TEST_RUN on what is pinned) of the last entry until that is
dropped; the time is that or the command's return, whichever is later. The commands of nftables and
ipset return when the kernel has the change: one packet over veth then proves it. The LPM trie has
no command: its time is that of the system calls, from keys in memory.
"""
import os
import random
import re
import socket
import statistics
import struct
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

from fwdtest.daemon import FWCTL
from fwdtest.sandbox import Sandbox

from . import bpf, sets, wire
from .contenders import Fwd, Lpm, lpm_keys
from .others import Ipset, LOAD_WAIT_S, Nftables, Skipped, need_memory, settled_bytes
from .packets import Driver, packet, same

POLL_S, ENFORCED_WAIT_S = 0.001, 10
SINGLES, SINGLES_S = 50, 20  # commands of one kind: so many, or as many as take so long
REQUESTS = 500  # over one connection
MEANWHILE, PAUSE_S = 20000, 0.002  # single adds while a list is loaded: different ones, and between two
FWCTL_VERB = {"add": ["add", "--force"], "delete": ["del"]}  # what is drawn may cover this host


class Command:
    """A command on its way in the host."""

    def __init__(self, bench, words):
        self._log = bench.sandbox.folder / "command.log"
        self.words = [str(word) for word in words]
        self.status, self.peak_kib = None, 0
        with bench.host.inside(), open(self._log, "wb") as output:
            self._began = time.perf_counter()
            self._process = subprocess.Popen(self.words, stdin=subprocess.DEVNULL, stdout=output, stderr=output)

    def __str__(self):
        return " ".join(self.words)

    def elapsed(self):
        return time.perf_counter() - self._began

    def ended(self, wait=False):
        """Whether it has; then `returned_s` tells when. Notes its memory while it has not."""
        if self.status is not None:
            return True
        self._note_memory()
        pid, status = os.waitpid(self._process.pid, 0 if wait else os.WNOHANG)
        if not pid:
            return False
        self.returned_s = self.elapsed()
        self.status = self._process.returncode = os.waitstatus_to_exitcode(status)
        if self.status:
            raise AssertionError(f"{self}: exit status {self.status}\n{self._log.read_text()}")
        return True

    def _note_memory(self):
        """The most it ever had (rusage would tell of this process, which it was before exec)."""
        shown = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self._process.pid}/status").read_text())
        self.peak_kib = max(self.peak_kib, int(shown[1]) if shown else 0)


def _timed(bench, words, enforced=None):
    """`seconds` from the command until its return, and until `enforced()`, if that is later."""
    command = Command(bench, words)
    seen = None
    while not command.ended() or (enforced and seen is None):
        if enforced and seen is None and enforced():
            seen = command.elapsed()
        if command.ended() and command.elapsed() > command.returned_s + ENFORCED_WAIT_S:
            raise AssertionError(f"{command}: not enforced")
        time.sleep(POLL_S)
    return {"seconds": max(command.returned_s, seen or 0), "returned_s": command.returned_s, "enforced_s": seen,
            "tool_bytes": command.peak_kib * 1024}


def _run(bench, words):
    Command(bench, words).ended(wait=True)


def summary(seconds):
    ordered = sorted(seconds)
    return {"count": len(ordered), "min": ordered[0], "median": statistics.median(ordered),
            "p99": ordered[max(0, -(-len(ordered) * 99 // 100) - 1)], "max": ordered[-1]}


def _singles(act):
    """Adds and deletes by turns: act(verb) for each."""
    samples = {"add": [], "delete": []}
    began = time.monotonic()
    while len(samples["add"]) < SINGLES and (not samples["add"] or time.monotonic() - began < SINGLES_S):
        for verb, seconds in samples.items():
            start = time.perf_counter()
            act(verb)
            seconds.append(time.perf_counter() - start)
    return {verb: summary(seconds) for verb, seconds in samples.items()}


def _drops(fwd, address):
    """Whether fwd's program drops a packet from there; None where the kernel cannot run it so."""
    frame = packet(4, address)

    def ask():
        program = fwd.open_program()
        try:
            return bpf.test_run(program, frame) == bpf.XDP_DROP
        finally:
            os.close(program)

    program = fwd.open_program()
    testable = int(bpf.descriptor_info(program)["prog_type"]) != bpf.BPF_PROG_TYPE_EXT
    os.close(program)
    return ask if testable else None


def _adds_meanwhile(bench, fwd, words):
    """Single adds by another client while the command runs."""
    command, seconds = Command(bench, words), []
    with fwd.daemon.client(wait_s=LOAD_WAIT_S) as client:
        while not command.ended():
            prefix = bench.others[len(seconds) % MEANWHILE]
            start = time.perf_counter()
            answer = client.request("add", prefixes=[prefix], force=True)
            seconds.append(time.perf_counter() - start)
            assert answer["ok"], answer
            time.sleep(PAUSE_S)
    return summary(seconds) | {"load_s": command.returned_s}


def _fwd_socket(bench, fwd):
    """The daemon's share of a single change: round trips over one connection."""
    samples = {"add": [], "delete": []}
    with fwd.daemon.client() as client:
        for _ in range(REQUESTS):
            for verb, (command, *flags) in FWCTL_VERB.items():
                start = time.perf_counter()
                answer = client.request(command, prefixes=[bench.single], **{flag.lstrip("-"): True for flag in flags})
                samples[verb].append(time.perf_counter() - start)
                assert answer["ok"], answer
    return {verb: summary(seconds) for verb, seconds in samples.items()}


def _measure_fwd(bench):
    fwd = Fwd(bench.sandbox, bench.host, 4, [], room=len(bench.first) + len(bench.second) + MEANWHILE + 1)
    tool = [FWCTL, "-s", fwd.daemon.socket_path]
    result = {"load": _timed(bench, [*tool, *FWCTL_VERB["add"], "-f", bench.write("first")],
                             _drops(fwd, bench.first[-1][0]))}
    result["memory"] = fwd.memory()
    result |= _singles(lambda verb: _run(bench, [*tool, *FWCTL_VERB[verb], bench.single]))
    result["socket"] = _fwd_socket(bench, fwd)
    result["meanwhile"] = _adds_meanwhile(bench, fwd, [*tool, *FWCTL_VERB["add"], "-f", bench.write("second")])
    return result


def _measure_fwd_feed(bench):
    fwd = Fwd(bench.sandbox, bench.host, 4, bench.first, room=len(bench.second))
    words = [FWCTL, "-s", fwd.daemon.socket_path, "feed", "replace", "bench", "-f", bench.write("second")]
    return {"replace": _timed(bench, words, _drops(fwd, bench.second[-1][0]))}


def _prove(bench, firewall, address):
    """One packet from there is dropped by this firewall."""
    bench.driver.fill(same(4, address))
    before = firewall.dropped()
    bench.path.send(1)
    if firewall.dropped() != before + 1:
        raise AssertionError(f"{firewall.name}: a packet from {sets.text(4, (address, 32))} is not dropped")


def _measure_tool(bench, firewall):
    """nftables or ipset."""
    bench.path.attach(bench.path.eth0, bench.driver.program("bare_pass"))
    words, available = firewall.write(bench.first, "first"), settled_bytes()
    result = {"load": _timed(bench, words)}
    result["memory"] = {"kernel_bytes": firewall.kernel_bytes(available), "process_bytes": 0}
    _prove(bench, firewall, bench.first[-1][0])
    result |= _singles(lambda verb: _run(bench, firewall.change(verb, bench.single)))
    result["replace"] = _timed(bench, firewall.write(bench.second, "second", in_place=True))
    _prove(bench, firewall, bench.second[-1][0])
    return result


def _measure_nftables(bench):
    need_memory(len(bench.first) * 2)
    return _measure_tool(bench, Nftables(bench.host, "eth0", bench.sandbox.folder))


def _measure_ipset(bench):
    return _measure_tool(bench, Ipset(bench.host, bench.sandbox.folder, len(bench.first) + 1))


def _measure_lpm(bench):
    lpm = Lpm(bench.sandbox, bench.build, 4, len(bench.first) + 1)
    keys, key = lpm_keys(4, bench.first), struct.pack("=I", 32) + socket.inet_aton(bench.single)
    began = time.perf_counter()
    bpf.update_batch(lpm.map, keys, bytes(8 * len(bench.first)), len(bench.first))
    seconds = time.perf_counter() - began
    memory = {"kernel_bytes": int(bpf.descriptor_info(lpm.map)["memlock"]), "process_bytes": 0}
    change = {"add": lambda: bpf.update(lpm.map, key, bytes(8)), "delete": lambda: bpf.delete(lpm.map, key)}
    return {"load": {"seconds": seconds}, "memory": memory} | _singles(lambda verb: change[verb]())


CONTENDERS = (("fwd", _measure_fwd), ("fwd", _measure_fwd_feed), ("LPM trie", _measure_lpm),
              ("ipset", _measure_ipset), ("nftables", _measure_nftables))


def _bench(options, sandbox, driver, drawn):
    path = wire.Path(sandbox, driver, "change")
    bench = SimpleNamespace(sandbox=sandbox, driver=driver, build=options.build, path=path, host=path.host, **drawn)
    bench.write = lambda name: sets.write(sandbox.folder / f"{name}.txt", 4, drawn[name])
    return bench


def _draw(options):
    """Two sets without a common prefix, the last of the second in none of the first; and hosts in neither."""
    rng, count = random.Random(f"{options.seed} change"), max(options.entries)
    both = sets.mixed(4, 2 * count, rng)
    first, second = both[:count], both[count:]
    covered = sets.Ranges(4, first)
    second.append(second.pop(next(i for i, (address, _) in enumerate(second) if address not in covered)))
    single, *others = [sets.text(4, (address, 32)) for address in sets.misses(4, both, 1 + MEANWHILE, rng)]
    return {"first": first, "second": second, "single": single, "others": others}


def run(options, log):
    """{"entries", "contenders": {name: {load, replace, add, delete, memory, ...}}, "notes": {name: text}}"""
    drawn, results, notes = _draw(options), {}, {}
    for name, measure in CONTENDERS:
        log(f"change: {name}, {len(drawn['first'])} entries")
        with Sandbox() as sandbox, Driver(options.build, 4, 0) as driver:
            try:
                results[name] = results.get(name, {}) | measure(_bench(options, sandbox, driver, drawn))
            except Skipped as reason:
                notes[name] = f"skipped: {reason}"
    return {"entries": len(drawn["first"]), "contenders": results, "notes": notes}
