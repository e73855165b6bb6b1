# SPDX-License-Identifier: GPL-2.0-or-later
"""Large changes while packets and other clients go on, and while the daemon is killed."""
import contextlib
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from fwdtest.client import memory_file
from fwdtest.daemon import FWCTL, SANITIZER_OPTIONS, fail_on_report
from fwdtest.rules import ETH0
from fwdtest.sandbox import SLOW, rounds
from fwdtest.stream import Stream
from fwdtest.traffic import ARRIVAL_WAIT_S, Flow, udp

LISTS = Path(os.environ.get("FWD_LISTS", Path(__file__).parents[2] / "shared" / "lists"))
PUSHED = '[[blacklist.feed]]\nname = "pushed"\n'
BLOCKED, ALLOWED = "10.1.0.200", "10.1.0.201"
MANY = 200_000
LIST_MAX_BYTES = 256 << 20  # common/address_list.h

KILLS, KILLS_WAIT_S = rounds(20), 20 * SLOW


def hosts(n, start=0):
    """So many addresses that no interface here has."""
    return [f"{100 + (i >> 22)}.{64 + (i >> 16 & 63)}.{i >> 8 & 255}.{i & 255}" for i in range(start, start + n)]


@pytest.fixture
def write(net):
    def write(name, *parts):
        path = net.sandbox.folder / name
        path.write_text("\n".join(line for part in parts for line in ([part] if isinstance(part, str) else part)))
        return path
    return write


@contextlib.contextmanager
def running(daemon, *words):
    """fwctl in the background; its end is waited for, and is a success."""
    process = subprocess.Popen([str(word) for word in (FWCTL, "-s", daemon.socket_path, *words)],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | SANITIZER_OPTIONS)
    try:
        yield process
        _, said = process.communicate(timeout=60 * SLOW)
        assert process.returncode == 0, said
    finally:
        process.kill()
        process.wait()


def packets_of(daemon, prefix):
    [entry] = daemon.request("list", prefix=prefix)["entries"]
    return entry["packets"]


# ---- packets ----

def test_large_changes_let_no_blocked_packet_pass_and_lose_no_other(net, write):
    """Nor a hit: the entry that stays counts each packet, over growth, other lists and a reload."""
    _, wire1 = net.sandbox.link(net.host, "eth1", net.peer, "wire1")
    small, large = write("small", BLOCKED, hosts(100)), write("large", BLOCKED, hosts(MANY, 1000))
    listed = write("listed", hosts(MANY, 500_000))
    rules = f'{ETH0}[[interface]]\nname = "eth1"\n{PUSHED}'
    daemon = net.daemon(rules)
    daemon.fwctl("feed", "replace", "pushed", "-f", small)
    with Stream(net.wire, blocked=BLOCKED, allowed=ALLOWED) as one, \
            Stream(wire1, port=4001, blocked=BLOCKED, allowed=ALLOWED) as other:
        for words in (["feed", "replace", "pushed", "-f", large], ["add", "-f", listed], ["del", "-f", listed],
                      ["feed", "replace", "pushed", "-f", small], ["add", "-f", listed], ["flush"]):
            daemon.fwctl(*words)
            for stream in (one, other):
                stream.wait_for(20)
        daemon.write_rules(f'{rules}[[blacklist.feed]]\nname = "listed"\nfile = "{listed}"\n')
        daemon.fwctl("reload")
        assert daemon.request("status")["blacklist"]["entries"] == MANY + 101
    one.only_arrives("allowed")
    other.only_arrives("allowed")
    assert packets_of(daemon, BLOCKED) == one.sent["blocked"] + other.sent["blocked"]


# ---- other clients ----

def test_other_clients_are_served_during_a_large_change_and_keep_what_they_added(net, listener, write):
    daemon = net.daemon(ETH0 + PUSHED)
    large = write("large", hosts(MANY))
    served, added = 0, []
    with running(daemon, "feed", "replace", "pushed", "-f", large) as bulk, daemon.client() as client:
        while bulk.poll() is None and served < 200:
            source = f"10.1.1.{served}"
            assert client.request("add", prefixes=[source])["ok"]
            added.append(source)
            net.wire.transmit(bytes(udp(net.wire, 7, source)), 1)
            assert client.request("test", address=source)["verdict"] == "drop"
            assert source in [row["prefix"] for row in client.request("list", origin="runtime")["entries"]]
            assert client.request("status")["ok"]
            served += bulk.poll() is None
    print(f"{served} rounds while the list was loaded")
    assert served >= 5
    assert not listener.packets(0, 0.2)
    assert daemon.request("status")["blacklist"]["entries"] == MANY + len(added)

    daemon.kill()
    daemon.start()
    assert {row["prefix"] for row in daemon.request("list", origin="runtime")["entries"]} == set(added)
    assert daemon.request("status")["blacklist"]["entries"] == MANY + len(added)
    for source in added:
        net.wire.transmit(bytes(udp(net.wire, 7, source)), 1)
    assert not listener.packets(0, 0.2)


# ---- kills ----

