# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests that no fwctl would send. Each is refused with a sentence, and changes nothing."""
import json
import os
import socket
import time

import pytest

from fwdtest.client import SEALS, memory_file
from fwdtest.daemon import Daemon
from fwdtest.sandbox import SLOW, Sandbox
from fwdtest.traffic import wait_until

REQUEST_MAX_BYTES = 65536  # common/protocol.h
PREFIXES_MAX, COMMENT_MAX = 1000, 128  # common/command.h
LIST_MAX_BYTES = 256 << 20  # common/address_list.h

RULES = """
[[interface]]
name = "eth0"
[blacklist]
addresses = ["192.0.2.0/24"]
[allowlist]
addresses = ["192.0.2.7"]
[[redirect]]
protocol = "tcp"
port     = 80
target   = "tun0"
"""


@pytest.fixture(scope="module")
def shared_daemon():
    with Sandbox() as sandbox:
        host = sandbox.namespace("host")
        sandbox.link(host, "eth0", sandbox.namespace("peer"), "wire")
        daemon = Daemon(sandbox, host, RULES).start()
        daemon.request("add", prefixes=["10.0.0.0/8", "2001:db8::1"], comment="there", force=True)
        yield daemon
        daemon.stop()


def rules(daemon):
    """Every rule, but for what changes with time."""
    return [[{key: value for key, value in row.items() if key not in ("age_s", "left_s")}
             for row in daemon.request(command)[field]]
            for command, field in (("list", "entries"), ("allow list", "entries"), ("redirect list", "redirects"))]


@pytest.fixture
def daemon(shared_daemon):
    """Whatever a test does to it: it lives on, and has the rules that it had."""
    before = rules(shared_daemon)
    yield shared_daemon
    assert shared_daemon.running()
    assert rules(shared_daemon) == before


def is_refused(answer, *words, code="invalid"):
    assert answer["ok"] is False and answer["error"]["code"] == code, answer
    for word in words:
        assert word in answer["error"]["message"], answer


# ---- what is not JSON: answered, and the connection closed ----

NOT_JSON = {
    "nothing": b"",
    "blanks": b"    ",
    "a word": b"status",
    "another protocol": b"GET / HTTP/1.1",
    "a truncated object": b'{"command": "sta',
    "two objects": b'{"command": "status"} {"command": "status"}',
    "a trailing comma": b'{"command": "status",}',
    "a comment": b'{"command": "status"} // please',
    "single quotes": b"{'command': 'status'}",
    "a NUL byte": b'{"command": "sta\0tus"}',
    "a NUL byte behind": b'{"command": "status"}\0',
    "an escaped NUL": rb'{"command": "add", "prefixes": ["10.0.0.1"], "comment": "a\u0000b"}',
    "a control character": b'{"command": "add", "prefixes": ["10.0.0.1"], "comment": "a\x01b"}',
    "invalid UTF-8": b'{"command": "add", "prefixes": ["10.0.0.1"], "comment": "\xff\xfe"}',
    "overlong UTF-8": b'{"command": "add", "prefixes": ["10.0.0.1"], "comment": "\xc0\xaf"}',
    "half a surrogate pair": rb'{"command": "add", "prefixes": ["10.0.0.1"], "comment": "\ud800"}',
    "UTF-16": '{"command": "status"}'.encode("utf-16"),
    "deep arrays": b"[" * 30000,
    "deep objects": b'{"command":' * 5000,
    "a number without end": b'{"command": 1' + b"0" * 60000 + b"}",
    "the same field twice": b'{"command": "add", "prefixes": ["10.0.0.1"], "prefixes": ["10.0.0.2"]}',
    "the command twice": b'{"command": "status", "command": "flush"}',
    "random bytes": bytes(range(128, 256)) * 64,
}


