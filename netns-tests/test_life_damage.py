# SPDX-License-Identifier: GPL-2.0-or-later
"""Damaged files of rules: the daemon starts, says so, keeps them, and has packets see what they saw before."""
import contextlib
import ipaddress
import json
import os
import random
import re
import sqlite3
import time
from pathlib import Path

import pytest

from fwdtest import kernel
from fwdtest.client import memory_file
from fwdtest.daemon import Daemon
from fwdtest.rules import ETH0
from fwdtest.sandbox import run
from fwdtest.traffic import Flow, udp, wait_until

BLOCKED = "10.1.0.2"
BULK = [f"172.16.{i // 256}.{i % 256}" for i in range(8000)]


def redirects(daemon):
    return {(row["ports"], row["direction"], row["target"]) for row in daemon.request("redirect list")["redirects"]}


def runtime(daemon, command="list"):
    """{prefix: comment}"""
    return {row["prefix"]: row["comment"] for row in daemon.request(command)["entries"] if row["origin"] == "runtime"}


class Host:
    """A daemon with rules of every kind, which is killed, and started over what was done to its files."""

    def __init__(self, net, listener):
        self.daemon = net.daemon(f'{ETH0}[blacklist]\naddresses = ["192.0.2.99"]\n')
        self.state = self.daemon.folder / "state"
        self.blocked = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
        self.free = Flow(net.wire, udp(net.wire, 7, "10.1.0.5"), listener)
        for request in ({"command": "add", "prefixes": [BLOCKED], "comment": "why"},
                        {"command": "add", "prefixes": [f"192.0.2.{i}" for i in range(64)]},
                        {"command": "add", "prefixes": ["2001:db8:ff00::/40"], "ttl": "1h"},
                        {"command": "add", "prefixes": ["10.9.0.0/24"]},
                        {"command": "del", "prefixes": ["192.0.2.7"]},
                        {"command": "allow add", "prefixes": ["203.0.113.7"]},
                        {"command": "redirect add", "ports": "udp/9000", "target": "tun0", "direction": "in"},
                        {"command": "redirect add", "ports": "udp/9001", "target": "tun0", "direction": "out"},
                        {"command": "redirect del", "ports": "udp/9001", "direction": "out"}):
            self.do(**request)
        # Which fwd spares, and nobody allowed.
        net.host.ip("address", "add", "10.9.0.1/32", "dev", "eth0")
        wait_until(lambda: "10.9.0.1" in kernel.entries(self.daemon, "allow"))

    def do(self, command, **fields):
        answer = self.daemon.request(command, **fields)
        assert answer["ok"], answer

    def content(self):
        return (set(runtime(self.daemon)), set(runtime(self.daemon, "allow list")), redirects(self.daemon),
                kernel.entries(self.daemon), kernel.entries(self.daemon, "allow"))

    def damaged_files(self):
        return {path.name: path.stat().st_size for path in self.state.glob("rules.db.damaged-*")}

    def survive(self, damage, before=None):
        """Over the damage everything is as it was, and later changes work. Returns what status says of it."""
        before, kept = before or self.content(), self.damaged_files()
        self.daemon.kill()
        damage(self.state)
        files = {path.name: path.read_bytes() for path in self.state.glob("rules.db*") if "damaged" not in path.name}
        self.daemon.start()
        assert self.content() == before
        self.blocked.is_dropped(0.05)
        self.free.passes()
        status = self.daemon.request("status")
        assert status["adopted"] is True and status["refuses_changes"] is None
        assert before[0] - runtime(self.daemon).keys() == set()
        said = status["damage"]
        if said:
            path = Path(re.search(r"kept as (\S+);", said)[1])
            assert path.name not in kept and path.read_bytes() == files["rules.db"]
            assert said in self.daemon.log()
            assert said in " ".join(self.daemon.fwctl("status").stdout.split())
        added = f"198.51.100.{random.randrange(256)}"
        self.do("add", prefixes=[added])
        self.do("del", prefixes=[added])
        self.do("redirect add", ports="udp/9002", target="tun0", direction="in")
        self.do("redirect del", ports="udp/9002", direction="in")
        return said

    def is_whole_after_a_restart(self):
        before = self.content()
        self.daemon.kill()
        self.daemon.start()
        assert self.content() == before
        assert self.daemon.request("status")["damage"] is None


@pytest.fixture
def host(net, listener):
    return Host(net, listener)