def arrivals(net, listener, sources):
    """Those of the sources whose packets arrive; ALLOWED is sent last, and always does."""
    listener.drain()
    for source in (*sources, ALLOWED):
        net.wire.transmit(bytes(udp(net.wire, 7, source) / source.encode()), 1)
    arrived, deadline = set(), time.monotonic() + ARRIVAL_WAIT_S
    while ALLOWED not in arrived:
        assert time.monotonic() < deadline, arrived
        for payload in listener.packets(1, 0.1):
            arrived.add(payload[-10:].decode())
    return arrived - {ALLOWED}


def files_of(daemon):
    state = Path(daemon.keys["state_dir"])
    return {path.name: path.stat().st_size for path in state.iterdir()}, sorted(
        path.name for path in daemon.pin_dir.rglob("*"))


@pytest.mark.parametrize("command", ["feed replace", "add"])
def test_a_kill_leaves_the_old_set_or_the_new_one_whole(net, listener, write, command):
    seed = int(os.environ.get("FWD_SEED", time.time_ns() % 1_000_000))
    print(f"FWD_SEED={seed} repeats the moments")
    dice = random.Random(seed)
    marks = ["10.1.0.210", "10.1.0.211"]
    lists = [hosts(20_000, i * 100_000) + [mark] for i, mark in enumerate(marks)]
    paths = [write(f"list{i}", part) for i, part in enumerate(lists)]
    daemon = net.daemon(ETH0 + PUSHED)

    def words(i):
        if command == "feed replace":
            return ["feed", "replace", "pushed", "-f", paths[i]]
        return ["add" if i else "del", "-f", paths[1]]

    sets = [set(lists[0]) if command == "feed replace" else set(), set(lists[1])]
    if command == "feed replace":
        daemon.fwctl(*words(0))
    began = time.monotonic()
    daemon.fwctl(*words(1))
    took_s, now, deadline = time.monotonic() - began, 1, began + KILLS_WAIT_S / 2
    daemon.stop()
    daemon.start()
    (files, pins), seen = files_of(daemon), []
    while len(seen) < KILLS and time.monotonic() < deadline:
        killer = threading.Timer(dice.uniform(0, took_s * 1.2), daemon.signal, [signal.SIGKILL])
        killer.start()
        done = daemon.fwctl(*words(1 - now), check=False)
        killer.join()
        daemon.kill()
        daemon.start()
        after = {row["prefix"] for row in daemon.request("list")["entries"]}
        assert after in sets, f"{len(after)} entries after kill {len(seen) + 1}"
        if done.returncode == 0:
            assert after == sets[1 - now], "the change was acknowledged"
        seen.append(after != sets[now])
        now = sets.index(after)
        assert arrivals(net, listener, marks) == {mark for mark in marks if mark not in after}
    print(f"{len(seen)} kills, {sum(seen)} of them after the change")
    daemon.stop()
    daemon.start()
    files_now, pins_now = files_of(daemon)
    assert set(files_now) <= set(files) and pins_now == pins
    assert sum(files_now.values()) <= 3 * sum(files.values()) + (1 << 20), (files, files_now)


# ---- lists ----

def test_a_stop_tells_who_waits_what_was_not_changed(net, write):
    daemon = net.daemon(ETH0)
    lists = [hosts(100_000, i * 100_000) for i in range(4)]

    def start(*words):
        return subprocess.Popen([str(FWCTL), "-s", str(daemon.socket_path), *words],
                                stderr=subprocess.PIPE, text=True, env=os.environ | SANITIZER_OPTIONS)

    waiting = [start("add", "-f", write(f"list{i}", part)) for i, part in enumerate(lists)]
    reload = start("reload")
    while not daemon.request("status")["blacklist"]["entries"]:
        pass
    daemon.stop()
    said = [client.communicate(timeout=60 * SLOW)[1] for client in waiting]
    text = reload.communicate(timeout=60 * SLOW)[1]
    assert not text or "fwd is stopping: nothing was changed" in text
    daemon.start()
    after = {row["prefix"] for row in daemon.request("list")["entries"]}
    for client, text, part in zip(waiting, said, lists):
        assert client.returncode in (0, 1), text
        assert after & set(part) == (set() if client.returncode else set(part)), text
    assert any("fwd is stopping: nothing was changed" in text for text in said), said


def test_real_lists_load_as_feeds_and_by_add(net):
    paths = sorted(LISTS.glob("*.txt"))
    if not paths:
        pytest.skip(f"there is no list in {LISTS}; FWD_LISTS names the folder")
    feeds = "".join(f'[[blacklist.feed]]\nname = "{path.stem}"\nfile = "{path}"\n' for path in paths)
    prefixes = [{line.strip() for line in path.read_text().splitlines()} - {""} for path in paths]
    every = set().union(*prefixes)
    daemon = net.daemon(ETH0 + feeds)
    assert [feed["entries"] for feed in daemon.fwctl_json("feed", "list")["feeds"]] == [len(part) for part in prefixes]
    assert "warning" not in daemon.log().lower()
    for path in paths:
        done = daemon.fwctl("add", "-f", path)
        assert (done.stdout, done.stderr) == ("", "")

    status = daemon.fwctl_json("status")
    blacklist = status["blacklist"]
    assert (blacklist["entries"], blacklist["runtime"]) == (len(every), len(every))
    assert status["maps"]["capacity"] >= len(every)
    assert 32 * len(every) < status["maps"]["bytes"] < 128 * len(every) + (2 << 20)
    table = daemon.fwctl("status").stdout
    assert f"{len(every):,} of 1,000,000 entries" in table and "maps:" in table