@pytest.mark.parametrize("line", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_answered_and_the_connection_closed(daemon, line):
    with daemon.client() as client:
        client.send(line.replace(b"\n", b" ") + b'\n{"command": "flush"}\n')
        is_refused(client.answer(), "not JSON")
        assert client.answer() is None


# ---- JSON that is no request: answered, and the next one is served ----

ADD = {"command": "add", "prefixes": ["10.9.9.9"]}
REDIRECT = {"command": "redirect add", "ports": "udp/9", "target": "tun0"}
NO_REQUEST = [
    ([], "not a JSON object"),
    ([ADD], "not a JSON object"),
    ({}, 'no "command"'),
    ({"Command": "status"}, 'no "command"'),
    ({"command": None}, 'no "command"'),
    ({"command": 7}, 'no "command"'),
    ({"command": ["status"]}, 'no "command"'),
    ({"command": ""}, "unknown command"),
    ({"command": "frobnicate"}, '"frobnicate"'),
    ({"command": "statu"}, '"statu"'),
    ({"command": "redirect"}, '"redirect"'),
    ({"command": "x" * 60000}, "unknown command"),
    ({"command": "é" * 20000}, "unknown command"),
    ({"command": "status", "verbose": True}, '"verbose"'),
    ({"command": "flush", "now": None}, '"now"'),
    ({"command": "flush", "ä" * 20000: None}, "no field"),
    ({"command": "add"}, "no address given"),
    (ADD | {"prefixes": []}, "prefixes"),
    (ADD | {"prefixes": "10.9.9.9"}, "prefixes"),
    (ADD | {"prefixes": 10}, "prefixes"),
    (ADD | {"prefixes": {"0": "10.9.9.9"}}, "prefixes"),
    (ADD | {"prefixes": ["10.9.9.9", 10]}, "prefixes"),
    (ADD | {"prefixes": ["10.9.9.9", None]}, "prefixes"),
    (ADD | {"prefixes": ["10.9.9.9", ["10.9.9.8"]]}, "prefixes"),
    (ADD | {"prefixes": ["10.9.9.9", ""]}, '""'),
    (ADD | {"prefixes": ["10.9.9.9", "10.9.9.9 "]}, '"10.9.9.9 "'),
    (ADD | {"prefixes": ["10.9.9.9", "10.9.9.9/33"]}, '"10.9.9.9/33"'),
    (ADD | {"prefixes": ["10.9.9.9", "10.9.9.9/24"]}, "10.9.9.0/24"),
    (ADD | {"prefixes": ["10.9.9.9", "010.9.9.9"]}, '"010.9.9.9"'),
    (ADD | {"prefixes": ["10.9.9.9", "x" * 60000]}, "xxx"),
    (ADD | {"prefixes": ["10.9.9.9", "🔥" * 9000]}, "is not"),
    (ADD | {"prefixes": [f"10.9.{i >> 8}.{i & 255}" for i in range(PREFIXES_MAX + 1)]}, str(PREFIXES_MAX)),
    (ADD | {"ttl": 3600}, "ttl"),
    (ADD | {"ttl": None}, "ttl"),
    (ADD | {"ttl": ""}, "an empty time"),
    (ADD | {"ttl": "0s"}, '"0s"'),
    (ADD | {"ttl": "-1h"}, '"-1h"'),
    (ADD | {"ttl": "9" * 30 + "d"}, "999"),
    (ADD | {"comment": 7}, "comment"),
    (ADD | {"comment": "x" * (COMMENT_MAX + 1)}, str(COMMENT_MAX)),
    (ADD | {"comment": "é" * (COMMENT_MAX // 2) + "x"}, str(COMMENT_MAX)),
    (ADD | {"comment": "a\nb"}, "control character"),
    (ADD | {"list": True}, "list"),
    ({"command": "add", "list": False}, "list"),
    ({"command": "add", "list": "true"}, "list"),
    ({"command": "add", "list": 1}, "list"),
    ({"command": "add", "list": True}, "without a descriptor"),
    ({"command": "test"}, "ADDR is missing"),
    ({"command": "test", "address": "10.0.0.0/8"}, '"10.0.0.0/8"'),
    ({"command": "test", "address": ["10.0.0.1"]}, "address"),
    ({"command": "list", "prefix": "all"}, '"all"'),
    ({"command": "list", "origin": 5}, "origin"),
    ({"command": "list", "origin": ""}, "origin"),
    (REDIRECT | {"ports": 9}, "ports"),
    (REDIRECT | {"ports": "udp/0"}, '"0" is not a port'),
    (REDIRECT | {"ports": "udp/65536"}, '"65536" is not a port'),
    (REDIRECT | {"ports": "udp/9-8"}, '"9-8"'),
    (REDIRECT | {"ports": "sctp/9"}, '"sctp"'),
    (REDIRECT | {"target": ""}, '"" is not an interface name'),
    (REDIRECT | {"target": "x" * 16}, "x" * 16),
    (REDIRECT | {"target": "../tun0"}, '"../tun0"'),
    (REDIRECT | {"interface": "lo"}, '"lo"'),
    (REDIRECT | {"interface": "eth0", "target": "eth0"}, "itself"),
    (REDIRECT | {"direction": "both"}, '"both"'),
    (REDIRECT | {"mode": "fast"}, '"fast"'),
    (REDIRECT | {"mode": True}, "mode"),
]


def case_id(case):
    text = json.dumps(case[0])
    return text if len(text) < 60 else text[:57] + "..."


@pytest.mark.parametrize("request_, words", NO_REQUEST, ids=map(case_id, NO_REQUEST))
def test_json_that_is_no_good_request_is_answered_and_the_next_one_served(daemon, request_, words):
    with daemon.client() as client:
        client.send(json.dumps(request_, ensure_ascii=False).encode() + b"\n")
        is_refused(client.answer(), words)
        assert client.request("test", address="10.0.0.1")["verdict"] == "drop"


@pytest.mark.parametrize("request_, code, words", [
    ({"command": "del", "prefixes": ["10.0.0.0/8", "10.9.9.9"]}, "not-found", "10.9.9.9 is not blocked"),
    ({"command": "del", "prefixes": ["10.0.0.0/8", "192.0.2.0/24"]}, "not-found", "configuration"),
    ({"command": "allow del", "prefixes": ["192.0.2.7"]}, "not-found", "configuration"),
    ({"command": "allow del", "prefixes": ["192.0.2.8"]}, "not-found", "not on the allowlist"),
    ({"command": "redirect del", "ports": "udp/9"}, "not-found", "udp/9"),
    ({"command": "redirect del", "ports": "tcp/80"}, "not-found", "configuration"),
    ({"command": "redirect add", "ports": "tcp/80", "target": "tun1"}, "conflict", "tcp/80"),
    ({"command": "redirect add", "ports": "tcp/1-100", "target": "tun1"}, "conflict", "overlaps"),
    ({"command": "list", "origin": "nobody"}, "not-found", '"nobody"'),
], ids=lambda value: value if isinstance(value, str) else "")
def test_a_refusal_changes_nothing(daemon, request_, code, words):
    is_refused(daemon.request(**request_), words, code=code)


# ---- lines ----


def test_a_line_at_the_bound_is_served_and_one_past_it_refused(daemon):
    line = b'{"command": "test", "address": "10.0.0.1"}'
    with daemon.client() as client:
        client.send(line.ljust(REQUEST_MAX_BYTES - 1) + b"\n")
        assert client.answer()["verdict"] == "drop"
        client.send(line.ljust(REQUEST_MAX_BYTES) + b"\n")
        is_refused(client.answer(), "65536 bytes")
        assert client.answer() is None


def test_a_line_without_end_is_refused_at_the_bound(daemon):
    """10 MB of '{': the daemon stops reading after 64 KiB of them."""
    before = daemon.memory_kib("VmHWM")
    with daemon.client() as client:
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            client.send(b"{" * (10 << 20))
        is_refused(client.answer(), "65536 bytes")
        assert client.answer() is None
    assert daemon.memory_kib("VmHWM") - before < 4 << 10


def test_a_request_that_ends_without_a_newline_is_refused(daemon):
    with daemon.client() as client:
        client.send(b'{"command": "flush"}')
        client.end()
        is_refused(client.answer(), "without a newline")
        assert client.answer() is None


def test_requests_sent_without_waiting_are_answered_in_order(daemon):
    addresses = [f"10.0.{i}.1" if i % 3 else f"172.16.{i}.1" for i in range(200)]
    with daemon.client() as client:
        client.send(b"".join(json.dumps({"command": "test", "address": address}).encode() + b"\r\n"
                             for address in addresses))
        client.end()
        verdicts = [client.answer()["verdict"] for _ in addresses]
        assert client.answer() is None
    assert verdicts == ["drop" if address.startswith("10.") else "pass" for address in addresses]


def test_two_clients_that_write_byte_by_byte_do_not_mix(daemon):
    lines = [b'{"command": "test", "address": "10.0.0.1"}\n', b'{"command": "test", "address": "1.0.0.10"}\n']
    with daemon.client() as one, daemon.client() as other:
        for pair in zip(*lines):
            for client, byte in zip((one, other), pair):
                client.send(bytes([byte]))
        assert (one.answer()["verdict"], other.answer()["verdict"]) == ("drop", "pass")


@pytest.mark.parametrize("size", [1, 7, 20, 41])
def test_a_client_that_vanishes_within_a_request_changes_nothing(daemon, size):
    for _ in range(20):
        with daemon.client() as client:
            client.send(b'{"command": "add", "prefixes": ["10.9.9.9"]}\n'[:size])


# ---- lists by descriptor ----


def refused_list(daemon, *fds, **fields):
    """The refusal, which must not take long, nor memory."""
    before, start = daemon.memory_kib("VmHWM"), time.monotonic()
    answer = daemon.request("add", fds=fds, **{"list": True} | fields)
    assert time.monotonic() - start < 2 * SLOW
    assert daemon.memory_kib("VmHWM") - before < 16 << 10
    return answer


@pytest.mark.parametrize("seals", [0, *(SEALS & ~seal for seal in (0x2, 0x4, 0x8))])
def test_a_memory_file_that_is_not_sealed_is_refused(daemon, seals):
    with memory_file(b"10.9.9.9\n", seals=seals) as fd:
        is_refused(refused_list(daemon, fd), "sealed")


@pytest.mark.parametrize("path", ["/", "/dev/null", "/dev/zero", "/dev/random", "/proc/self/mem", __file__])
def test_a_descriptor_that_is_no_memory_file_is_refused(daemon, path):
    fd = os.open(path, os.O_RDONLY)
    try:
        is_refused(refused_list(daemon, fd), "sealed")
    finally:
        os.close(fd)


def test_pipes_sockets_and_paths_are_refused(daemon):
    reading, writing = os.pipe()
    one, other = socket.socketpair()
    bare = os.open("/etc/passwd", os.O_PATH)
    for fd in (reading, writing, one.fileno(), bare):
        is_refused(refused_list(daemon, fd), "sealed")
    for fd in (reading, writing, bare):
        os.close(fd)
    one.close()
    other.close()


@pytest.mark.parametrize("content, words", [
    (b"10.9.9.9\n\0\0\0\0", "line 2: binary data"),
    (b"\x7fELF\x02\x01\x01\0", "line 1:"),
    (b"10.9.9.9\n10.9.9.8\xff\n", "line 2:"),
    (b"10.9.9.9\n" * 7 + b"10.9.9\n", 'line 8: "10.9.9"'),
    (b"x" * (1 << 20), "line 1:"),
], ids=["NUL bytes", "a program", "Latin 1", "a bad line", "a long line"])
def test_a_memory_file_that_is_no_list_is_refused(daemon, content, words):
    with memory_file(content) as fd:
        is_refused(refused_list(daemon, fd), words)


def test_a_gigabyte_of_zeros_is_refused_unread(daemon):
    with memory_file(size=1 << 30) as fd:
        is_refused(refused_list(daemon, fd), "too large", str(LIST_MAX_BYTES), code="failed")


def test_a_list_of_no_address_is_no_change(daemon):
    with memory_file(b"# nothing today\n") as fd:
        assert daemon.request("add", fds=[fd], list=True) == {"ok": True, "added": 0, "updated": 0}
        assert daemon.request("del", fds=[fd], list=True) == {"ok": True, "deleted": 0}


def test_descriptors_that_nobody_asked_for_are_closed(daemon):
    with memory_file(b"10.9.9.9\n") as fd, daemon.client() as observer:
        def alone():
            return observer.request("status")["clients"] == 1

        wait_until(alone)
        before = daemon.descriptors()
        with daemon.client() as client:
            for _ in range(20):
                assert client.request("test", fds=[fd], address="10.0.0.1")["verdict"] == "drop"
            is_refused(client.request("add", fds=[fd], prefixes=["nonsense"]), '"nonsense"')
            is_refused(client.request("add", list=True), "without a descriptor")
            assert daemon.descriptors() <= before + 1
        for number in (2, 16, 17, 200):
            with daemon.client() as client:
                client.send(b'{"command": "add", "list": true}\n', [fd] * number)
                is_refused(client.answer(), "descriptors")
                assert client.answer() is None
        wait_until(alone)
        assert daemon.descriptors() == before


def test_a_descriptor_goes_to_the_request_that_it_came_with(daemon):
    """Two requests without waiting for the first one's answer; the second brings a list."""
    with memory_file(b"10.9.9.9\n") as fd, daemon.client() as client:
        client.send(b'{"command": "test", "address": "10.0.0.1"}\n')
        client.send(b'{"command": "add", "list": true}\n{"command": "del", "prefixes": ["10.9.9.9"]}\n', [fd])
        assert client.answer()["verdict"] == "drop"
        assert client.answer() == {"ok": True, "added": 1, "updated": 0}
        assert client.answer() == {"ok": True, "deleted": 1}


def test_a_list_is_read_from_its_start_wherever_its_descriptor_stands(daemon):
    with memory_file(b"10.9.9.9\n10.9.9.8\n") as fd:
        os.lseek(fd, 5, os.SEEK_SET)
        assert daemon.request("add", fds=[fd], list=True)["added"] == 2
        os.lseek(fd, 0, os.SEEK_END)
        assert daemon.request("del", fds=[fd], list=True)["deleted"] == 2
