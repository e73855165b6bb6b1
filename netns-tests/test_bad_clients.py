# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that are slow, silent, many or gone. None of them holds up another one."""
import contextlib
import json
import resource
import socket
import time
from types import SimpleNamespace

import pytest

from fwdtest.client import Client
from fwdtest.daemon import Daemon
from fwdtest.sandbox import SLOW, Sandbox, rounds
from fwdtest.traffic import wait_until

CLIENTS_MAX, REQUEST_TIMEOUT_S, REPLY_TIMEOUT_S = 1024, 30, 30  # common/protocol.h
ENTRIES = 100_000
REQUESTS = 1500  # a socket holds fewer answers
SERVED_WITHIN_S = 0.1 * SLOW

ASK = b'{"command": "test", "address": "10.0.0.1"}\n'
RULES = '[[interface]]\nname = "eth0"\n'


def start_daemon(sandbox, label, rules):
    host = sandbox.namespace(label)
    sandbox.link(host, "eth0", sandbox.namespace(f"{label}-peer"), "wire")
    return Daemon(sandbox, host, rules, label=label).start()


@pytest.fixture(scope="module", autouse=True)
def lingering():
    """Clients that do too little for as long as the other tests take, and their daemon with a long list."""
    with Sandbox() as sandbox, contextlib.ExitStack() as stack:
        feed = sandbox.folder / "feed"
        feed.write_text("\n".join(f"100.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(ENTRIES)))
        daemon = start_daemon(sandbox, "host", f'{RULES}[[blacklist.feed]]\nname = "long"\nfile = "{feed}"\n')
        started = time.monotonic()
        silent, slow, deaf, deaf_in_pieces = (stack.enter_context(daemon.client()) for _ in range(4))
        deaf.send(b'{"command": "list"}\n')
        deaf_in_pieces.send(ASK * REQUESTS)
        yield SimpleNamespace(daemon=daemon, started=started, silent=silent, slow=slow, deaf=deaf,
                              deaf_in_pieces=deaf_in_pieces)
        daemon.stop()


@pytest.fixture(scope="module")
def daemon():
    with Sandbox() as sandbox:
        daemon = start_daemon(sandbox, "host", RULES)
        daemon.request("add", prefixes=["10.0.0.0/8"], force=True)
        yield daemon
        daemon.stop()


def clients(daemon):
    """Connections but this one."""
    return daemon.request("status")["clients"] - 1


def slowest_answer_s(daemon, times=20):
    slowest = 0
    for _ in range(times):
        start = time.monotonic()
        assert daemon.request("test", address="10.0.0.1")["verdict"] in ("drop", "pass")
        slowest = max(slowest, time.monotonic() - start)
    return slowest


def test_two_hundred_silent_clients_delay_nobody(daemon):
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(daemon.client()) for _ in range(200)]
        for client in silent[::2]:
            client.send(b'{"command": ')
        wait_until(lambda: clients(daemon) == len(silent))
        assert slowest_answer_s(daemon) < SERVED_WITHIN_S
        # They are served, too, once they speak.
        silent[0].send(b'"test", "address": "10.0.0.1"}\n')
        assert silent[0].answer()["verdict"] == "drop"
    wait_until(lambda: clients(daemon) == 0)


def test_a_reader_that_reads_nothing_of_a_long_list_delays_nobody(lingering):
    assert clients(lingering.daemon) >= 2
    assert slowest_answer_s(lingering.daemon) < SERVED_WITHIN_S


def test_who_reads_a_long_list_slowly_delays_nobody_and_gets_all_of_it(lingering):
    with lingering.daemon.client() as reader:
        reader.send(b'{"command": "list"}\n')
        entries, more, slowest = [], True, 0
        while more:
            answer = reader.answer()
            entries += [row["prefix"] for row in answer["entries"]]
            more = answer.get("more", False)
            if len(entries) % 10_000 == 0:
                slowest = max(slowest, slowest_answer_s(lingering.daemon, 2))
    assert len(entries) == len(set(entries)) == ENTRIES
    assert slowest < SERVED_WITHIN_S


def test_who_vanishes_within_a_long_list_leaves_nothing(lingering):
    daemon = lingering.daemon
    before, files = clients(daemon), daemon.descriptors()
    for lines in (0, 1, 5):
        with daemon.client() as reader:
            reader.send(b'{"command": "list"}\n' * 3)
            for _ in range(lines):
                assert reader.answer()["more"]
    wait_until(lambda: clients(daemon) == before and daemon.descriptors() <= files)


def test_a_list_goes_on_where_it_was_while_entries_come_and_go(daemon):
    """What is there all the time is shown exactly once."""
    stay = [f"10.1.{i >> 8}.{i & 255}" for i in range(3000)]
    for at in range(0, len(stay), 1000):
        daemon.request("add", prefixes=stay[at:at + 1000], force=True)
    with daemon.client() as reader:
        reader.send(b'{"command": "list", "prefix": "10.1.0.0/16"}\n')
        shown, turn, more = [], 0, True
        while more:
            answer = reader.answer()
            shown += [row["prefix"] for row in answer["entries"]]
            more = answer.get("more", False)
            changing = [f"10.1.{block}.255" for block in range(128, 256)]
            daemon.request(("add", "del")[turn % 2], prefixes=changing)
            turn += 1
    assert turn > 3 and [prefix for prefix in shown if prefix in set(stay)] == stay
    for at in range(0, len(stay), 1000):
        daemon.request("del", prefixes=stay[at:at + 1000])


def test_one_connection_more_than_the_bound_is_told_busy_and_service_resumes(daemon):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * CLIENTS_MAX:
        pytest.skip(f"{hard} open files are too few for {CLIENTS_MAX} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Client(daemon.socket_path)) for _ in range(CLIENTS_MAX)]
        for _ in range(3):
            with daemon.client() as one_more:
                answer = one_more.answer()
                assert answer["ok"] is False and answer["error"]["code"] == "busy"
                assert one_more.answer() is None
        done = daemon.fwctl("status", check=False)
        assert done.returncode == 1 and "too many connections" in done.stderr
        assert held[0].request("status")["clients"] == CLIENTS_MAX
        assert held[-1].request("test", address="10.0.0.1")["verdict"] == "drop"
        held[7].close()
        wait_until(lambda: held[0].request("status")["clients"] == CLIENTS_MAX - 1)
        assert daemon.request("test", address="10.0.0.1")["verdict"] == "drop"
    wait_until(lambda: clients(daemon) == 0)


def test_many_clients_at_once_all_get_their_answers(daemon):
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(daemon.client()) for _ in range(100)]
        for i, client in enumerate(crowd):
            client.send(json.dumps({"command": "test", "address": f"{10 + i % 2}.0.0.1"}).encode() + b"\n")
        assert [client.answer()["verdict"] for client in crowd] == ["drop", "pass"] * 50


def test_connections_one_after_another_leave_nothing_behind(daemon):
    """A hundred thousand. Some ask, some leave at once, some in the middle; 10 s under a sanitizer."""
    address = str(daemon.socket_path)

    def connect(times):
        for i in range(times):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(address)
                if i % 10 == 1:
                    continue
                connection.send(ASK[:20] if i % 10 == 2 else ASK)
                if i % 10 > 2:
                    assert connection.recv(4096).startswith(b'{"ok"')

    connect(10_000)
    memory, files = daemon.memory_kib("VmRSS"), daemon.descriptors()
    connect(rounds(90_000))
    wait_until(lambda: clients(daemon) == 0 and daemon.descriptors() <= files)
    assert daemon.memory_kib("VmRSS") - memory < 4 << 10


@pytest.mark.skipif(SLOW > 1, reason="the tests before it take longer here than what it waits for")
def test_who_says_or_takes_nothing_for_thirty_seconds_is_closed(lingering):
    """Bytes of a request do not put off its end: the slow client sends one a second."""
    daemon = lingering.daemon
    while (left_s := lingering.started + REQUEST_TIMEOUT_S - 2 - time.monotonic()) > 0:
        lingering.slow.send(b" ")
        time.sleep(min(left_s, 1))
    assert clients(daemon) == 4
    wait_until(lambda: clients(daemon) == 0, wait_s=2 + max(REQUEST_TIMEOUT_S, REPLY_TIMEOUT_S) / 5)
    assert lingering.silent.rest() == lingering.slow.rest() == b""
    assert 0 < lingering.deaf.rest().count(b'"prefix"') < ENTRIES
    assert 0 < lingering.deaf_in_pieces.rest().count(b'"verdict"') < REQUESTS
