# SPDX-License-Identifier: GPL-2.0-or-later
"""fwd in a namespace, and fwctl.

    daemon = Daemon(sandbox, host, RULES, on_stop="detach").start()
    daemon.fwctl("add", "10.1.0.2")
    daemon.fwctl_json("list")["entries"]
    daemon.stop()

The programs come from the build folder that FWD_BUILD names, build-dev by default. A report of a
sanitizer fails the test, whichever of the two programs made it, also when it was ended by a signal.
"""
import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path

from .client import Client
from .sandbox import SLOW, run

BUILD = Path(os.environ.get("FWD_BUILD", Path(__file__).parents[2] / "build-dev")).resolve()
FWD = BUILD / "daemon" / "fwd"
FWCTL = BUILD / "ctl" / "fwctl"
FWD_NEWER = BUILD / "netns-tests" / "fwd-newer"  # with maps of another ABI

SANITIZER_REPORT = re.compile(r"ERROR: \w+Sanitizer|runtime error:|SUMMARY: \w+Sanitizer")
SANITIZER_OPTIONS = {"ASAN_OPTIONS": "exitcode=99", "UBSAN_OPTIONS": "print_stacktrace=1"}

START_WAIT_S = 60 * SLOW
STOP_WAIT_S = 10 * SLOW


def fail_on_report(text):
    if SANITIZER_REPORT.search(text):
        raise AssertionError(f"a sanitizer reports:\n{text}")


def fwd(*arguments, namespace=None, by=(), env=None, **options):
    """Runs fwd until it ends by itself (--check, --help, a refusal to start); `by`: words in front."""
    enter = [*by, *(namespace.enter if namespace else [])]
    done = run(*enter, FWD, *arguments, env=os.environ | SANITIZER_OPTIONS | (env or {}), **options)
    fail_on_report(done.stderr)
    return done


def fwctl(*arguments, env=None, by=(), **options):
    """fwctl's CompletedProcess; `check=False` where it is meant to fail, `input=` for "add -".

    As if the tests were not run over SSH, unless `env` has SSH_CONNECTION; `by`: words in front.
    """
    done = run(*by, FWCTL, *arguments, env=os.environ | SANITIZER_OPTIONS | {"SSH_CONNECTION": ""} | (env or {}),
               **options)
    fail_on_report(done.stderr)
    return done


class Notify:
    """The service manager's end of sd_notify(3)."""

    def __init__(self, path):
        self.path = path
        self.lines = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def close(self):
        self._socket.close()
        self.path.unlink()

    def receive(self, wait_s):
        """Appends to `lines` what was sent; waits for it at most so long. False if nothing was."""
        self._socket.settimeout(wait_s)
        try:
            self.lines += self._socket.recv(65536).decode().splitlines()
        except (TimeoutError, BlockingIOError):
            return False
        return True


class Daemon:
    """fwd with socket, state and pins of its own, stopped with the sandbox at the latest.

    `rules` is TOML after the [daemon] table, whose keys are given by name.
    """

    def __init__(self, sandbox, namespace, rules="", label="fwd", binary=FWD, env=None, **keys):
        self.namespace, self.binary = namespace, binary
        self.folder = sandbox.folder / label
        self.folder.mkdir()
        self.config_path = self.folder / "fwd.toml"
        self.log_path = self.folder / "log"
        self.pin_dir = sandbox.bpffs / label
        self.socket_path = self.folder / "fwd.sock"
        self.keys = {
            "socket": str(self.socket_path),
            "group": "root",
            "state_dir": str(self.folder / "state"),
            "pin_dir": str(self.pin_dir),
            "log_level": "info",
        } | keys
        # Where libxdp pins its dispatcher: in the sandbox too, since interface numbers repeat.
        self.env = os.environ | SANITIZER_OPTIONS | {"LIBXDP_BPFFS": str(sandbox.bpffs)} | (env or {})
        self.process = None
        self.notify = None
        self.write_rules(rules)
        sandbox.at_exit(self.end)

    def write_rules(self, rules):
        """Writes the configuration; a running daemon sees it at the next reload."""
        daemon = "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.keys.items())
        self.config_path.write_text(f"[daemon]\n{daemon}\n{rules}\n")

    def spawn(self):
        """Starts it without waiting for anything."""
        self.notify = Notify(self.folder / "notify")
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.namespace.enter, self.binary, "-c", self.config_path],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=self.env | {"NOTIFY_SOCKET": str(self.notify.path)})
        return self

    def start(self):
        """Starts it and waits until it says that it is ready."""
        self.spawn()
        self.wait_for("READY=1", START_WAIT_S)
        return self

    def wait_for(self, line, wait_s):
        """Waits for a line of sd_notify(3) that it has not waited for before."""
        deadline = time.monotonic() + wait_s
        while line not in self.notify.lines:
            if not self.notify.receive(0.1) and not self.running():
                raise AssertionError(f"fwd ended with {self._reap(0)} before {line}:\n{self.log()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"no {line} within {wait_s} s:\n{self.log()}")
        self.notify.lines.remove(line)

    def running(self):
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self):
        return self.process.pid

    def memory_kib(self, field):
        """proc_pid_status(5): VmRSS is what it has in memory now, VmHWM the most that it ever had."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)[1])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self):
        """SIGTERM, and exit status 0."""
        self.signal(signal.SIGTERM)
        status = self._reap(STOP_WAIT_S)
        if status != 0:
            raise AssertionError(f"fwd stopped with {status}:\n{self.log()}")

    def kill(self):
        self.signal(signal.SIGKILL)
        self._reap(STOP_WAIT_S)

    def _reap(self, wait_s):
        status = self.process.wait(wait_s)
        self._read_notices()
        self.notify.close()
        self.process = self.notify = None
        fail_on_report(self.log())
        return status

    def end(self):
        """What the sandbox calls: no process stays."""
        if not self.process:
            return
        if self.running():
            self.signal(signal.SIGTERM)
        try:
            self._reap(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def _read_notices(self):
        """A queue that is full of them would hold up the daemon, as no service manager does."""
        while self.notify and self.notify.receive(0):
            pass

    def fwctl(self, *arguments, **options):
        self._read_notices()
        return fwctl("-s", self.socket_path, *arguments, **options)

    def fwctl_json(self, *arguments, **options):
        return json.loads(self.fwctl("--json", *arguments, **options).stdout)

    def client(self, **options):
        return Client(self.socket_path, **options)

    def request(self, command, **fields):
        """The answer to one request: what fwctl would get, without its process."""
        self._read_notices()
        with self.client() as client:
            return client.request(command, **fields)

    def verdicts(self):
        """Packets by (interface, hook, verdict), those that are not zero."""
        return {
            (interface["name"], hook["hook"], verdict): count["packets"]
            for interface in self.request("stats")["interfaces"]
            for hook in interface["hooks"]
            for verdict, count in hook["verdicts"].items()
            if count["packets"]
        }
