# SPDX-License-Identifier: GPL-2.0-or-later
"""Where and with what it was measured."""
import os
import platform
import re
import time
from pathlib import Path

from fwdtest.daemon import FWD
from fwdtest.sandbox import run

PACKAGES = ("nftables", "ipset", "iptables", "xdp-tools", "libbpf1", "clang", "gcc")


def _version(package):
    shown = run("dpkg-query", "-W", "-f", "${Version}", package, check=False)
    return shown.stdout or "not installed"


def _commit():
    shown = run("git", "-C", Path(__file__).parent, "describe", "--always", "--dirty", check=False)
    return shown.stdout.strip() or "not known"


def describe(options):
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal: *(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": f"{cpu[1] if cpu else platform.machine()}, {os.cpu_count()} cores, measured on {options.cpu}",
        "memory": f"{int(memory[1]) >> 10} MiB",
        "kernel": platform.release(),
        "fwd": f"{run(FWD, '--version').stdout.strip()}, commit {_commit()}",
        "versions": ", ".join(f"{package} {_version(package)}" for package in PACKAGES),
        "seed, rounds": f"{options.seed}, {options.rounds}",
    }
