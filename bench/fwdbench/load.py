# SPDX-License-Identifier: GPL-2.0-or-later
"""fwd under load: what others wait for meanwhile, and whether memory, descriptors and disk stay flat.

    rate       adds without an end, in batches over several connections, at a fixed rate
    crowd      a thousand connections, half of them silent
    unread     a client that reads nothing of a list of all
    deletes    all of them are deleted again while packets run

Meanwhile a probe asks: `test`, `status`, and an add of its own, each waiting for its answer.
"""
import contextlib
import json
import random
import resource
import socket
import threading
import time

from fwdtest.daemon import Daemon
from fwdtest.sandbox import Sandbox
from fwdtest.stream import Stream

from .change import summary
from .contenders import START_WAIT_S, max_entries

CONNECTIONS, BATCH, RATE = 4, 1000, 100_000  # adds a second, all connections together
LATE_S = 1  # a connection that is so far behind does not catch up
PROBE_PAUSE_S, LOOK_S = 0.005, 1
CLIENTS, ROUNDS = 1000, 10
UNREAD_S = 5
WAIT_S = 60
OTHERS = 1 << 17  # entries of the probe and the crowd
BLOCKED, ALLOWED = "10.1.0.2", "10.1.0.3"


def _text(number):
    return f"172.{16 + (number >> 16 & 15)}.{number >> 8 & 255}.{number & 255}"


def _line(command, **fields):
    return json.dumps({"command": command} | fields).encode() + b"\n"


def _ask(connection, request):
    """Seconds until the answer, which has to be a good one."""
    start = time.perf_counter()
    connection.sendall(request)
    answer = b""
    while not answer.endswith(b"\n"):
        more = connection.recv(1 << 16)
        assert more, f"closed after {request[:60]}"
        answer += more
    seconds = time.perf_counter() - start
    assert b'"ok":true' in answer, (request[:60], answer[:200])
    return seconds


class _Background:
    """Calls that a thread of its own makes until the block ends; what one of them raises is raised there."""

    def __init__(self, daemon, calls):
        self._daemon, self._calls, self._end, self._failure = daemon, calls, threading.Event(), None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            with _connect(self._daemon) as connection:
                for call in self._calls:
                    if self._end.is_set():
                        return
                    call(connection)
        except BaseException as failure:  # raised again by __exit__
            self._failure = failure

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._end.set()
        self._thread.join()
        if self._failure and not kind:
            raise self._failure

    def wait(self):
        """Until there are no more calls."""
        self._thread.join()


@contextlib.contextmanager
def _connect(daemon):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(daemon.socket_path))
        connection.settimeout(WAIT_S)
        yield connection


class _Probe(_Background):
    """Another client. `seconds` by request."""

    def __init__(self, daemon):
        self.seconds = {"test": [], "status": [], "add": []}
        super().__init__(daemon, self._requests())

    def _requests(self):
        number = 0
        while True:
            number += 1
            for name, request in (("test", _line("test", address="172.16.0.1")), ("status", _line("status")),
                                  ("add", _line("add", prefixes=[f"198.18.{number >> 8 & 255}.{number & 255}"]))):
                yield lambda connection, name=name, request=request: self._note(connection, name, request)

    def _note(self, connection, name, request):
        self.seconds[name].append(_ask(connection, request))
        time.sleep(PROBE_PAUSE_S)

    def summaries(self):
        return {name: summary(seconds) for name, seconds in self.seconds.items() if seconds}


def _state_bytes(daemon):
    total = 0
    for path in (daemon.folder / "state").rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # it has been folded
            total += path.stat().st_size
    return total


class _Use(_Background):
    """What the daemon needs, looked at now and then, the first time at once."""

    def __init__(self, daemon):
        self.looks, self._began = [], time.monotonic()
        super().__init__(daemon, self._look())

    def _look(self):
        while True:
            yield lambda _: self._note()

    def _note(self):
        daemon = self._daemon
        self.looks.append({"s": time.monotonic() - self._began, "rss_bytes": daemon.memory_kib("VmRSS") * 1024,
                           "descriptors": daemon.descriptors(), "state_bytes": _state_bytes(daemon)})
        self._end.wait(LOOK_S)


def _measure(daemon, name, act):
    with _Use(daemon) as use, _Probe(daemon) as probe:
        began = time.monotonic()
        said = act() or {}
        seconds = time.monotonic() - began
    return {"case": name, "seconds": seconds, "probe": probe.summaries(), "use": use.looks} | said


