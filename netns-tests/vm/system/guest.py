# SPDX-License-Identifier: GPL-2.0-or-later
"""The system as its administrator sees it, and what the witness saw."""
import json
import subprocess
import time
from pathlib import Path

from addresses import GUEST_MAC, RECORD

WAIT_S = 120  # emulated machines are slow


def run(*command, check=True):
    """The output of a command."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def fwctl(*words):
    return json.loads(run("fwctl", "--json", *words))


def show(unit, field):
    return run("systemctl", "show", "--value", "-p", field, unit)


def wait_until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s"
        time.sleep(0.1)


def card():
    """The name of the network card."""
    [found] = [path.parent.name for path in Path("/sys/class/net").glob("*/address")
               if path.read_text().strip() == GUEST_MAC]
    return found


def has_program():
    return "xdp" in json.loads(run("ip", "-json", "link", "show", "dev", card()))[0]


def seen():
    """Packets that came in since the system started: {"blocked": count, "free": count}."""
    return json.loads(Path(RECORD).read_text())


def more(name, packets=20):
    """Waits until so many more have come in."""
    before = seen()[name]
    wait_until(lambda: seen()[name] >= before + packets)


def cycles():
    """What the service manager said of orders that it could not keep."""
    return [line for line in run("journalctl", "-b", "-o", "cat").splitlines() if "ordering cycle" in line]
