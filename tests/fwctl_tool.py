# SPDX-License-Identifier: GPL-2.0-or-later
"""fwctl against a scripted daemon: what it prints, how it exits, what it sends, what it endures."""

import array
import fcntl
import json
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest

FWCTL = os.environ["FWCTL"]
SOURCE = Path(__file__).resolve().parent.parent
GOLDEN = SOURCE / "tests/golden/fwctl"
REQUEST_MAX = 64 << 10
REPLY_MAX = 1 << 20
# SSH_CONNECTION as if the tests were not run over SSH, which fwctl would tell the daemon.
ENVIRONMENT = {**os.environ, "TZ": "UTC", "LC_ALL": "C.UTF-8", "SSH_CONNECTION": ""}


class Daemon:
    """Answers each request with the next of `answers`: bytes as they are, other values as a line of JSON."""

    def __init__(self, path):
        self.path, self.answers, self.requests, self.lists = str(path), [], [], []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self.speak(connection)
                except OSError:
                    pass  # the client hung up, which some tests want

    def speak(self, connection):
        self.read(connection)
        for answer in self.answers:
            if callable(answer):
                answer()
            else:
                connection.sendall(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")

    def read(self, connection):
        line, fds = b"", []
        while not line.endswith(b"\n"):
            data, ancillary, _, _ = connection.recvmsg(REQUEST_MAX, socket.CMSG_SPACE(4))
            if not data:
                return
            line += data
            for _, _, numbers in ancillary:
                fds += array.array("i", numbers)
        self.requests.append(json.loads(line))
        for fd in fds:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
            with os.fdopen(fd, "rb") as file:
                self.lists.append((seals, file.read()))

    def close(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(5)


@pytest.fixture
def daemon(tmp_path):
    server = Daemon(tmp_path / "fwd.sock")
    yield server
    server.close()


# Another user, who may read and search everywhere: a build folder can be behind closed ones.
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all,+dac_read_search",
          "--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search")


def fwctl(*arguments, prefix=(), **options):
    options = {"stdin": subprocess.DEVNULL, "timeout": 60, "env": ENVIRONMENT, **options}
    if "input" in options:
        del options["stdin"]
    return subprocess.run([*prefix, FWCTL, *map(str, arguments)], capture_output="stdout" not in options, **options)


def ask(daemon, *arguments, answers=({"ok": True},), **options):
    daemon.answers = answers
    return fwctl("-s", daemon.path, *arguments, **options)


def refusal(code, message="it said no", **more):
    return {"ok": False, "error": {"code": code, "message": message, **more}}


# ---- what is printed ----

ENTRIES = [
    {"prefix": "10.0.0.0/24", "origin": "runtime", "comment": "ssh", "created_s": 1764000000, "age_s": 60,
     "left_s": 5340, "packets": 12, "bytes": 984, "last_hit_s": 1764000050},
    {"prefix": "192.0.2.7", "origin": "config", "comment": None, "created_s": 1763000000, "age_s": 1000060,
     "left_s": None, "packets": 0, "bytes": 0, "last_hit_s": None},
    {"prefix": "2001:db8:1234:5678:9abc:def0:1234:5678", "origin": "drop-feed", "comment": "Grüße, 東京",
     "created_s": 1764000000, "age_s": 60, "left_s": None, "packets": 123456789012, "bytes": 12345678901234,
     "last_hit_s": 1764000060},
]
ALLOWED = [{**entry, "left_s": None, "comment": None} for entry in ENTRIES[:2]] + [
    {**ENTRIES[1], "prefix": "192.0.2.8", "origin": "system",
     "comment": "the default gateway on eth0, in 192.0.2.0/24 (drop)"}]
REDIRECTS = [
    {"ports": "udp/8000-8099", "interface": None, "direction": "in", "target": "wg0", "mode": "auto",
     "effective_mode": None, "origin": "runtime", "packets": 0, "bytes": 0},
    {"ports": "tcp/8080", "interface": "eth0", "direction": "out", "target": "büro0", "mode": "auto",
     "effective_mode": "l2", "origin": "config", "packets": 3, "bytes": 180},
    {"ports": "tcp/443", "interface": "eth0", "direction": "out", "target": "veth12345678901", "mode": "neigh",
     "effective_mode": "neigh", "origin": "config", "packets": 3, "bytes": 180},
]
# The clock of fwctl makes LAST-HIT and LOADED; what is to come is "0s ago" whenever the test runs.
FEEDS = [
    {"name": "drop", "file": "/etc/fwd/drop.txt", "entries": 1024, "packets": 12, "bytes": 984, "last_hit_s": 2**40,
     "loaded_s": 2**40, "replaced": False},
    {"name": "abuse-desk", "file": None, "entries": 1000000, "packets": 0, "bytes": 0, "last_hit_s": None,
     "loaded_s": 2**40, "replaced": True},
    {"name": "empty", "file": None, "entries": 0, "packets": 0, "bytes": 0, "last_hit_s": None, "loaded_s": None,
     "replaced": False},
]
STATUS = {
    "ok": True, "version": "0.1.0", "pid": 1234, "started_s": 1764000000, "uptime_s": 3660,
    "config": "/etc/fwd/fwd.toml", "config_loaded_s": 1764000060, "pin_dir": "/sys/fs/bpf/fwd", "on_stop": "keep",
    "adopted": True,
    "blacklist": {"entries": 3, "max_entries": 1000000, "runtime": 1, "directions": ["in", "out"]},
    "allowlist": {"entries": 1, "max_entries": 65536}, "redirects": {"entries": 1, "max_entries": 1000},
    "clients": 1,
    "interfaces": [
        {"name": "eth0", "ifindex": 2, "xdp": "native", "dispatcher": True, "tc_in": True, "tc_out": True,
         "error": None},
        {"name": "veth12345678901", "ifindex": 1234, "xdp": "generic", "dispatcher": False, "tc_in": True,
         "tc_out": False, "error": None},
        {"name": "tun0", "ifindex": 5, "xdp": None, "dispatcher": False, "tc_in": False, "tc_out": False,
         "error": "another XDP program holds it"}],
    "waiting": ["wg*", "eth7"],
}
VERDICTS = ["pass", "drop", "allow", "not_ip", "malformed", "redirect", "no_target"]


def hook(name, **packets):
    count = {verdict: packets.get(verdict, 0) for verdict in VERDICTS}
    return {"hook": name, "verdicts": {verdict: {"packets": n, "bytes": 100 * n} for verdict, n in count.items()}}


STATS = {"ok": True, "interfaces": [
    {"name": "eth0", "hooks": [hook("xdp", **{"pass": 10, "drop": 2, "malformed": 1}), hook("tc_in", redirect=4)]},
    {"name": "veth12345678901", "hooks": [hook("xdp", **{"pass": 12345678901})]}]}

VERIFIED = {"ok": True, "agrees": False, "n_differences": 1234, "repaired": 0, "differences": [
    {"kind": "entry", "where": "10.0.0.5", "text": "10.0.0.5: blocked by the rules, not in the kernel's maps"},
    {"kind": "pin", "where": "/p/control", "text": "/p/control: the map in use is not pinned there"}],
    "checked": {"entries": 1000, "redirects": 2, "interfaces": 3}}

# A golden file: the command, and its two outputs.
PRINTED = {
    "list": (["list"], [{"ok": True, "entries": ENTRIES}]),
    "list-empty": (["list"], [{"ok": True, "entries": []}]),
    "list-pieces": (["list"], [{"ok": True, "more": True, "entries": ENTRIES[:2]},
                               {"ok": True, "more": True, "entries": []}, {"ok": True, "entries": ENTRIES[2:]}]),
    "list-empty-fields": (["list"], [{"ok": True, "entries": [{}, 7, {"prefix": 9, "packets": "many"}]}]),
    "list-hostile": (["list"], [{"ok": True, "entries": [{
        **ENTRIES[0], "prefix": "10.0.0.1\t", "origin": "\x9b31m\x7f", "created_s": 2**63 - 1,
        "comment": "\x1b]0;owned\x07\r\n\u202etxt.exe\u2028 fine é"}]}]),
    "allow-list": (["allow", "list"], [{"ok": True, "entries": ALLOWED}]),
    "test-drop": (["test", "10.0.0.5"],
                  [{"ok": True, "verdict": "drop", "entry": ENTRIES[0], "allowed_by": None}]),
    "test-drop-no-comment": (["test", "192.0.2.7"],
                             [{"ok": True, "verdict": "drop", "entry": ENTRIES[1], "allowed_by": None}]),
    "test-drop-hostile": (["test", "10.0.0.5"], [{"ok": True, "verdict": "drop", "allowed_by": None,
                                                 "entry": {**ENTRIES[0], "comment": "\x1b[2J\n"}}]),
    "test-pass": (["test", "10.0.0.5"], [{"ok": True, "verdict": "pass", "entry": None, "allowed_by": None}]),
    "test-allowed": (["test", "10.0.0.5"],
                     [{"ok": True, "verdict": "pass", "entry": ENTRIES[0], "allowed_by": "10.0.0.0/30"}]),
    "feed-list": (["feed", "list"], [{"ok": True, "feeds": FEEDS}]),
    "feed-list-hostile": (["feed", "list"], [{"ok": True, "feeds": [{
        **FEEDS[0], "name": "\x1b[2J", "file": "/etc\r\n", "loaded_s": -2**63}, 7]}]),
    "feed-replace": (["feed", "replace", "drop", "-"], [{"ok": True, "entries": 7, "added": 3, "removed": 1}]),
    "feed-reload": (["feed", "reload", "drop"], [{"ok": True, "entries": 7, "added": 3, "removed": 1}]),
    "redirect-list": (["redirect", "list"], [{"ok": True, "redirects": REDIRECTS}]),
    "status": (["status"], [STATUS]),
    "status-maps": (["status"], [{
        **STATUS, "blacklist": {**STATUS["blacklist"], "entries": 1234567}, "maps": {"bytes": 45193626, "capacity": 2097152}}]),
    "status-extremes": (["status"], [{
        "ok": True, "interfaces": [], "maps": {"bytes": 1023, "capacity": -100}, "allowlist": {"entries": 999, "max_entries": 1000, "spared": 1002},
        "blacklist": {"entries": -2**63, "max_entries": 2**63 - 1}}]),
    "status-confirm": (["status"], [{**STATUS, "config_unconfirmed": False,
                                     "confirm": {"command": "reload", "left_s": 42}}]),
    "status-unconfirmed": (["status"], [{**STATUS, "config_unconfirmed": True, "confirm": None}]),
    "status-bare": (["status"], [{"ok": True, "interfaces": []}]),
    "stats": (["stats"], [STATS]),
    "add": (["add", "10.0.0.5"], [{"ok": True, "added": 1, "updated": 0}]),
    "del": (["del", "10.0.0.5"], [{"ok": True, "deleted": 1}]),
    "flush": (["flush"], [{"ok": True, "deleted": 5}]),
    "allow-add": (["allow", "add", "10.0.0.5"], [{"ok": True, "added": 1, "updated": 0}]),
    "allow-del": (["allow", "del", "10.0.0.5"], [{"ok": True, "deleted": 1}]),
    "redirect-add": (["redirect", "add", "tcp/80", "tun0"], [{"ok": True, "added": 1, "updated": 0}]),
    "redirect-del": (["redirect", "del", "tcp/80"], [{"ok": True, "deleted": 1}]),
    "verify": (["verify"], [{**VERIFIED, "agrees": True, "differences": [], "n_differences": 0}]),
    "verify-differences": (["verify"], [VERIFIED]),
    "verify-one-hostile": (["verify"], [{**VERIFIED, "n_differences": 1, "differences": [
        {"kind": "program", "where": "eth0", "text": "eth0: XDP: \x1b[2J\r\n"}]}]),
    "verify-repaired": (["verify", "--repair"], [{**VERIFIED, "agrees": True, "differences": [], "n_differences": 0, "repaired": 7}]),
    "reload": (["reload"], [{"ok": True, "added": 1, "removed": 2}]),
    "add-confirm": (["add", "10.0.0.5", "--confirm", "5m"], [{"ok": True, "added": 1, "updated": 0, "confirm_s": 300}]),
    "reload-confirm": (["reload", "--confirm", "60s"], [{"ok": True, "added": 1, "removed": 2, "confirm_s": 60}]),
    "confirm": (["confirm"], [{"ok": True, "confirmed": "reload"}]),
}


@pytest.mark.parametrize("case", PRINTED)
def test_prints_what_the_golden_file_says(daemon, case):
    arguments, answers = PRINTED[case]
    people = ask(daemon, *arguments, answers=answers)
    programs = ask(daemon, "--json", *arguments, answers=answers)
    status = 1 if answers[0].get("verdict") == "drop" or answers[0].get("agrees") is False else 0
    assert (people.returncode, programs.returncode) == (status, status)
    assert people.stderr == programs.stderr == b""
    text = "".join(f"$ fwctl {option}{' '.join(arguments)}\n{result.stdout.decode()}"
                   for option, result in (("", people), ("--json ", programs)))
    golden = GOLDEN / f"{case}.txt"
    if os.environ.get("FWCTL_GOLDEN") == "write":
        golden.write_text(text)
    assert text == golden.read_text()


def test_every_printer_has_a_golden_file():
    commands = re.findall(r"^  ([a-z][a-z ]*[a-z])  ", fwctl("help").stdout.decode(), re.M)
    assert {"add", "feed list", "verify"} <= set(commands)
    commands.remove("doctor")  # what it prints is the host's
    typed = {" ".join(arguments) + " " for arguments, _ in PRINTED.values()}
    assert all(any(line.startswith(f"{command} ") for line in typed) for command in commands)


@pytest.mark.parametrize("case", PRINTED)
def test_json_is_the_answer_in_one_value(daemon, case):
    arguments, answers = PRINTED[case]
    value = json.loads(ask(daemon, *arguments, "--json", answers=answers).stdout)
    field = {"list": "entries", "redirect": "redirects", "allow": "entries", "feed": "feeds"}.get(arguments[0])
    if arguments[-1] == "list":
        assert value == {field: [item for answer in answers for item in answer[field]]}
    else:
        assert value == {key: item for key, item in answers[0].items() if key != "ok"}


@pytest.mark.parametrize("case", PRINTED)
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_nothing_printed_can_steer_a_terminal(daemon, case, option):
    arguments, answers = PRINTED[case]
    text = ask(daemon, *arguments, *option, answers=answers).stdout.decode()
    assert not re.search("[\0-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]", text)


def test_feed_list_tells_how_long_ago_it_was(daemon):
    now = int(time.time())
    feed = {**FEEDS[0], "last_hit_s": now - 65, "loaded_s": now - 2 * 86400 - 7200}
    result = ask(daemon, "feed", "list", answers=[{"ok": True, "feeds": [feed]}])
    assert re.search(rb" 1m\d+s ago  2d2h ago  /etc/fwd/drop.txt\n", result.stdout)


def test_lines_do_not_end_in_blanks(daemon):
    for arguments, answers in PRINTED.values():
        assert not re.search(r" $", ask(daemon, *arguments, answers=answers).stdout.decode(), re.M)


@pytest.mark.parametrize("size, text", [
    (0, "0 bytes"), (1024, "1.0 KiB"), (1048524, "1023.9 KiB"), (1048575, "1.0 MiB"), (2**63 - 1, "8.0 EiB")])
def test_sizes_have_the_unit_that_fits(daemon, size, text):
    result = ask(daemon, "status", answers=[{"ok": True, "interfaces": [], "maps": {"bytes": size}}])
    assert f"maps:           {text}\n" in result.stdout.decode()


# ---- what is sent ----

@pytest.mark.parametrize("words, request_", [
    ("add 10.0.0.5 2001:db8::/32 --ttl 1h30m --comment ssh",
     {"command": "add", "prefixes": ["10.0.0.5", "2001:db8::/32"], "ttl": "1h30m", "comment": "ssh"}),
    ("del -- 10.0.0.5", {"command": "del", "prefixes": ["10.0.0.5"]}),
    ("list --origin drop 10.0.0.0/8", {"command": "list", "origin": "drop", "prefix": "10.0.0.0/8"}),
    ("redirect add tcp/80 tun0 --on eth0 --direction=out --mode l2",
     {"command": "redirect add", "ports": "tcp/80", "target": "tun0", "interface": "eth0", "direction": "out",
      "mode": "l2"}),
])
def test_sends_what_was_typed(daemon, words, request_):
    ask(daemon, *words.split(), answers=[{"ok": True, "entries": []}])
    assert daemon.requests == [request_]


@pytest.mark.parametrize("connection, address", [
    ("192.0.2.7 50022 198.51.100.1 22", "192.0.2.7"), ("2001:DB8::7 50022 2001:db8::1 22", "2001:db8::7"),
    ("::ffff:192.0.2.7 50022 ::ffff:198.51.100.1 22", "192.0.2.7"), ("fe80::7%eth0 50022 fe80::1%eth0 22", "fe80::7"),
    ("UNKNOWN 0 UNKNOWN 0", None), ("", None)])
def test_tells_where_the_user_is_logged_in_from(daemon, connection, address):
    environment = {**ENVIRONMENT, "SSH_CONNECTION": connection}
    told = {"ssh_client": address} if address else {}
    for words, takes in (("add", True), ("allow del", True), ("del", False), ("allow add", False)):
        ask(daemon, *words.split(), "10.0.0.5", env=environment)
        assert daemon.requests.pop() == {"command": words, "prefixes": ["10.0.0.5"]} | (told if takes else {})


def test_looks_at_its_ancestors_where_the_environment_is_cleaned(daemon):
    environment = {**ENVIRONMENT, "SSH_CONNECTION": "192.0.2.7 50022 198.51.100.1 22"}
    ask(daemon, "add", "10.0.0.5", env=environment,
        prefix=("sh", "-c", 'env -u SSH_CONNECTION sh -c \'"$@"; exit $?\' sh "$@"; exit $?', "sh"))
    assert daemon.requests.pop()["ssh_client"] == "192.0.2.7"


ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def test_passes_a_list_as_a_sealed_file(daemon, tmp_path):
    path = tmp_path / "drop.txt"
    path.write_text("10.0.0.1\n10.0.0.2\n")
    for arguments, options in ((["add", "-f", path], {}), (["del", f"-f{path}"], {}),
                               (["add", "-"], {"input": path.read_bytes()}),
                               (["add", "-f", "-"], {"input": path.read_bytes()})):
        assert ask(daemon, *arguments, **options).returncode == 0
        assert daemon.requests.pop() == {"command": arguments[0], "list": True}
        assert daemon.lists.pop() == (ALL_SEALS, path.read_bytes())
    assert ask(daemon, "feed", "replace", "drop", "-f", path).returncode == 0
    assert daemon.requests.pop() == {"command": "feed replace", "name": "drop", "list": True}
    assert daemon.lists.pop() == (ALL_SEALS, path.read_bytes())


def test_names_the_list_in_an_error_of_its_line(daemon, tmp_path):
    path = tmp_path / "drop.txt"
    path.write_text("10.0.0.300\n")
    answers = [refusal("invalid", 'line 1: "10.0.0.300" is not an address')]
    result = ask(daemon, "add", "-f", path, answers=answers)
    assert (result.returncode, result.stderr.decode()) == (1, f'fwctl: {path}:1: "10.0.0.300" is not an address\n')
    result = ask(daemon, "add", "-", input=b"10.0.0.300\n", answers=answers)
    assert result.stderr == b'fwctl: standard input:1: "10.0.0.300" is not an address\n'
    result = ask(daemon, "add", "10.0.0.3", answers=answers)
    assert result.stderr == b'fwctl: line 1: "10.0.0.300" is not an address\n'


def test_a_bad_command_line_sends_nothing(daemon, tmp_path):
    large = tmp_path / "large"
    with open(large, "wb") as file:
        file.truncate((256 << 20) + 1)
    for words in ("", "frob", "add", "add 10.0.0.300", "add 10.0.0.5/24", "add 010.0.0.1", "test 10.0.0.0/8", "lis",
                  "add 10.0.0.1 --ttl 0s", "add 10.0.0.1 --ttl", "list --nope", "flush 10.0.0.1", "add 10.0.0.1 -",
                  "feed", "feed replace drop", "feed replace drop 10.0.0.1", "feed replace runtime -",
                  "feed replace -f /etc/hosts", "feed reload a/b", "redirect", "redirect add tcp/80", "redirect add tcp/0 tun0", "redirect frob", "--nope list",
                  "help frob", "add -f /nonexistent", f"add -f {tmp_path}", f"add -f {large}"):
        result = ask(daemon, *words.split())
        assert result.returncode == 2, words
        assert result.stdout == b"" and re.fullmatch(rb"fwctl: .+\n", result.stderr), words
        value = json.loads(ask(daemon, *words.split(), "--json").stdout)
        assert value["error"]["code"] == "usage" and value["error"]["message"], words
    assert daemon.requests == []


# ---- while it takes long ----

def on_terminal(daemon, *arguments, seconds, answer=None, columns=80, **options):
    """What fwctl did and wrote to standard error, a terminal, while the daemon took so long."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    answers = [lambda: time.sleep(seconds), answer or {"ok": True, "added": 1, "updated": 0}]
    try:
        result = ask(daemon, *arguments, answers=answers, stdout=subprocess.PIPE, stderr=end, **options)
        os.write(end, b"\0")
        text = b""
        while not text.endswith(b"\0"):
            text += os.read(terminal, 4096)
        return result, text[:-1].decode()
    finally:
        os.close(terminal)
        os.close(end)


def screen(text):
    """What is left of a line."""
    cells, at = {}, 0
    for c in text:
        if c == "\r":
            at = 0
        else:
            cells[at] = c
            at += 1
    return "".join(cells.get(i, " ") for i in range(max(cells, default=-1) + 1)).rstrip()


def test_a_list_that_takes_long_is_told_about_on_a_terminal(daemon, tmp_path):
    path = tmp_path / "drop.txt"
    path.write_text("10.0.0.1\n" * 1234 + "10.0.0.2")
    result, text = on_terminal(daemon, "feed", "replace", "drop", "-f", path, seconds=2.5)
    assert result.returncode == 0 and result.stdout == b""
    lines = [line.strip() for line in text.split("\r") if line.strip()]
    assert lines and lines == [f"feed replace: 1,235 lines sent, waiting for the daemon: {i + 1} s"
                               for i in range(len(lines))]
    assert screen(text) == "" and "\n" not in text
    assert daemon.lists[0][1] == path.read_bytes()


def test_an_error_after_a_long_time_has_a_line_of_its_own(daemon):
    result, text = on_terminal(daemon, "add", "-", seconds=1.5, answer=refusal("full"), input=b"10.0.0.1\n",
                               columns=30)
    assert result.returncode == 1
    assert "add: 1 line sent, waiting for\r" in text
    assert screen(text.removesuffix("fwctl: it said no\r\n")) == "" and text.endswith("\rfwctl: it said no\r\n")


@pytest.mark.parametrize("words, seconds", [("add -", 0.2), ("add - --json", 1.5), ("add 10.0.0.1", 1.5)])
def test_nothing_is_told_about_what_is_quick_or_for_programs(daemon, words, seconds):
    result, text = on_terminal(daemon, *words.split(), seconds=seconds)
    assert result.returncode == 0 and text == ""


def test_nothing_is_told_where_standard_error_is_no_terminal(daemon):
    result = ask(daemon, "add", "-", answers=[lambda: time.sleep(1.5), {"ok": True}])
    assert (result.returncode, result.stderr) == (0, b"")


# ---- exit statuses ----

@pytest.mark.parametrize("code, status", [
    ("invalid", 1), ("not-found", 1), ("full", 1), ("conflict", 1), ("busy", 1), ("failed", 1), ("of-tomorrow", 1),
    ("not-permitted", 4)])
def test_exit_status_follows_the_error_code(daemon, code, status):
    answers = [refusal(code, "full: 1000000 of 1000000 entries")]
    result = ask(daemon, "add", "10.0.0.1", answers=answers)
    assert (result.returncode, result.stdout) == (status, b"")
    assert result.stderr == b"fwctl: full: 1000000 of 1000000 entries\n"
    result = ask(daemon, "add", "10.0.0.1", "--json", answers=answers)
    assert result.returncode == status
    assert json.loads(result.stdout) == {"error": answers[0]["error"]}
    assert result.stderr == b"fwctl: full: 1000000 of 1000000 entries\n"


def test_reload_prints_each_error_on_its_line(daemon):
    errors = ["/etc/fwd/fwd.toml:3:1: unknown key \"x\"", "/etc/fwd/fwd.toml:9:2: \x1b[31mred"]
    answers = [refusal("invalid", "2 errors", errors=errors)]
    result = ask(daemon, "reload", answers=answers)
    assert result.returncode == 1 and result.stdout == b""
    assert result.stderr.decode().splitlines() == ["fwctl: 2 errors", errors[0], "/etc/fwd/fwd.toml:9:2: ?[31mred"]
    assert json.loads(ask(daemon, "reload", "--json", answers=answers).stdout)["error"]["errors"] == errors


def test_no_daemon_is_3(tmp_path):
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(dead))
    plain = tmp_path / "file"
    plain.touch()
    for path in (tmp_path / "absent", tmp_path / "absent/absent", dead, plain):
        result = fwctl("-s", path, "status", "--json")
        assert result.returncode == 3
        assert b"no daemon answers at" in result.stderr and str(path).encode() in result.stderr
        assert json.loads(result.stdout)["error"]["code"] == "no-daemon"


@pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges")
def test_kept_out_by_the_socket_is_4(daemon):
    os.chmod(daemon.path, 0o660)
    result = ask(daemon, "status", "--json", prefix=NOBODY)
    assert result.returncode == 4
    assert b"not permitted to connect" in result.stderr
    assert json.loads(result.stdout)["error"]["code"] == "not-permitted"


def test_a_bad_socket_path_is_2():
    for path in ("", "x" * 108):
        assert fwctl("-s", path, "status").returncode == 2
    assert fwctl("-s", "x" * 107, "status").returncode == 3


# ---- doctor, which needs no daemon ----

def examine(*arguments, **options):
    """The report, checked for what holds of every one; and the findings by id and subject."""
    result = fwctl(*arguments, "--json", "doctor", **options)
    assert result.stderr == b"" and result.stdout.isascii()
    report = json.loads(result.stdout)
    assert set(report) == {"problems", "notes", "findings"}
    states = [finding["state"] for finding in report["findings"]]
    assert (states.count("problem"), states.count("note")) == (report["problems"], report["notes"])
    assert set(states) <= {"ok", "note", "problem"}
    for finding in report["findings"]:
        assert set(finding) == {"id", "subject", "state", "text", "remedy"}
        assert finding["text"] and bool(finding["remedy"]) == (finding["state"] != "ok")
    assert result.returncode == (1 if report["problems"] else 0)
    return {(finding["id"], finding["subject"]): finding for finding in report["findings"]}


def test_doctor_works_without_a_daemon(tmp_path):
    findings = examine("-s", tmp_path / "absent")
    daemon = findings["daemon", None]
    assert (daemon["state"], daemon["text"]) == ("note", f"none answers at {tmp_path}/absent")
    assert "systemctl start fwd" in daemon["remedy"]
    assert findings["kernel", None]["state"] == "ok"


def test_doctor_prints_the_findings_with_their_remedies(tmp_path):
    result = fwctl("-s", tmp_path / "absent", "doctor")
    lines = result.stdout.decode().splitlines()
    assert lines[0] == f"note     daemon: none answers at {tmp_path}/absent"
    assert lines[1].startswith("         -> systemctl start fwd")
    assert re.fullmatch(r"\d+ problems?, \d+ notes?", lines[-1]) and lines[-2] == ""
    for line in lines[:-2]:
        assert re.match(r"(ok|note|problem) +\S|         -> \S", line)


@pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges")
def test_doctor_says_what_takes_privileges(tmp_path):
    findings = examine("-s", tmp_path / "absent", prefix=NOBODY)
    assert findings["capabilities", "fwctl"]["text"].startswith("without CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON ")
    for check in "load-xdp", "load-tc", "attach-xdp", "clsact", "frags", "dispatcher":
        assert (findings[check, None]["state"], findings[check, None]["remedy"]) == ("note", "run it as root")


def test_doctor_has_what_the_daemon_tells(daemon):
    daemon.answers = [{**STATUS, "version": "0.0.1", "waiting": ["wg*"], "interfaces": [
        {"name": "lo", "ifindex": 1, "xdp": None, "dispatcher": False, "tc_in": False, "tc_out": False,
         "error": "XDP: no \x1b[2J"}]}]
    findings = examine("-s", daemon.path)
    assert daemon.requests == [{"command": "status"}]
    assert f"fwd 0.0.1 runs, process {os.getpid()}" in findings["daemon", None]["text"]
    assert findings["waiting", "wg*"]["state"] == "note"
    error = findings["attached", "lo"]
    assert (error["state"], error["text"]) == ("problem", "XDP: no ?[2J")
    assert {subject for check, subject in findings if check == "mtu" or check == "xdp-program"} == {"lo"}


@pytest.mark.parametrize("answer, state", [(refusal("busy"), "note"), (b"", "problem"), (b"hello\n", "problem")])
def test_doctor_survives_a_daemon_that_does_not_answer_well(daemon, answer, state):
    daemon.answers = [answer]
    assert examine("-s", daemon.path)["daemon", None]["state"] == state


@pytest.mark.skipif(os.geteuid() != 0, reason="drops privileges")
def test_doctor_says_that_the_socket_keeps_out(daemon):
    os.chmod(daemon.path, 0o660)
    finding = examine("-s", daemon.path, prefix=NOBODY)["daemon", None]
    assert finding["state"] == "note" and "not permitted to connect" in finding["text"]


def test_doctor_takes_no_argument():
    assert fwctl("doctor", "eth0").returncode == 2


# ---- bad answers ----

GARBAGE = {
    "nothing": (b"", 3), "half": (b'{"ok": true, "entr', 3), "text": (b"hello\n", 1), "blank": (b"\n", 1),
    "array": (b"[1]\n", 1), "no-ok": (b"{}\n", 1), "ok-text": (b'{"ok": "true", "entries": []}\n', 1), "nul": (b"\0\n", 1),
    "not-utf8": (b'{"ok": "\xff"}\n', 1), "duplicate": (b'{"ok": true, "ok": false}\n', 1),
    "no-error": (b'{"ok": false}\n', 1), "error-text": (b'{"ok": false, "error": "no"}\n', 1),
    "no-entries": (b'{"ok": true}\n', 1), "entries-text": (b'{"ok": true, "entries": "none"}\n', 1),
    "deep": (b'{"ok": true, "entries": ' + b"[" * 100000 + b"\n", 1),
    "escape": (b"\x1b[2J\n", 1), "long": (b"x" * (REPLY_MAX + 1), 1),
}


@pytest.mark.parametrize("case", GARBAGE)
def test_a_bad_answer_is_an_error_in_one_line(daemon, case):
    answer, status = GARBAGE[case]
    result = ask(daemon, "list", answers=[answer])
    assert (result.returncode, result.stdout) == (status, b"")
    assert re.fullmatch(rb"fwctl: [ -~]+\n", result.stderr)
    result = ask(daemon, "list", "--json", answers=[answer])
    assert result.returncode == status and json.loads(result.stdout)["error"]["message"]


def test_an_answer_of_the_largest_size_is_read_and_one_byte_more_is_not(daemon):
    answer = b'{"ok": true, "entries": []}'
    longest = answer + b" " * (REPLY_MAX - len(answer) - 1) + b"\n"
    assert ask(daemon, "list", answers=[longest]).returncode == 0
    result = ask(daemon, "list", answers=[b" " + longest])
    assert result.returncode == 1 and b"line over 1048576 bytes" in result.stderr


def test_a_verdict_that_is_none_is_an_error(daemon):
    for option in ([], ["--json"]):
        result = ask(daemon, "test", "10.0.0.1", *option, answers=[{"ok": True, "verdict": "maybe"}])
        assert result.returncode == 1 and b"verdict" in result.stderr


def test_a_verify_that_does_not_say_whether_all_agrees_is_an_error(daemon):
    result = ask(daemon, "verify", answers=[{"ok": True, "differences": []}])
    assert result.returncode == 1 and result.stdout == b""
    assert b'the answer has no "agrees", true or false' in result.stderr


def test_pieces_of_what_has_none_are_an_error(daemon):
    result = ask(daemon, "flush", answers=[{"ok": True, "more": True, "deleted": 1}])
    assert result.returncode == 1 and b"pieces" in result.stderr


@pytest.mark.parametrize("end, status", [(b"", 3), (b'{"ok": true, "entr', 3), (b"garbage\n", 1),
                                         (refusal("failed"), 1)])
def test_a_list_that_breaks_off_is_still_one_json_value(daemon, end, status):
    answers = [{"ok": True, "more": True, "entries": ENTRIES[:2]}, end]
    result = ask(daemon, "list", "--json", answers=answers)
    value = json.loads(result.stdout)
    assert result.returncode == status
    assert value["entries"] == ENTRIES[:2] and value["error"]["message"]
    result = ask(daemon, "list", answers=answers)
    assert result.returncode == status and len(result.stdout.splitlines()) == 3


def test_an_answer_before_the_request_was_read_is_heard(tmp_path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "busy.sock"))
    listener.listen()

    def turn_away():
        connection, _ = listener.accept()
        connection.sendall(json.dumps(refusal("busy", "too many connections")).encode() + b"\n")
        connection.close()

    for _ in range(20):
        thread = threading.Thread(target=turn_away)
        thread.start()
        result = fwctl("-s", tmp_path / "busy.sock", "status")
        thread.join()
        assert (result.returncode, result.stderr) == (1, b"fwctl: too many connections\n")
    listener.close()


# ---- long lists and odd outputs ----

def piece(first, n, more=True):
    entries = [{**ENTRIES[0], "prefix": f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}", "comment": None}
               for i in range(first, first + n)]
    return json.dumps({"ok": True, "more": more, "entries": entries}).encode() + b"\n"


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_list_is_printed_as_it_arrives(daemon, option):
    seen = threading.Event()
    daemon.answers = [piece(0, 10), seen.wait, piece(10, 10, False)]
    with subprocess.Popen([FWCTL, "-s", daemon.path, "list", *option], stdout=subprocess.PIPE) as process:
        lines = [process.stdout.readline() for _ in range(10)]
        assert b"10.0.0.8" in lines[9]
        seen.set()
        assert len(process.stdout.read().splitlines()) == (11 if not option else 12)
    assert process.returncode == 0


def test_a_reader_that_leaves_ends_it_at_once(daemon):
    """With the next rows that arrive, however many there would be, and without reading the rest."""
    sent = []
    rows = piece(0, 400)
    daemon.answers = [answer for i in range(2500) for answer in (rows, lambda i=i: sent.append(i))]
    started = time.monotonic()
    script = '"$0" -s "$1" list | head -n 3; echo "${PIPESTATUS[0]}"'
    result = subprocess.run(["bash", "-c", script, FWCTL, daemon.path], capture_output=True, timeout=60)
    assert time.monotonic() - started < 10
    assert len(result.stdout.splitlines()) == 4 and result.stderr == b""
    assert result.stdout.endswith(b"\n%d\n" % (128 + signal.SIGPIPE))
    assert len(sent) < 50, "a million rows were wanted, though nobody read them"


def peak_kb(pid):
    return int(re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text()).group(1))


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_long_list_does_not_fill_memory(daemon, option):
    peaks, started = [], threading.Event()

    def sample():
        started.wait()
        peaks.append(peak_kb(process.pid))

    middle = piece(0, 4000)
    daemon.answers = [*[middle] * 5, sample, *[middle] * 50, sample, piece(0, 1, False)]
    with subprocess.Popen([FWCTL, "-s", daemon.path, "list", *option], stdout=subprocess.DEVNULL,
                          env={**ENVIRONMENT, "ASAN_OPTIONS": "quarantine_size_mb=1"}) as process:
        started.set()
    assert process.returncode == 0
    assert peaks[1] < 1.2 * peaks[0]


def test_widths_are_kept_over_pieces_and_grow_where_they_must(daemon):
    long = {**ENTRIES[2], "comment": "x"}
    result = ask(daemon, "list", answers=[{"ok": True, "more": True, "entries": ENTRIES[:1]},
                                          {"ok": True, "more": True, "entries": [long]},
                                          {"ok": True, "entries": ENTRIES[:1]}])
    header, narrow, wide, last = result.stdout.decode().splitlines()
    assert header.index("COMMENT") == narrow.index("ssh") < wide.index("x") == last.index("ssh")


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_reader_that_leaves_ends_it_quietly(daemon, option):
    daemon.answers = [piece(i * 4000, 4000) for i in range(50)]
    for restore in (True, False):  # also where the caller ignores SIGPIPE
        process = subprocess.Popen([FWCTL, "-s", daemon.path, "list", *option], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, restore_signals=restore)
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == -signal.SIGPIPE


def test_output_that_cannot_be_written_is_an_error(daemon):
    for words in ("list", "list --json", "help", "--version"):
        with open("/dev/full", "wb") as full:
            result = ask(daemon, *words.split(), answers=[piece(0, 4000), piece(0, 1, False)], stdout=full,
                         stderr=subprocess.PIPE)
        assert result.returncode == 1
        assert result.stderr.startswith(b"fwctl: cannot write standard output")


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_closed_descriptors_are_not_taken_for_others(daemon, closed):
    words = {0: "add -", 1: "list", 2: "list"}[closed]
    command = f'"$0" -s "$1" {words} {closed}>&-'
    daemon.answers = [{"ok": True, "entries": []}]
    result = subprocess.run(["sh", "-c", command, FWCTL, daemon.path], capture_output=True, timeout=60)
    assert result.returncode == {0: 2, 1: 1, 2: 0}[closed]


# ---- help and completion ----

def test_help_of_each_command_shows_its_usage():
    commands = re.findall(r"^  ([a-z][a-z ]*[a-z])  ", fwctl("--help").stdout.decode(), re.M)
    for command in commands:
        for words in (["help", *command.split()], [*command.split(), "--help"], [*command.split(), "-h"]):
            result = fwctl(*words)
            assert result.returncode == 0 and result.stderr == b""
            assert result.stdout.decode().startswith(f"Usage: fwctl {command}")


def test_help_fits_a_terminal():
    commands = re.findall(r"^  ([a-z][a-z ]*[a-z])  ", fwctl("--help").stdout.decode(), re.M)
    for command in ("", "allow", "redirect", *commands):
        for line in fwctl("help", *command.split()).stdout.decode().splitlines():
            assert len(line) <= 80 and line == line.rstrip()


def test_the_example_of_each_command_is_a_good_command_line(daemon):
    commands = re.findall(r"^  ([a-z][a-z ]*[a-z])  ", fwctl("--help").stdout.decode(), re.M)
    for command in commands:
        example = fwctl("help", *command.split()).stdout.decode().rstrip().splitlines()[-1]
        example = re.split("&&|<", example)[0].split()
        assert example[0] == "fwctl"
        ask(daemon, *example[1:])
        assert daemon.requests.pop()["command"] == {"doctor": "status"}.get(command, command)


def complete(*words):
    script = """. "$0"; fwctl=$1; shift; COMP_WORDS=(fwctl "$@"); COMP_CWORD=$#
                _fwctl "$fwctl"; printf '%s\\n' "${COMPREPLY[@]}" """
    result = subprocess.run(["bash", "-c", script, str(SOURCE / "ctl/fwctl.bash-completion"), FWCTL, *words],
                            capture_output=True, timeout=60, check=True)
    assert result.stderr == b""
    return set(result.stdout.decode().split())


def test_completion_knows_the_commands_their_options_and_choices():
    assert complete("") == {"help", "add", "del", "list", "test", "flush", "allow", "feed", "redirect", "status",
                            "stats", "verify", "reload", "confirm", "doctor"}
    assert complete("-s", "/x", "--json", "st") == {"status", "stats"}
    assert complete("allow", "") == complete("redirect", "") == {"add", "del", "list"}
    assert complete("feed", "") == {"list", "replace", "reload"}
    assert complete("feed", "replace", "drop", "-f", str(SOURCE / "ctl/mai")) == {str(SOURCE / "ctl/main.c")}
    assert complete("help", "redirect", "a") == {"add"}
    assert complete("add", "10.0.0.1", "-") == {"-f", "--ttl", "--comment", "--confirm", "--force", "-s", "--json", "--help"}
    assert complete("redirect", "add", "tcp/80", "--d") == {"--direction"}
    assert complete("redirect", "add", "tcp/80", "--direction", "") == {"in", "out"}
    assert complete("redirect", "add", "tcp/80", "--mode", "") == {"auto", "l2", "neigh", "ingress"}
    assert "lo" in complete("redirect", "add", "tcp/80", "--on", "")
    assert complete("add", "-f", str(SOURCE / "ctl/mai")) == {str(SOURCE / "ctl/main.c")}