class _Adder(_Background):
    """Batches at a rate, one after the other is answered."""

    def __init__(self, daemon, requests, rate, until):
        self.seconds = []
        self._requests, self._pause, self._until = requests, BATCH / rate, until
        super().__init__(daemon, self._batches())

    def _batches(self):
        due, number = time.monotonic(), 0
        while (now := time.monotonic()) < self._until:
            if now < due:
                time.sleep(due - now)
            due = max(due + self._pause, now - LATE_S)
            request = self._requests[number % len(self._requests)]
            number += 1
            yield lambda connection, request=request: self.seconds.append(_ask(connection, request))


def _batches(command, pool, rng):
    order = list(range(pool))
    rng.shuffle(order)
    return [_line(command, prefixes=[_text(number) for number in order[at:at + BATCH]])
            for at in range(0, pool, BATCH)]


def _rate(daemon, requests, seconds):
    until = time.monotonic() + seconds
    with contextlib.ExitStack() as stack:
        adders = [stack.enter_context(_Adder(daemon, requests[i::CONNECTIONS], RATE / CONNECTIONS, until))
                  for i in range(CONNECTIONS)]
        for adder in adders:
            adder.wait()
    batches = [one for adder in adders for one in adder.seconds]
    return {"batch": summary(batches), "adds_per_s": len(batches) * BATCH / seconds}


def _crowd(daemon):
    """Every client that is not silent asks twice a second, whatever the others wait for."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(_connect(daemon)) for _ in range(CLIENTS - 2)]
        for client in clients[::4]:
            client.sendall(b'{"command": ')
        for _ in range(ROUNDS):
            for number, client in enumerate(clients[1::2]):
                time.sleep(1 / CLIENTS)
                address = f"198.19.{number >> 8}.{number & 255}"
                client.sendall((_line("test", address=address), _line("status"),
                                _line("add", prefixes=[address]) + _line("del", prefixes=[address]))[number % 3])
            for number, client in enumerate(clients[1::2]):
                answer = b""
                while answer.count(b"\n") < 1 + (number % 3 == 2):
                    answer += client.recv(1 << 16)
                assert answer.count(b'"ok":true') == answer.count(b"\n"), answer


def _unread(daemon):
    with _connect(daemon) as client:
        client.sendall(_line("list"))
        time.sleep(UNREAD_S)


def _deletes(daemon, sender, requests):
    """No packet of a blocked source passes, and of an allowed one none is lost."""
    with Stream(sender, blocked=BLOCKED, allowed=ALLOWED) as stream, _connect(daemon) as client:
        seconds = [_ask(client, request) for request in requests]
    stream.only_arrives("allowed")
    return {"batch": summary(seconds), "packets": sum(stream.sent.values()),
            "deletes_per_s": len(requests) * BATCH / sum(seconds)}


def _files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(options, log):
    """{"entries", "cases": [{case, seconds, probe, use, batch, ...}]}"""
    rng, pool, seconds = random.Random(f"{options.seed} load"), max(options.entries), 5 if options.quick else 60
    pool = max(BATCH * CONNECTIONS, min(pool, 1 << 20) // BATCH * BATCH)
    adds, deletes, cases = _batches("add", pool, rng), _batches("del", pool, rng), []
    _files()
    with Sandbox() as sandbox:
        host, peer = sandbox.namespace("load-host"), sandbox.namespace("load-peer")
        _, wire = sandbox.link(host, "eth0", peer, "wire")
        rules = '[[interface]]\nname = "eth0"\n' + max_entries(pool + OTHERS)
        daemon = Daemon(sandbox, host, rules, log_level="warning")
        daemon.spawn()
        daemon.wait_for("READY=1", START_WAIT_S)
        daemon.request("add", prefixes=[BLOCKED])

        def case(name, act, *arguments):
            log(f"load: {name}")
            cases.append(_measure(daemon, name, lambda: act(daemon, *arguments)))

        case(f"{RATE:,} adds a second for {seconds} s", _rate, adds, seconds)
        everything = sandbox.folder / "pool"
        everything.write_text("\n".join(map(_text, range(pool))))
        daemon.fwctl("add", "-f", everything)
        case(f"{CLIENTS:,} clients, half of them silent", _crowd)
        case("a list of all that nobody reads", _unread)
        case("all deleted while packets run", _deletes, wire, deletes)
        daemon.stop()
    return {"entries": pool, "cases": cases}
