# SPDX-License-Identifier: GPL-2.0-or-later
"""Long lists in one step, and what is counted of the entries and interfaces."""
import os
import socket
import struct
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from fwdtest.daemon import Daemon
from fwdtest.sandbox import Sandbox
from fwdtest.traffic import Capture, Flow, Listener, rises, udp

LISTS = Path(os.environ.get("FWD_LISTS", Path(__file__).parents[2] / "shared" / "lists"))
RULES = '[[interface]]\nname = "eth0"\n'

MANY = 100_000
FIRST, LAST = "10.1.0.70", "10.1.0.71"


def many(n=MANY):
    """So many prefixes, every tenth of them IPv6."""
    for i in range(n):
        if i % 10:
            yield f"100.{64 + (i >> 16)}.{i >> 8 & 255}.{i & 255}"
        else:
            yield f"2001:db8:{1 + (i >> 16):x}:{1 + i // 10:x}::/64"


@pytest.fixture(scope="module")
def shared_host():
    """One daemon for many tests, each of which finds it without rules."""
    with Sandbox() as sandbox:
        host, peer = sandbox.namespace("host"), sandbox.namespace("peer")
        eth0, wire = sandbox.link(host, "eth0", peer, "wire", queues=1)
        daemon = Daemon(sandbox, host, RULES).start()
        yield SimpleNamespace(host=host, eth0=eth0, wire=wire, daemon=daemon, folder=sandbox.folder)
        daemon.stop()


@pytest.fixture
def host(shared_host):
    yield shared_host
    shared_host.daemon.request("flush")


def entries(daemon):
    return daemon.request("status")["blacklist"]["entries"]