def test_hits_are_kept_over_another_list_and_over_growth(net, listener, write):
    daemon = net.daemon(ETH0 + PUSHED)
    daemon.fwctl("add", "10.1.0.202")
    daemon.fwctl("feed", "replace", "pushed", "-f", write("small", BLOCKED, "2001:db8:1::200"))
    capacity = daemon.request("status")["maps"]["capacity"]
    flows = {source: Flow(net.wire, udp(net.wire, 7, source), listener, count)
             for count, source in enumerate((BLOCKED, "10.1.0.202", "2001:db8:1::200"), start=3)}
    for flow in flows.values():
        flow.is_dropped()
    daemon.fwctl("feed", "replace", "pushed", "-f", write("large", hosts(5000), BLOCKED, "2001:db8:1::200"))
    assert daemon.request("status")["maps"]["capacity"] > max(capacity, 5000)
    for turn in (1, 2):
        assert {source: packets_of(daemon, source) for source in flows} == {
            source: turn * flow.count for source, flow in flows.items()}
        for flow in flows.values():
            flow.is_dropped(0.05)
    daemon.fwctl("add", "-f", write("more", hosts(20_000, 100_000)))
    assert {source: packets_of(daemon, source) for source in flows} == {
        source: 3 * flow.count for source, flow in flows.items()}


@pytest.mark.parametrize("words", [["feed", "replace", "pushed"], ["add"], ["del"]], ids=" ".join)
def test_a_bad_line_near_the_end_is_named_and_changes_nothing(net, write, words):
    daemon = net.daemon(ETH0 + PUSHED)
    daemon.fwctl("feed", "replace", "pushed", "-", input=f"{BLOCKED}\n")
    before = daemon.request("list")["entries"]
    path = write("bad", hosts(MANY), "10.0.0.0/33", hosts(3))
    done = daemon.fwctl(*words, "-f", path, check=False)
    assert done.returncode == 1 and f'{path}:{MANY + 1}: "10.0.0.0/33"' in done.stderr, done.stderr
    after = daemon.request("list")["entries"]
    assert [(row["prefix"], row["created_s"]) for row in after] == [(row["prefix"], row["created_s"]) for row in before]


def test_a_list_at_the_bound_is_read_and_one_byte_more_is_refused(net):
    """By a hole: what is read is a line of zeros."""
    daemon = net.daemon(ETH0 + PUSHED)
    with memory_file(size=LIST_MAX_BYTES) as fd, daemon.client() as client:
        said = client.request("feed replace", fds=[fd], name="pushed", list=True)
    assert not said["ok"] and str(LIST_MAX_BYTES) not in str(said), said
    with memory_file(size=LIST_MAX_BYTES + 1) as fd, daemon.client() as client:
        said = client.request("feed replace", fds=[fd], name="pushed", list=True)
    assert not said["ok"] and str(LIST_MAX_BYTES) in str(said), said
    path = net.sandbox.folder / "hole"
    path.touch()
    os.truncate(path, LIST_MAX_BYTES + 1)
    done = daemon.fwctl("add", "-f", path, check=False)
    assert done.returncode == 2 and str(LIST_MAX_BYTES) in done.stderr, done.stderr


# ---- a long answer ----

def test_a_long_list_begins_before_it_ends_and_can_be_stopped(net, write):
    n = 300_000
    daemon = net.daemon(ETH0 + PUSHED)
    daemon.fwctl("feed", "replace", "pushed", "-f", write("large", hosts(n)))
    before_kib = daemon.memory_kib("VmRSS")
    with daemon.client() as slow:
        slow.send(b'{"command": "list"}\n')
        first = slow.answer()
        assert first["more"] and 0 < len(first["entries"]) < n / 10
        # It waits for the reader; others do not.
        assert daemon.request("test", address=hosts(1)[0])["verdict"] == "drop"
        assert daemon.request("add", prefixes=[BLOCKED])["ok"]
    with subprocess.Popen([str(FWCTL), "-s", str(daemon.socket_path), "list"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=os.environ | SANITIZER_OPTIONS) as process:
        lines = [process.stdout.readline().split() for _ in range(4)]
        process.stdout.close()
        said = process.stderr.read().decode()
        process.wait(20)
    fail_on_report(said)
    assert lines[0][0] == b"PREFIX" and [line[0].decode() for line in lines[1:]] == [BLOCKED, *hosts(2)]
    assert daemon.request("status")["clients"] == 1
    # Far less than the answer, which is some 50 MB.
    assert daemon.memory_kib("VmRSS") - before_kib < 40 << 10
