# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/tour.md shows what really happens: its commands run here, and their output is compared.

In a ```console block a line "HOST$ COMMAND" or "HOST# COMMAND" is run at that host of the sandbox, and
the lines up to the next one are what it prints; a last line "[exit status N]" stands for one that is
not 0. The daemon runs with the configuration of the ```toml block.

FWD_TOUR_UPDATE=1 in the environment writes what is printed into the page, instead of comparing it.
"""
import os
import re
import shlex
from pathlib import Path

import pytest

from fwdtest.daemon import FWCTL, SANITIZER_OPTIONS, Daemon, fail_on_report
from fwdtest.sandbox import run

PAGE = Path(__file__).parents[1] / "docs" / "tour.md"

PROMPT = re.compile(r"^(\w+)[#$] (.+)$")

# What differs from run to run, and its name; all other text must be the same.
VARYING = [
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \w+"), "TIME"),
    (re.compile(r"(?<=process:        )\d+"), "PID"),
    (re.compile(r"(?<=maps:           )\S+ \S+"), "SIZE"),  # it depends on the number of CPUs
    (re.compile(r"(?<=version:        )\S+"), "VERSION"),
    (re.compile(r"\b(\d+(w|d|h|m|s|ms))+\b"), "AGE"),
    (re.compile(r"^eth0 +\d+ +native, (single program|dispatcher)", re.MULTILINE), "eth0 INDEX native, SHARED-OR-NOT"),
    (re.compile(r"(?<=_s\": )\d+"), "SECONDS"),
    (re.compile(r"(?<=back in )\d+(?= s)|(?<=or wait )\d+(?= s)"), "LEFT"),
    (re.compile(r" +"), " "),  # columns are as wide as what varies in them
]


def normal(lines):
    text = "\n".join(line.rstrip() for line in lines)
    for pattern, name in VARYING:
        text = pattern.sub(name, text)
    return text


def blocks(page, language):
    """(first line, line behind the last) of each block, without the fences."""
    start = None
    for number, line in enumerate(page):
        if start is None and line == f"```{language}":
            start = number + 1
        elif start is not None and line == "```":
            yield start, number
            start = None


class Tour:
    """The hosts of the page: `host`, where fwd runs, and `peer`, on the other end of its eth0."""

    def __init__(self, sandbox, rules):
        self.folder = sandbox.folder
        self.hosts = {name: sandbox.namespace(name) for name in ("host", "peer")}
        sandbox.link(self.hosts["host"], "eth0", self.hosts["peer"], "eth0")
        sandbox.tun(self.hosts["host"], "tun0")
        self.daemon = Daemon(sandbox, self.hosts["host"], rules).start()
        self.places = {
            str(self.daemon.config_path): "/etc/fwd/fwd.toml",
            str(self.daemon.pin_dir): "/sys/fs/bpf/fwd",
            str(self.daemon.socket_path): "/run/fwd/fwd.sock",
        }
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        tool = self.bin / "fwctl"
        socket = shlex.quote(str(self.daemon.socket_path))
        tool.write_text("#!/bin/sh\n"
                        f'[ "$1" = -s ] || set -- -s {socket} "$@"\n'
                        f'exec {shlex.quote(str(FWCTL))} "$@"\n')
        tool.chmod(0o755)

    def run(self, host, command):
        """The lines that it prints."""
        for real, shown in self.places.items():
            command = command.replace(shown, real)
        env = os.environ | SANITIZER_OPTIONS | {
            "PATH": f"{self.bin}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        words = [*self.hosts[host].enter, "bash", "-c", f"exec 2>&1; {command}"]
        done = run(*words, check=False, cwd=self.folder, env=env)
        fail_on_report(done.stdout)
        text = done.stdout
        for real, shown in self.places.items():
            text = text.replace(real, shown)
        lines = [line.rstrip() for line in text.splitlines()]
        return lines + ([f"[exit status {done.returncode}]"] if done.returncode else [])

    def print_block(self, block):
        """The block as it should be: its commands, each with what it prints now."""
        printed = []
        for line in block:
            if prompt := PROMPT.match(line):
                if printed:
                    printed.append("")
                printed += [line, *self.run(*prompt.groups())]
        return printed


def test_the_tour_shows_what_happens(sandbox):
    page = PAGE.read_text().splitlines()
    [(first, behind)] = blocks(page, "toml")
    tour = Tour(sandbox, "\n".join(page[first:behind]))
    fresh, done = [], 0
    for first, behind in blocks(page, "console"):
        fresh += page[done:first] + tour.print_block(page[first:behind])
        done = behind
    fresh += page[done:]
    if os.environ.get("FWD_TOUR_UPDATE"):
        PAGE.write_text("\n".join(fresh) + "\n")
        pytest.skip(f"{PAGE} is written anew")
    assert normal(page) == normal(fresh)
    tour.daemon.stop()


def test_every_command_of_the_tool_is_in_the_tour():
    commands = re.findall(r"^  ([a-z][a-z ]*[a-z])  ", run(FWCTL, "--help").stdout, re.MULTILINE)
    assert len(commands) >= 17
    commands.remove("doctor")  # what it prints is the host's
    missing = [command for command in commands if f"fwctl {command}" not in PAGE.read_text()]
    assert missing == []