def truncated(name, share):
    def damage(state):
        path = state / name
        os.truncate(path, int(path.stat().st_size * share))
    return damage


def overwritten(name, start, size):
    def damage(state):
        with open(state / name, "r+b") as file:
            file.seek(start)
            file.write(b"\xa5" * size)
    return damage


def moved_into_the_database(damage):
    """The log is part of it first, as after a clean stop."""
    def both(state):
        with contextlib.closing(sqlite3.connect(state / "rules.db")) as store:
            store.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        damage(state)
    return both


def without(name):
    return lambda state: (state / name).unlink()


def one_key_changed(state):
    with contextlib.closing(sqlite3.connect(state / "rules.db")) as store:
        store.execute("UPDATE block SET prefix = x'04c000030500000000000000000000000020' "
                      "WHERE prefix = x'040a01000200000000000000000000000020'")
        store.execute("UPDATE redirect SET target = 'tun1'")
        store.commit()


def test_what_packets_see_is_recovered_whatever_happened_to_the_database(host):
    said = {}
    for name, damage in {
            "header": overwritten("rules.db", 0, 100),
            "page": moved_into_the_database(overwritten("rules.db", 4096, 4096)),
            "all": overwritten("rules.db", 0, 60000),
            "empty": truncated("rules.db", 0),
            "half": moved_into_the_database(truncated("rules.db", 0.5)),
            "most": moved_into_the_database(truncated("rules.db", 0.75)),
            "id": moved_into_the_database(overwritten("rules.db", 68, 4)),
            "log empty": truncated("rules.db-wal", 0),
            "half a log": truncated("rules.db-wal", 0.5),
            "log cut off": truncated("rules.db-wal", 0.97),
            "log changed": overwritten("rules.db-wal", 5000, 1),
            "no log": without("rules.db-wal"),
            "another key": moved_into_the_database(one_key_changed)}.items():
        said[name] = host.survive(damage)
    host.is_whole_after_a_restart()
    assert all(said.values()), said
    assert "the file is empty" in said["empty"] and "application id" in said["id"]
    assert "lacks the last" in said["half a log"] and "never were in force" in said["another key"]
    assert len([path for path in host.damaged_files() if path.endswith("Z")]) == 8


def test_what_somebody_took_out_of_the_maps_is_put_back_by_a_start(host):
    """The database is whole: it is not the maps that say which rules there are."""
    before = host.content()
    redirects_pin = host.daemon.pin_dir / "current" / "redirects"
    for row in json.loads(run("bpftool", "-j", "map", "dump", "pinned", redirects_pin).stdout):
        key, value = ([str(int(byte, 16)) for byte in row[name]] for name in ("key", "value"))
        run("bpftool", "map", "update", "pinned", redirects_pin, "key", *key, "value", *["0"] * len(value))
    host.daemon.kill()
    host.daemon.start()
    assert host.content() == before
    assert host.daemon.request("status")["damage"] is None
    assert host.daemon.fwctl("verify").stdout.startswith("all agree: ")


def test_a_database_that_is_missing_is_made_again_from_what_packets_see(host):
    before = host.content()
    host.daemon.stop()
    for path in host.state.glob("rules.db*"):
        path.unlink()
    host.daemon.start()
    assert host.content() == before
    assert "was missing; " in host.daemon.request("status")["damage"]


def test_what_was_forced_and_can_still_be_read_is_not_spared(host):
    host.do("add", prefixes=["10.9.0.0/30"], force=True)
    host.do("del", prefixes=["10.9.0.0/24"])
    assert kernel.entries(host.daemon, "allow") == {"203.0.113.7"}
    assert host.survive(moved_into_the_database(overwritten("rules.db", 68, 4)))


def test_comments_ages_and_ends_are_those_that_can_still_be_read(host):
    before = host.daemon.request("list", origin="runtime")["entries"]
    host.survive(moved_into_the_database(overwritten("rules.db", 68, 4)))
    after = host.daemon.request("list", origin="runtime")["entries"]
    for old, new in zip(before, after, strict=True):
        assert [new[key] for key in ("prefix", "comment", "created_s")] == [
            old[key] for key in ("prefix", "comment", "created_s")]
        assert (new["left_s"] is None) == (old["left_s"] is None)
        assert new["left_s"] is None or 0 <= old["left_s"] - new["left_s"] < 60


