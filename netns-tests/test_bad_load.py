# SPDX-License-Identifier: GPL-2.0-or-later
"""A thousand clients, lists that nobody reads, and changes without an end: what the daemon needs stays bounded."""
import contextlib
import json
import random
import resource
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fwdtest.client import Client
from fwdtest.daemon import Daemon
from fwdtest.sandbox import Sandbox
from fwdtest.traffic import wait_until

CLIENTS_MAX = 1024  # common/protocol.h
LOOKED_AT_ONCE = 16384  # daemon/commands_read.c
ENTRIES = 40_000
COMMENTED, COMMENT = 2000, "x" * 128
DEAF, SAMPLE = 120, 12  # clients, and of how many of them each is looked at
BATCHES, BATCH = 1000, 100
KEPT_KIB = 16 << 10  # what an allocator keeps, under a sanitizer
STATE_MAX = 12 << 20  # bytes of the state directory: the log of the database, and what is not folded yet

RULES = '[[interface]]\nname = "eth0"\n'


@pytest.fixture(scope="module")
def net():
    """A daemon with a long list as a feed. A sanitizer keeps little of the memory that is free."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files[1] < 2 * CLIENTS_MAX:
        pytest.skip(f"{files[1]} open files are too few for {CLIENTS_MAX} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    with Sandbox() as sandbox:
        host = sandbox.namespace("host")
        sandbox.link(host, "eth0", sandbox.namespace("peer"), "wire")
        feed = sandbox.folder / "feed"
        feed.write_text("\n".join(f"100.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(ENTRIES)))
        daemon = Daemon(sandbox, host, f'{RULES}[[blacklist.feed]]\nname = "long"\nfile = "{feed}"\n',
                        env={"ASAN_OPTIONS": "exitcode=99:quarantine_size_mb=1"}).start()
        yield SimpleNamespace(daemon=daemon)
        daemon.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


def clients(daemon):
    """Connections but this one."""
    return daemon.request("status")["clients"] - 1


def crowd(daemon, stack, count):
    return [stack.enter_context(Client(daemon.socket_path)) for _ in range(count)]


def line(command, **fields):
    return json.dumps({"command": command} | fields).encode() + b"\n"


def work(number, client):
    """What one of many clients asks for, in a single write."""
    address = f"11.{number >> 8}.{number & 255}.1"
    client.send(line("test", address="100.0.0.1") + line("add", prefixes=[address]) + line("test", address=address)
                + line("del", prefixes=[address]) + line("status"))


def check(client):
    answers = [client.answer() for _ in range(5)]
    assert all(answer["ok"] for answer in answers), answers
    assert [answers[0]["verdict"], answers[2]["verdict"]] == ["drop", "drop"]
    assert (answers[1]["added"], answers[3]["deleted"]) == (1, 1)


def rests(daemon):
    """It does nothing: what it could send has been sent."""
    def ticks():
        return Path(f"/proc/{daemon.pid}/stat").read_text().rpartition(")")[2].split()[11:13]

    before = ticks()
    time.sleep(0.3)
    return ticks() == before


def rows_of(client):
    """Of the list that it has asked for."""
    answer = client.answer()
    rows = len(answer["entries"])
    while answer.get("more"):
        answer = client.answer()
        rows += len(answer["entries"])
    return rows


def serve_a_thousand(daemon):
    """As many connections as there may be."""
    with contextlib.ExitStack() as stack:
        silent = crowd(daemon, stack, CLIENTS_MAX // 2)
        for client in silent[::2]:
            client.send(b'{"command": "test", "addr')
        busy = crowd(daemon, stack, CLIENTS_MAX // 2)
        for _ in range(2):
            with daemon.client() as one_more:
                answer = one_more.answer()
                assert answer["error"]["code"] == "busy" and "too many connections" in answer["error"]["message"]
        for number, client in enumerate(busy):
            work(number, client)
        for client in busy:
            check(client)
        assert busy[0].request("status")["clients"] == CLIENTS_MAX
        silent[0].send(b'ess": "100.0.0.1"}\n')
        assert silent[0].answer()["verdict"] == "drop"
    wait_until(lambda: clients(daemon) == 0)


def test_of_a_thousand_clients_half_are_silent_and_all_others_are_served(net):
    """Once more, they need no more than the first time."""
    daemon = net.daemon
    files = daemon.descriptors()
    serve_a_thousand(daemon)
    memory = daemon.memory_kib("VmRSS")
    serve_a_thousand(daemon)
    assert daemon.memory_kib("VmRSS") - memory < KEPT_KIB
    wait_until(lambda: daemon.descriptors() <= files)
    assert daemon.request("status")["blacklist"]["entries"] == ENTRIES


def test_lists_that_nobody_reads_take_no_memory_and_delay_nobody(net):
    """A line of each is made once the one before is on its way; and each is whole, however late it is read."""
    daemon = net.daemon
    for at in range(0, COMMENTED, 1000):
        prefixes = [f"11.{i >> 8}.{i & 255}.1" for i in range(at, at + 1000)]
        assert daemon.request("add", prefixes=prefixes, comment=COMMENT)["ok"]
    memory = daemon.memory_kib("VmRSS")
    with contextlib.ExitStack() as stack:
        deaf = crowd(daemon, stack, DEAF)
        for client in deaf:
            client.send(line("list", origin="runtime"))
        assert daemon.request("test", address="100.0.0.1")["verdict"] == "drop"
        assert daemon.fwctl("status").returncode == 0
        wait_until(lambda: rests(daemon), wait_s=20)
        assert daemon.memory_kib("VmRSS") - memory < KEPT_KIB
        for command in ("add", "del"):
            assert daemon.request(command, prefixes=["10.99.0.1"])["ok"]
        assert [rows_of(client) for client in deaf[::SAMPLE]] == [COMMENTED] * (DEAF // SAMPLE)
    wait_until(lambda: clients(daemon) == 0)
    daemon.request("flush")


def test_a_list_of_few_among_many_is_made_in_steps(net):
    """It looks at so many rules at once: others are served in between."""
    daemon = net.daemon
    daemon.request("add", prefixes=["10.0.0.1", "203.0.113.1"])
    with daemon.client() as client:
        client.send(line("list", origin="runtime"))
        lines = [client.answer()]
        while lines[-1].get("more"):
            lines.append(client.answer())
    assert [row["prefix"] for answer in lines for row in answer["entries"]] == ["10.0.0.1", "203.0.113.1"]
    assert len(lines) == 1 + ENTRIES // LOOKED_AT_ONCE
    shown = daemon.fwctl("list", "--origin", "runtime").stdout
    assert "10.0.0.1" in shown and "203.0.113.1" in shown and "100." not in shown
    daemon.request("flush")


def state_bytes(daemon):
    with contextlib.suppress(FileNotFoundError):
        return sum(path.stat().st_size for path in (daemon.folder / "state").rglob("*") if path.is_file())
    return 0  # it is being written; the next look will do


def test_a_thousand_batches_leave_a_bounded_state_and_the_right_rules(net):
    """Random ones of few addresses, so that most are there already; killed, they are all there; deleted, none."""
    daemon, rng = net.daemon, random.Random(1)
    pool, there, largest = [f"11.{i >> 8}.{i & 255}.1" for i in range(4000)], set(), 0
    with daemon.client() as client:
        for number in range(BATCHES):
            batch = rng.sample(pool, BATCH)
            assert client.request("add", prefixes=batch)["ok"]
            there.update(batch)
            if number % 50 == 0:
                largest = max(largest, state_bytes(daemon))
    assert largest < STATE_MAX
    daemon.kill()
    daemon.start()
    runtime = daemon.request("list", origin="runtime")["entries"]
    assert {row["prefix"] for row in runtime} == there and len(runtime) == len(there)
    with daemon.client() as client:
        everything = sorted(there)
        for at in range(0, len(everything), 1000):
            assert client.request("del", prefixes=everything[at:at + 1000])["ok"]
    daemon.kill()
    daemon.start()
    assert daemon.request("list", origin="runtime")["entries"] == []
    assert daemon.request("status")["blacklist"]["entries"] == ENTRIES
    assert state_bytes(daemon) < STATE_MAX
