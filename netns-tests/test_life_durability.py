# SPDX-License-Identifier: GPL-2.0-or-later
"""A change that was acknowledged is there after a kill; one that was not is there whole or not at all."""
import contextlib
import ipaddress
import json
import os
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from fwdtest import kernel
from fwdtest.client import memory_file
from fwdtest.rules import ETH0
from fwdtest.sandbox import rounds, run
from fwdtest.traffic import ARRIVAL_WAIT_S, MARKER, Flow, udp, wait_until

BLOCKED = "10.1.0.2"

CHANGES, AT_ONCE = rounds(int(os.environ.get("FWD_CHANGES", 500))), 160
CLIENTS = 3
SOURCES = [f"10.1.0.{i}" for i in range(16, 16 + 16 * CLIENTS)]  # whose packets are tried; 16 a client
MANY = 5000
FEED = '[[blacklist.feed]]\nname = "given"\n'


# ---- a model of the runtime rules ----

class Model:
    """What the rules should be after a number of changes."""

    def __init__(self, other=None):
        self.block = dict(other.block) if other else {}  # prefix: (comment, has a TTL)
        self.allow = dict(other.allow) if other else {}
        self.redirects = dict(other.redirects) if other else {}  # match: target
        self.feed = other.feed if other else frozenset()

    def __eq__(self, other):
        return (self.block, self.allow, self.redirects, self.feed) == (
            other.block, other.allow, other.redirects, other.feed)

    def after(self, request):
        model = Model(self)
        command = request["command"]
        prefixes = request.get("prefixes") or request.get("listed")
        if command in ("add", "allow add"):
            table = model.block if command == "add" else model.allow
            table.update(dict.fromkeys(prefixes, (request.get("comment"), "ttl" in request)))
        elif command in ("del", "allow del"):
            table = model.block if command == "del" else model.allow
            if all(prefix in table for prefix in prefixes):  # else it is refused
                for prefix in prefixes:
                    del table[prefix]
        elif command == "flush":
            model.block = {}
        elif command == "feed replace":
            model.feed = frozenset(prefixes)
        elif command == "redirect add":
            model.redirects[request["ports"], request["direction"]] = request["target"]
        elif command == "redirect del":
            model.redirects.pop((request["ports"], request["direction"]), None)
        return model

    @classmethod
    def of(cls, daemon):
        """What the daemon says."""
        model = cls()
        for table, command in (model.block, "list"), (model.allow, "allow list"):
            for entry in daemon.request(command)["entries"]:
                if entry["origin"] == "given":
                    model.feed |= {entry["prefix"]}
                else:
                    table[entry["prefix"]] = entry["comment"], entry["left_s"] is not None
        for redirect in daemon.request("redirect list")["redirects"]:
            model.redirects[redirect["ports"], redirect["direction"]] = redirect["target"]
        return model

    def part(self, client):
        """What that client alone changes."""
        part = Model()
        part.block = {prefix: rule for prefix, rule in self.block.items() if client_of(prefix) == client}
        part.allow = {prefix: rule for prefix, rule in self.allow.items() if client_of(prefix) == client}
        part.redirects = {match: target for match, target in self.redirects.items()
                          if int(match[0].split("/")[1]) // 10 % 10 == client}
        part.feed = frozenset() if client else self.feed
        return part

    def passing(self):
        """Those of SOURCES whose packets pass."""
        def covered(source, table):
            return any(ipaddress.ip_address(source) in network for network in table)

        block, allow = ([ipaddress.ip_network(prefix) for prefix in table if prefix.startswith("10.1.0.")]
                        for table in (self.block, self.allow))
        return {source for source in SOURCES if not covered(source, block) or covered(source, allow)}

    def __repr__(self):
        return f"<{len(self.block)} blocked, {len(self.allow)} allowed, {len(self.redirects)} redirects, " \
               f"{len(self.feed)} in the feed>"


def client_of(prefix):
    """10.1.0.16 and 172.16.0.0 and behind are of client 0, 10.1.0.32 and 172.20.0.0 of client 1."""
    first, second, _, last = (int(part) for part in prefix.split("/")[0].split("."))
    return last // 16 - 1 if first == 10 else second // 4 - 4 if first == 172 else None


class Changes:
    """Random changes: single ones, batches and lists, near SOURCES and far from them; of one client's part alone."""

    KINDS = {"add": 30, "batch": 8, "list": 1, "del": 24, "del list": 1, "allow add": 12, "allow del": 8,
             "redirect add": 8, "redirect del": 6, "feed replace": 2, "reload": 1, "flush": 1}

    def __init__(self, dice, client, alone):
        self.dice, self.client = dice, client
        self.kinds = {kind: weight for kind, weight in self.KINDS.items()
                      if (kind != "flush" or alone) and (kind not in ("feed replace", "reload") or not client)}

    def prefix(self):
        length = self.dice.choice((28, 30, 31, 32, 32, 32))
        source = self.dice.choice(SOURCES[16 * self.client:16 * self.client + 16])
        network = ipaddress.ip_network((source, length), strict=False)
        return str(network.network_address) if length == 32 else str(network)

    def far(self, count, step):
        start = self.dice.randrange(1 << 16)
        first = (172 << 24) + (16 + 4 * self.client << 16)
        return {str(ipaddress.ip_address(first + (start + i * step) % (1 << 18))) for i in range(count)}

    def some(self, table):
        """What is there, mostly; else the request is refused, whole."""
        there = sorted(table)
        count = min(len(there), self.dice.choice((1, 1, 1, 10, 100)))
        return self.dice.sample(there, count) + ["198.51.100.1"] * (not there or self.dice.random() < 0.1)

    def next(self, model):
        dice = self.dice
        kind, = dice.choices(list(self.kinds), self.kinds.values())
        options = dice.choice(({}, {}, {"ttl": "1h"}, {"comment": f"note {dice.randrange(100)}"},
                               {"ttl": "2h", "comment": "both"}))
        if kind in ("add", "allow add"):
            return {"command": kind, "prefixes": [self.prefix()]} | (options if kind == "add" else {})
        if kind == "batch":
            return {"command": "add", "prefixes": sorted(self.far(dice.randrange(2, 200), 7) | {self.prefix()})} | options
        if kind == "list":
            return {"command": "add", "listed": sorted(self.far(MANY, 3))} | options
        if kind == "feed replace":
            return {"command": kind, "name": "given", "listed": sorted(self.far(dice.randrange(300), 11))}
        if kind == "del list":
            return {"command": "del", "listed": sorted(model.block) or ["198.51.100.1"]}
        if kind in ("del", "allow del"):
            return {"command": kind, "prefixes": self.some(model.block if kind == "del" else model.allow)}
        if kind in ("flush", "reload"):
            return {"command": kind}
        match = {"ports": f"udp/{9000 + 10 * self.client + dice.randrange(8)}", "direction": dice.choice(("in", "out"))}
        target = {"target": dice.choice(("tun0", "tun1"))} if kind == "redirect add" else {}
        return {"command": kind} | match | target


class Senders:
    """A packet of each of SOURCES."""

    def __init__(self, net, listener):
        self.wire, self.listener = net.wire, listener
        self.frames = [bytes(udp(net.wire, 7, source) / source.encode()) for source in SOURCES]

    def arriving(self, expected):
        """The sources whose packets arrive."""
        self.listener.drain()
        with self.wire.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
            raw.bind((self.wire.name, 0))
            for frame in self.frames:
                raw.send(frame)
        payloads = self.listener.packets(expected, ARRIVAL_WAIT_S) if expected else []
        return {payload.removeprefix(MARKER).decode() for payload in payloads + self.listener.packets(0, 0.05)}


def check_kernel(daemon, senders, model):
    """What packets see is what the model says: in the maps, on the wire, and by `test`."""
    assert kernel.entries(daemon) == model.block.keys() | model.feed
    assert kernel.entries(daemon, "allow") == model.allow.keys()
    passing = model.passing()
    assert senders.arriving(len(passing)) == passing
    assert {source for source in SOURCES if daemon.request("test", address=source)["verdict"] == "pass"} == passing


def send(client, requests):
    """All of them, without waiting for answers; a list goes as a descriptor."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for request in requests:
            if listed := request.get("listed"):
                line = {key: value for key, value in request.items() if key != "listed"} | {"list": True}
                with memory_file("\n".join(listed).encode()) as fd:
                    client.send(json.dumps(line).encode() + b"\n", [fd])
            else:
                client.send(json.dumps(request).encode() + b"\n")


def change_until_killed(daemon, requests, kill_at, delay_s):
    """
    Sends those of each client, kills the daemon so long after that many answers; returns the answers that came, by
    client.
    """
    answers = [[] for _ in requests]
    enough = threading.Event()

    def receive(client, answers_of_one):
        while answer := client.answer():
            answers_of_one.append(answer)
            if sum(map(len, answers)) >= kill_at:
                enough.set()

    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(daemon.client()) for _ in requests]
        threads = [threading.Thread(target=target, args=pair) for target, second in ((send, requests), (receive, answers))
                   for pair in zip(clients, second)]
        for thread in threads:
            thread.start()
        enough.wait(20)
        time.sleep(delay_s)
        daemon.signal(signal.SIGKILL)
        for thread in threads:
            thread.join()
    daemon.kill()
    return answers


def one_round(daemon, dice, model):
    """Changes, a kill, and a start. Returns how many were answered, and what the rules are then."""
    alone = dice.random() < 0.3
    starts = [model] if alone else [model.part(client) for client in range(CLIENTS)]
    requests, models = [[] for _ in starts], [[start] for start in starts]
    for client, of_client in enumerate(models):
        changes = Changes(dice, client, alone)
        for _ in range(AT_ONCE // len(starts)):
            requests[client].append(changes.next(of_client[-1]))
            of_client.append(of_client[-1].after(requests[client][-1]))
    answers = change_until_killed(daemon, requests, dice.randrange(1, AT_ONCE), dice.uniform(0, 0.02))
    for asked, answered, states in zip(requests, answers, models):
        for request, answer, before, after in zip(asked, answered, states, states[1:]):
            assert answer["ok"] or before == after, f"{request}: {answer}"

    daemon.start()
    model = Model.of(daemon)
    for client, (answered, states) in enumerate(zip(answers, models)):
        assert (model if alone else model.part(client)) in states[len(answered):], \
            f"client {client}: {len(answered)} of {len(states) - 1} were answered, and there are {model}"
    status = daemon.request("status")
    assert status["adopted"] is True and status["damage"] is None
    return sum(map(len, answers)), model


def test_no_acknowledged_change_is_lost_by_kills_at_random_points(net, listener):
    """Of FWD_CHANGES changes of every kind, by several clients."""
    seed = int(os.environ.get("FWD_SEED", time.time_ns() % 1_000_000))
    print(f"FWD_SEED={seed} repeats this run")
    dice = random.Random(seed)
    model, done, kills = Model(), 0, 0
    daemon, senders = net.daemon(ETH0 + FEED), Senders(net, listener)
    while done < CHANGES:
        answered, model = one_round(daemon, dice, model)
        done, kills = done + answered, kills + 1
        if kills % 4 == 0:
            check_kernel(daemon, senders, model)
    check_kernel(daemon, senders, model)
    print(f"{done} changes, {kills} kills")


# ---- a power cut ----

@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_no_change_is_answered_before_the_disk_has_it(net):
    """Each answer comes after a sync of the file that has the change, and while none is under way."""
    daemon = net.daemon(ETH0 + FEED)
    many = [f"172.16.{i // 256}.{i % 256}" for i in range(MANY)]
    changes = [
        ({"command": "add", "prefixes": ["192.0.2.1"]}, "rules.db-wal"),
        ({"command": "add", "prefixes": ["192.0.2.1", "192.0.2.2"], "ttl": "1h", "comment": "x"}, "rules.db-wal"),
        ({"command": "del", "prefixes": ["192.0.2.1"]}, "rules.db-wal"),
        ({"command": "allow add", "prefixes": ["192.0.2.1"]}, "rules.db-wal"),
        ({"command": "allow del", "prefixes": ["192.0.2.1"]}, "rules.db-wal"),
        ({"command": "redirect add", "ports": "udp/9000", "target": "tun0"}, "rules.db-wal"),
        ({"command": "redirect del", "ports": "udp/9000"}, "rules.db-wal"),
        ({"command": "feed replace", "name": "given", "listed": ["192.0.2.3"]}, "feeds"),
        ({"command": "add", "listed": many}, "rules.db-wal"),
        ({"command": "flush"}, "rules.db-wal"),
    ]
    trace = net.sandbox.folder / "trace"
    with subprocess.Popen(["strace", "-f", "-y", "-s", "16", "-o", trace, "-p", str(daemon.pid), "-e",
                           "trace=fsync,fdatasync,sendto,sendmsg"], stderr=subprocess.PIPE, text=True) as tracer:
        try:
            assert "attached" in tracer.stderr.readline()
            with daemon.client() as client:
                for request, _ in changes:
                    send(client, [request])
                    answer = client.answer()
                    assert answer["ok"], answer
        finally:
            tracer.terminate()
            tracer.stderr.read()

    synced, waiting, answered = set(), {}, 0
    for line in trace.read_text().splitlines():
        thread, call = line.split(maxsplit=1)
        path = re.match(r"f(?:data)?sync\(\d+<(.*?)>", call)
        if path and "unfinished" in call:
            waiting[thread] = path[1]
        elif path or "sync resumed" in call:
            assert call.endswith("= 0"), call
            synced.add(Path(path[1] if path else waiting.pop(thread)).name)
        elif "ok" in call:
            request, name = changes[answered]
            assert name in synced, (request, synced)
            if len(request.get("listed", ())) == MANY:
                assert {"bulk", "1"} <= synced, synced
            synced, answered = set(), answered + 1
    assert answered == len(changes)


# ---- a full disk ----

@pytest.fixture
def small_disk(net):
    """A folder of 1 MiB, and a function that fills it; gone with the sandbox."""
    folder = net.sandbox.folder / "disk"
    folder.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder)
    net.sandbox.at_exit(run, "umount", "--lazy", folder)
    return folder


def fill(folder):
    with contextlib.suppress(OSError), open(folder / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


@pytest.mark.parametrize("size", [3000, 8000], ids=["rows of the database", "a file beside it"])
def test_a_change_that_a_full_disk_refuses_changes_nothing_until_there_is_room(net, listener, small_disk, size):
    daemon = net.daemon(state_dir=str(small_disk / "state"))
    listed = "".join(f"172.16.{i // 256}.{i % 256}\n" for i in range(size))
    daemon.fwctl("add", "192.0.2.1", "--comment", "before")
    daemon.fwctl("redirect", "add", "udp/8", "tun0", "--on", "eth0")
    before = Model.of(daemon)
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    fill(small_disk)

    failed = daemon.fwctl("add", "-", input=f"{BLOCKED}\n{listed}", check=False)
    assert failed.returncode == 1
    assert f"{small_disk}/state/" in failed.stderr and "the disk is full, make room on it" in failed.stderr
    assert Model.of(daemon) == before
    assert kernel.entries(daemon) == {"192.0.2.1"}
    flow.passes()
    assert daemon.fwctl("test", BLOCKED, check=False).returncode == 0

    (small_disk / "ballast").unlink()
    daemon.fwctl("add", "-", input=f"{BLOCKED}\n{listed}")
    flow.is_dropped()
    after = Model.of(daemon)
    daemon.kill()
    daemon.start()
    assert Model.of(daemon) == after and len(after.block) == size + 2


def test_on_a_full_disk_each_single_change_is_kept_or_refused(net, small_disk):
    """Until the last page is used; what was acknowledged is there after a kill."""
    daemon = net.daemon(state_dir=str(small_disk / "state"))
    daemon.fwctl("add", "192.0.2.1")
    fill(small_disk)
    expected, refused = Model.of(daemon), 0
    for i in range(200):
        for request in ({"command": "add", "prefixes": [f"198.51.100.{i}"], "comment": "x" * 128},
                        {"command": "allow add", "prefixes": [f"198.51.100.{i}"]},
                        {"command": "redirect add", "ports": f"udp/{1000 + i}", "target": "tun0", "direction": "in"},
                        {"command": "del", "prefixes": ["192.0.2.1"]}):
            before, after = expected, expected.after(request)
            answer = daemon.request(**request)
            if answer["ok"]:
                expected = after
            elif before != after:
                assert answer["error"]["code"] == "failed", answer
                refused += 1
        if refused > 20:
            break
    assert refused and Model.of(daemon) == expected
    daemon.kill()
    daemon.start()
    assert Model.of(daemon) == expected
    assert kernel.entries(daemon) == expected.block.keys()


@pytest.mark.parametrize("restarted", [False, True])
def test_on_a_full_disk_what_is_there_can_be_removed(net, listener, small_disk, restarted):
    daemon = net.daemon(state_dir=str(small_disk / "state"))
    hosts = [f"198.51.100.{i}" for i in range(200)]
    daemon.fwctl("add", BLOCKED, *hosts)
    daemon.fwctl("redirect", "add", "udp/8", "tun0")
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.is_dropped()
    fill(small_disk)
    if restarted:
        daemon.kill()
        daemon.start()
        fill(small_disk)
    for i in range(300):  # until the log cannot grow any more
        refused = daemon.request("add", prefixes=[f"203.0.113.{i % 256}"], comment="x" * 128)
        if not refused["ok"]:
            break
    assert refused["error"]["code"] == "failed" and "the disk is full, make room on it" in refused["error"]["message"]

    expected = Model.of(daemon)
    for request in [*({"command": "del", "prefixes": [host]} for host in [BLOCKED, *hosts[:60]]),
                    {"command": "redirect del", "ports": "udp/8", "direction": "in"}]:
        answer = daemon.request(**request)
        assert answer["ok"], (request, answer)
        expected = expected.after(request)
    flow.passes()
    assert Model.of(daemon) == expected
    assert "the disk is full" in daemon.request("status")["refuses_changes"]
    daemon.kill()
    daemon.start()
    assert Model.of(daemon) == expected
    assert daemon.request("flush")["ok"]

    (small_disk / "ballast").unlink()
    assert daemon.request("status")["refuses_changes"] is None
    daemon.fwctl("add", "192.0.2.1")
    daemon.kill()
    daemon.start()
    assert Model.of(daemon).block.keys() == {"192.0.2.1"} == kernel.entries(daemon)


@pytest.mark.parametrize("kind", ["full", "read-only", "of another boot", "damaged"])
def test_over_a_disk_that_cannot_be_written_to_the_rules_are_in_force(net, listener, small_disk, kind):
    daemon = net.daemon(state_dir=str(small_disk / "state"), on_stop="keep" if kind == "damaged" else "detach")
    daemon.fwctl("add", BLOCKED, "--comment", "why")
    daemon.fwctl("add", "10.1.0.3", "--ttl", "1h")
    daemon.fwctl("redirect", "add", "udp/8", "tun0")
    expected = Model.of(daemon)
    daemon.stop()
    database = small_disk / "state" / "rules.db"
    if kind == "of another boot":
        with contextlib.closing(sqlite3.connect(database)) as store:
            store.execute("UPDATE meta SET value = 'another' WHERE key = 'boot_id'")
            store.commit()
    if kind == "damaged":
        os.truncate(database, 20000)
    if kind == "read-only":
        run("mount", "-o", "remount,ro", small_disk)
    else:
        (small_disk / "state" / "reserve").unlink()
        fill(small_disk)
    before = database.read_bytes()

    daemon.start()
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.is_dropped()
    assert Model.of(daemon).block.keys() == expected.block.keys() == kernel.entries(daemon)
    words = "Read-only file system" if kind == "read-only" else "the disk is full"
    assert words in daemon.request("status")["refuses_changes"]
    assert "rules cannot be changed: " in daemon.log() and words in daemon.fwctl("status").stdout
    for words_of in (["add", "10.1.0.9"], ["del", BLOCKED], ["flush"], ["redirect", "del", "udp/8"]):
        refused = daemon.fwctl(*words_of, check=False)
        assert refused.returncode == 1 and words in refused.stderr, refused.stderr
    assert Model.of(daemon).block.keys() == expected.block.keys() == kernel.entries(daemon)
    assert database.read_bytes() == before

    if kind == "read-only":
        run("mount", "-o", "remount,rw", small_disk)
    else:
        (small_disk / "ballast").unlink()
    request = {"command": "add", "prefixes": ["10.1.0.9"]}
    assert daemon.request(**request)["ok"]
    assert daemon.request("status")["refuses_changes"] is None
    daemon.kill()
    daemon.start()
    assert Model.of(daemon).block.keys() == expected.after(request).block.keys() == kernel.entries(daemon)
    assert Model.of(daemon).redirects == expected.redirects
    assert kind == "damaged" or Model.of(daemon) == expected.after(request)
    assert (kind == "damaged") == any("damaged" in path.name for path in database.parent.iterdir())


def test_the_first_start_on_a_full_disk_enforces_the_configuration(net, listener, small_disk):
    (small_disk / "state").mkdir()
    fill(small_disk)
    daemon = net.daemon(f'{ETH0}[blacklist]\naddresses = ["{BLOCKED}"]\n', state_dir=str(small_disk / "state"))
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()
    assert not daemon.request("add", prefixes=["10.1.0.9"])["ok"]
    (small_disk / "ballast").unlink()
    daemon.fwctl("add", "10.1.0.9")
    daemon.kill()
    daemon.start()
    assert kernel.entries(daemon) == {BLOCKED, "10.1.0.9"}
    assert daemon.request("status")["damage"] is None


# ---- entries with an end ----

def stored(daemon):
    with contextlib.closing(sqlite3.connect(f"file:{daemon.keys['state_dir']}/rules.db?mode=ro", uri=True)) as store:
        return store.execute("SELECT count(*) FROM block").fetchone()[0]


def test_an_entry_that_ended_leaves_the_list_the_store_and_the_kernel(net, listener):
    daemon = net.daemon()
    daemon.fwctl("add", BLOCKED, "--ttl", "1s")
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.is_dropped()
    assert stored(daemon) == 1
    wait_until(lambda: daemon.fwctl_json("list")["entries"] == [], wait_s=2)
    flow.passes()
    assert kernel.entries(daemon) == set() and stored(daemon) == 0


def test_an_entry_that_ended_without_the_daemon_leaves_the_store_with_the_next_start(net, listener):
    daemon = net.daemon()
    daemon.fwctl("add", BLOCKED, "--ttl", "1s")
    daemon.fwctl("add", "10.1.0.3", "--ttl", "1h")
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    daemon.kill()
    flow.is_dropped()
    time.sleep(1.1)
    flow.passes()
    daemon.start()
    assert [entry["prefix"] for entry in daemon.fwctl_json("list")["entries"]] == ["10.1.0.3"]
    assert kernel.entries(daemon) == {"10.1.0.3"} and stored(daemon) == 1


def test_an_end_is_the_same_after_a_restart(net, listener):
    daemon = net.daemon()
    start = time.monotonic()
    daemon.fwctl("add", BLOCKED, "--ttl", "3s")
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener, count=1)
    daemon.kill()
    daemon.start()
    flow.is_dropped()
    assert time.monotonic() - start < 3, "too slow a machine for this test"
    wait_until(lambda: daemon.fwctl_json("list")["entries"] == [], wait_s=4)
    assert 2.9 < time.monotonic() - start < 4
    flow.passes()


@pytest.mark.parametrize("alive", [True, False])
def test_a_more_specific_entry_that_ended_uncovers_the_one_that_covers_it(net, listener, alive):
    daemon = net.daemon()
    daemon.fwctl("add", "10.1.0.0/28", "--comment", "covering", "--force")
    daemon.fwctl("add", BLOCKED, "--ttl", "1s")
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.is_dropped()
    if not alive:
        daemon.kill()
    time.sleep(1.1)
    flow.is_dropped()
    if not alive:
        daemon.start()
    [entry] = daemon.fwctl_json("list")["entries"]
    assert (entry["prefix"], entry["packets"]) == ("10.1.0.0/28", 3)


def test_a_new_ttl_takes_the_place_of_the_old_one(net, listener):
    daemon = net.daemon()
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    daemon.fwctl("add", BLOCKED, "--ttl", "1s")
    daemon.fwctl("add", BLOCKED, "--ttl", "1h")
    daemon.fwctl("add", "10.1.0.3", "--ttl", "1s")
    daemon.fwctl("add", "10.1.0.3")
    daemon.kill()
    time.sleep(1.1)
    flow.is_dropped()
    daemon.start()
    entries = daemon.fwctl_json("list")["entries"]
    assert [(entry["prefix"], entry["left_s"] is None) for entry in entries] == [(BLOCKED, False), ("10.1.0.3", True)]
    daemon.fwctl("add", BLOCKED, "--ttl", "1s")
    wait_until(lambda: len(daemon.fwctl_json("list")["entries"]) == 1, wait_s=3)
    flow.passes()