@pytest.mark.parametrize("damage", [truncated, overwritten, without])
def test_a_large_change_whose_file_is_damaged_is_recovered(host, damage):
    """Killed before it became rows of the database."""
    block, allow, redirected, in_kernel, in_kernel_allow = host.content()
    after = block | set(BULK), allow, redirected, in_kernel | set(BULK), in_kernel_allow
    with memory_file("\n".join(BULK).encode()) as fd, host.daemon.client() as client:
        assert client.request("add", fds=[fd], list=True, comment="bulk")["ok"]

    def damage_file(state):
        [path] = (state / "bulk").glob("*")
        name = path.relative_to(state)
        {truncated: truncated(name, 0.3), overwritten: overwritten(name, 40000, 1), without: without(name)}[damage](state)

    assert "bulk/" in host.survive(damage_file, after)


def test_without_the_kernel_s_rules_those_that_can_be_read_are_enforced(net, listener):
    """As after a reboot."""
    daemon = net.daemon(on_stop="detach")
    daemon.fwctl("add", BLOCKED, "--comment", "first")
    daemon.fwctl("add", "-", input="\n".join(BULK[:3000]))
    path = daemon.folder / "state" / "rules.db"
    with contextlib.closing(sqlite3.connect(path)) as store:
        wait_until(lambda: store.execute("SELECT count(*) FROM bulk").fetchone() == (0,))
    daemon.stop()
    key, content = b"\x04" + ipaddress.ip_address(BULK[1500]).packed, path.read_bytes()
    [leaf] = [at for at in range(0, len(content), 4096) if content[at] == 10 and key in content[at:at + 4096]]
    overwritten("rules.db", leaf, 4096)(path.parent)
    daemon.start()
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()
    entries = runtime(daemon)
    assert entries[BLOCKED] == "first" and 100 < len(entries) < 3001
    assert kernel.entries(daemon) == entries.keys()
    assert "nothing in the kernel to compare" in daemon.request("status")["damage"]


@pytest.mark.parametrize("size", [0, 1000, 1011])
def test_a_damaged_list_of_a_feed_is_recovered_from_what_packets_see(net, listener, size):
    daemon = net.daemon(ETH0 + '[[blacklist.feed]]\nname = "given"\n')
    daemon.fwctl("add", "192.0.2.1")
    daemon.fwctl("feed", "replace", "given", "-", input="\n".join([BLOCKED, *BULK[:500]]))
    daemon.kill()
    path = daemon.folder / "state" / "feeds" / "given.list"
    os.truncate(path, size)
    damaged = path.read_bytes()
    for _ in range(2):
        daemon.start()
        Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped(0.05)
        [feed] = daemon.request("feed list")["feeds"]
        assert feed["entries"] == 501 and feed["replaced"] is True
        assert runtime(daemon).keys() == {"192.0.2.1"}
        assert path.with_name("given.list.damaged").read_bytes() == damaged
        daemon.kill()
    assert daemon.log().count("the damaged list is kept as") == 1


def test_a_rule_that_ended_is_not_recovered(net):
    daemon = net.daemon()
    daemon.fwctl("add", "10.1.0.3", "--ttl", "1s")
    daemon.fwctl("add", "10.1.0.4")
    daemon.kill()
    overwritten("rules.db", 0, 100)(daemon.folder / "state")
    time.sleep(1.1)
    daemon.start()
    assert runtime(daemon).keys() == {"10.1.0.4"} == kernel.entries(daemon)


@pytest.mark.parametrize("sql, words", [
    ("PRAGMA application_id = 4711; CREATE TABLE recipes (name TEXT)", "another program"),
    ("CREATE TABLE recipes (name TEXT)", "another program"),
    ("PRAGMA application_id = 6715236; PRAGMA user_version = 9999", "a newer fwd"),
])
def test_a_database_of_another_program_or_a_newer_fwd_is_left_alone(net, sql, words):
    daemon = Daemon(net.sandbox, net.host, ETH0)
    state = daemon.folder / "state"
    state.mkdir()
    with contextlib.closing(sqlite3.connect(state / "rules.db")) as store:
        store.executescript(sql)
    before = (state / "rules.db").read_bytes()
    with pytest.raises(AssertionError, match=words):
        daemon.start()
    assert {path.name for path in state.iterdir()} == {"rules.db"}
    assert (state / "rules.db").read_bytes() == before
