# SPDX-License-Identifier: GPL-2.0-or-later
"""A change that was acknowledged is there after a kill; one that was not is there whole or not at all."""
import contextlib
import ipaddress
import json
import os
import random
import signal
import socket
import sqlite3
import threading
import time

import pytest

from fwdtest import kernel
from fwdtest.sandbox import rounds, run
from fwdtest.traffic import ARRIVAL_WAIT_S, MARKER, Flow, Listener, udp, wait_until

ETH0 = '[[interface]]\nname = "eth0"\n'
BLOCKED = "10.1.0.2"

CHANGES, AT_ONCE = rounds(1000), 120
SOURCES = [f"10.1.0.{i}" for i in range(16, 48)]  # whose packets are tried


@pytest.fixture
def listener(net):
    with Listener(net.host, 7) as listener:
        yield listener


# ---- a model of the runtime rules ----

class Model:
    """What the rules should be after a number of changes."""

    def __init__(self, other=None):
        self.block = dict(other.block) if other else {}  # prefix: (comment, has a TTL)
        self.allow = dict(other.allow) if other else {}
        self.redirects = dict(other.redirects) if other else {}  # match: target

    def __eq__(self, other):
        return (self.block, self.allow, self.redirects) == (other.block, other.allow, other.redirects)

    def after(self, request):
        model = Model(self)
        command = request["command"]
        if command in ("add", "allow add"):
            table = model.block if command == "add" else model.allow
            table.update(dict.fromkeys(request["prefixes"], (request.get("comment"), "ttl" in request)))
        elif command in ("del", "allow del"):
            table = model.block if command == "del" else model.allow
            if all(prefix in table for prefix in request["prefixes"]):  # else it is refused
                for prefix in request["prefixes"]:
                    del table[prefix]
        elif command == "flush":
            model.block = {}
        elif command == "redirect add":
            model.redirects[request["ports"], request["direction"]] = request["target"]
        else:
            model.redirects.pop((request["ports"], request["direction"]), None)
        return model

    @classmethod
    def of(cls, daemon):
        """What the daemon says."""
        model = cls()
        for table, command in (model.block, "list"), (model.allow, "allow list"):
            for entry in daemon.request(command)["entries"]:
                table[entry["prefix"]] = entry["comment"], entry["left_s"] is not None
        for redirect in daemon.request("redirect list")["redirects"]:
            model.redirects[redirect["ports"], redirect["direction"]] = redirect["target"]
        return model

    def passing(self):
        """Those of SOURCES whose packets pass."""
        def covered(source, table):
            return any(ipaddress.ip_address(source) in network for network in table)

        block, allow = ([ipaddress.ip_network(prefix) for prefix in table if prefix.startswith("10.1.0.")]
                        for table in (self.block, self.allow))
        return {source for source in SOURCES if not covered(source, block) or covered(source, allow)}

    def __repr__(self):
        return f"<{len(self.block)} blocked, {len(self.allow)} allowed, {len(self.redirects)} redirects>"


class Changes:
    """Random changes: single ones and lists, near SOURCES and far from them."""

    def __init__(self, dice):
        self.dice = dice

    def prefix(self):
        length = self.dice.choice((28, 30, 31, 32, 32, 32))
        network = ipaddress.ip_network((self.dice.choice(SOURCES), length), strict=False)
        return str(network.network_address) if length == 32 else str(network)

    def some(self, table):
        """What is there, mostly; else the request is refused, whole."""
        there = sorted(table)
        count = min(len(there), self.dice.choice((1, 1, 1, 10, 100)))
        return self.dice.sample(there, count) + ["198.51.100.1"] * (not there or self.dice.random() < 0.1)

    def next(self, model):
        dice = self.dice
        kind = dice.choices(("add", "list", "del", "allow add", "allow del", "redirect add", "redirect del", "flush"),
                            (30, 8, 25, 12, 8, 8, 6, 1))[0]
        options = dice.choice(({}, {}, {"ttl": "1h"}, {"comment": f"note {dice.randrange(100)}"},
                               {"ttl": "2h", "comment": "both"}))
        if kind == "add" or kind == "allow add":
            return {"command": kind, "prefixes": [self.prefix()]} | (options if kind == "add" else {})
        if kind == "list":
            start = dice.randrange(1 << 16)
            prefixes = {str(ipaddress.ip_address((172 << 24) + (16 << 16) + (start + i * 7) % (1 << 20)))
                        for i in range(dice.randrange(2, 200))}
            return {"command": "add", "prefixes": sorted(prefixes | {self.prefix()})} | options
        if kind == "del" or kind == "allow del":
            return {"command": kind, "prefixes": self.some(model.block if kind == "del" else model.allow)}
        if kind == "flush":
            return {"command": "flush"}
        match = {"ports": f"udp/{dice.randrange(9000, 9008)}", "direction": dice.choice(("in", "out"))}
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
    for table, name in (model.block, "block"), (model.allow, "allow"):
        assert kernel.entries(daemon, name) == table.keys()
    passing = model.passing()
    assert senders.arriving(len(passing)) == passing
    assert {source for source in SOURCES if daemon.request("test", address=source)["verdict"] == "pass"} == passing


def change_until_killed(daemon, requests, kill_at, delay_s):
    """Sends them all, kills the daemon so long after that many answers; returns the answers that came."""
    answers = []
    with daemon.client() as client:
        def send():
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.send(b"".join(json.dumps(request).encode() + b"\n" for request in requests))

        def kill():
            time.sleep(delay_s)
            daemon.signal(signal.SIGKILL)

        sender, killer = threading.Thread(target=send), threading.Thread(target=kill)
        sender.start()
        while answer := client.answer():
            answers.append(answer)
            if len(answers) == kill_at:
                killer.start()
        killer.join()
        sender.join()
    daemon.kill()
    return answers


def test_no_acknowledged_change_of_1000_is_lost_by_kills_at_random_points(net, listener):
    seed = int(os.environ.get("FWD_SEED", time.time_ns() % 1_000_000))
    print(f"FWD_SEED={seed} repeats this run")
    dice = random.Random(seed)
    changes, model, done = Changes(dice), Model(), 0
    daemon, senders = net.daemon(), Senders(net, listener)
    while done < CHANGES:
        requests, models = [], [model]
        for _ in range(AT_ONCE):
            requests.append(changes.next(models[-1]))
            models.append(models[-1].after(requests[-1]))
        answers = change_until_killed(daemon, requests, dice.randrange(1, AT_ONCE), dice.uniform(0, 0.02))
        for request, answer, before, after in zip(requests, answers, models, models[1:]):
            assert answer["ok"] or before == after, f"{request}: {answer}"
        done += len(answers)

        daemon.start()
        model = Model.of(daemon)
        assert model in models[len(answers):], f"{len(answers)} of {len(requests)} were answered, and there are {model}"
        assert daemon.request("status")["adopted"] is True
        check_kernel(daemon, senders, model)


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