def test_a_hundred_thousand_lines_are_added_and_deleted_in_one_step(host):
    daemon, path = host.daemon, host.folder / "list"
    prefixes = list(many())
    path.write_text("# from a feed\n" + "\r\n".join(reversed(prefixes)) + "\n")
    done = daemon.fwctl("add", "-f", path, "--comment", "feed", "--ttl", "1h")
    assert (done.stdout, done.stderr) == ("", "")
    rows = daemon.request("list")["entries"]
    assert {row["prefix"] for row in rows} == set(prefixes) and len(rows) == MANY
    assert {row["comment"] for row in rows} == {"feed"}
    assert daemon.fwctl("test", prefixes[MANY // 2 + 1], check=False).returncode == 1

    # The same again changes the end and the comment, and what differs is added.
    daemon.fwctl("add", "-", input="\n".join(prefixes[1:]) + "\n192.0.2.1\n")
    assert entries(daemon) == MANY + 1
    [row] = daemon.request("list", prefix=prefixes[1])["entries"]
    assert (row["left_s"], row["comment"]) == (None, None)

    path.write_text("\n".join(prefixes))
    daemon.fwctl("del", "-f", path)
    assert [row["prefix"] for row in daemon.request("list")["entries"]] == ["192.0.2.1"]
    daemon.fwctl("del", "-", input="192.0.2.1 # the rest\n")
    assert entries(daemon) == 0


@pytest.mark.parametrize("command", ["add", "del"])
def test_a_bad_line_in_the_middle_is_named_and_changes_nothing(host, command):
    daemon = host.daemon
    daemon.request("add", prefixes=["192.0.2.1"])
    lines = list(many())
    lines[MANY // 2] = "10.0.0.300"
    path = host.folder / "bad"
    path.write_text("\n".join(lines))
    for name, arguments, options in (("standard input", ["-"], {"input": "\n".join(lines)}), (path, ["-f", path], {})):
        done = daemon.fwctl(command, *arguments, check=False, **options)
        assert done.returncode == 1
        assert f'{name}:{MANY // 2 + 1}: "10.0.0.300" is not' in done.stderr
        assert [row["prefix"] for row in daemon.request("list")["entries"]] == ["192.0.2.1"]


def test_deleting_a_list_of_which_one_is_not_there_deletes_none(host):
    daemon = host.daemon
    present = list(many(1000))
    daemon.fwctl("add", "-", input="\n".join(present))
    done = daemon.fwctl("del", "-", input="\n".join(present + ["192.0.2.9"]), check=False)
    assert done.returncode == 1 and "192.0.2.9 is not blocked" in done.stderr
    assert entries(daemon) == 1000


@pytest.mark.parametrize("name", ["ipsum-hosts.txt", "bitwire-outbound.txt"])
def test_a_public_list_is_taken_as_it_is(host, name):
    if not (LISTS / name).exists():
        pytest.skip(f"there is no {name} in {LISTS}; FWD_LISTS names the folder")
    prefixes = {line.strip() for line in (LISTS / name).read_text().splitlines()}
    host.daemon.fwctl("add", "-f", LISTS / name)
    assert entries(host.daemon) == len(prefixes)
    for prefix in list(prefixes)[::len(prefixes) // 50]:
        assert host.daemon.request("test", address=prefix.split("/")[0])["verdict"] == "drop"
    assert host.daemon.request("flush")["deleted"] == len(prefixes)


# ---- one moment ----


class Alternating(threading.Thread):
    """Sends numbered packets from FIRST and LAST in turns until it is told to stop."""

    def __init__(self, wire):
        super().__init__()
        self._frames = [bytes(udp(wire, 7, source)) for source in (FIRST, LAST)]
        self._socket = wire.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._socket.bind((wire.name, 0))
        self._enough = threading.Event()
        self.sent = 0

    def run(self):
        # One processor, so that the packets wait in one line behind each other.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        while not self._enough.is_set():
            frame = self._frames[self.sent % 2]
            self._socket.send(frame + struct.pack("!I", self.sent))
            self.sent += 1
            time.sleep(0.0001)

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self._enough.set()
        self.join()
        self._socket.close()


def test_a_list_takes_effect_at_one_moment(host):
    """FIRST is the first line and LAST the last. No packet of either passes once one was dropped, and back."""
    daemon = host.daemon
    lines = "\n".join([FIRST, *many(50_000), LAST])
    with Capture(host.eth0) as capture:
        capture.make_room(64 << 20)
        before = daemon.verdicts()
        with Alternating(host.wire) as flood:
            time.sleep(0.2)
            daemon.fwctl("add", "-", input=lines)
            time.sleep(0.2)
            middle = flood.sent
            hits = sum(daemon.request("list", prefix=source)["entries"][0]["packets"] for source in (FIRST, LAST))
            daemon.fwctl("del", "-", input=lines)
            time.sleep(0.2)
        passed = [struct.unpack("!I", frame[-4:])[0] for frame in capture.packets(0, 0.2)]
        counts = {verdict: count - before.get(("eth0", "xdp", verdict), 0)
                  for (_, hook, verdict), count in daemon.verdicts().items() if hook == "xdp"}
    dropped = sorted(set(range(flood.sent)) - set(passed))
    # Each packet that did not arrive was dropped by an entry, and they are all next to each other.
    assert len(dropped) == counts["drop"] >= hits > 0
    assert dropped == list(range(dropped[0], dropped[-1] + 1))
    assert 0 < dropped[0] < middle < dropped[-1] < flood.sent - 1


# ---- what is counted ----


def test_counters_are_what_was_sent(host):
    daemon = host.daemon
    with Listener(host.host, 7) as listener:
        passing, dropped = (Flow(host.wire, udp(host.wire, 7, source), listener, count)
                            for source, count in ((host.wire.ipv4, 7), ("203.0.113.9", 5)))
        daemon.request("add", prefixes=["203.0.113.0/24"])
        before = {verdict: count for verdict, count in xdp_counts(daemon).items()}
        passing.passes()
        dropped.is_dropped()
    after = xdp_counts(daemon)
    risen = {verdict: (after[verdict]["packets"] - before[verdict]["packets"],
                       after[verdict]["bytes"] - before[verdict]["bytes"]) for verdict in after}
    sizes = {"pass": (7, 7 * len(passing.frame)), "drop": (5, 5 * len(dropped.frame))}
    assert risen == {verdict: sizes.get(verdict, (0, 0)) for verdict in after}
    [row] = daemon.fwctl_json("list")["entries"]
    assert (row["packets"], row["bytes"]) == sizes["drop"]
    assert abs(time.time() - row["last_hit_s"]) <= 2 and row["age_s"] <= 2 and abs(time.time() - row["created_s"]) <= 3


def xdp_counts(daemon):
    [interface] = daemon.fwctl_json("stats")["interfaces"]
    [verdicts] = [hook["verdicts"] for hook in interface["hooks"] if hook["hook"] == "xdp"]
    return verdicts


def test_the_last_hit_is_the_last(host):
    """True to a second, also when it is asked for later."""
    daemon = host.daemon
    daemon.request("add", prefixes=["203.0.113.9"])

    def last_hit_s():
        return daemon.request("list", prefix="203.0.113.9")["entries"][0]["last_hit_s"]

    with Listener(host.host, 7) as listener:
        flow = Flow(host.wire, udp(host.wire, 7, "203.0.113.9"), listener)
        for pause_s in (0, 2.1):
            time.sleep(pause_s)
            before = time.time()
            with rises(daemon, {("eth0", "xdp", "drop"): 3}):
                flow.is_dropped()
            assert before - 1.5 <= last_hit_s() <= time.time()
    time.sleep(1.1)
    assert abs(last_hit_s() - before) <= 1.5


def test_list_shows_a_prefix_and_what_is_inside_it_or_one_origin(net):
    (net.sandbox.folder / "feed").write_text("10.0.1.0/24\n10.0.0.7\n")
    daemon = net.daemon(f'{RULES}[blacklist]\naddresses = ["10.0.0.0/16", "2001:db8::/32"]\n'
                        f'[[blacklist.feed]]\nname = "drop"\nfile = "{net.sandbox.folder}/feed"\n')
    daemon.fwctl("add", "10.0.0.7", "10.0.0.0/8", "2001:db8::1", "--force")

    def rows(*arguments):
        return [(row["prefix"], row["origin"]) for row in daemon.fwctl_json("list", *arguments)["entries"]]

    assert rows() == [
        ("10.0.0.0/8", "runtime"), ("10.0.0.0/16", "config"), ("10.0.0.7", "runtime"), ("10.0.0.7", "drop"),
        ("10.0.1.0/24", "drop"), ("2001:db8::/32", "config"), ("2001:db8::1", "runtime")]
    assert rows("10.0.0.0/16") == rows()[1:5]
    assert rows("10.0.0.7") == rows()[2:4]
    assert rows("10.0.0.7", "--origin", "drop") == [("10.0.0.7", "drop")]
    assert rows("--origin", "config") == [("10.0.0.0/16", "config"), ("2001:db8::/32", "config")]
    assert rows("192.0.2.0/24") == []
    done = daemon.fwctl("list", "--origin", "drpo", check=False)
    assert done.returncode == 1 and 'no origin "drpo"' in done.stderr
    # One counter, in each origin's row.
    with Listener(net.host, 7) as listener:
        Flow(net.wire, udp(net.wire, 7, "10.0.0.7"), listener).is_dropped()
    assert [row["packets"] for row in daemon.fwctl_json("list", "10.0.0.0/16")["entries"]] == [0, 3, 3, 0]
