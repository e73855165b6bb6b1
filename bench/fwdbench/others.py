# SPDX-License-Identifier: GPL-2.0-or-later
"""nftables, ipset and xdp-filter at an interface: loaded with a set, and what each has dropped."""
import json
import os
import re
import time
from pathlib import Path

from fwdtest.kernel import xdp_id
from fwdtest.sandbox import run

from . import bpf, sets
from .nfnetlink import counter_packets

LOAD_WAIT_S, SETTLE_S = 1800, 10
NFT_BYTES = 2000  # of memory an entry while `nft -f` runs: 1.4 GB were seen for a million
XDP_FILTER_MAX = 10000  # its map's size, xdp-filter/xdpfilt_prog.h

NFT_TABLE = """table netdev bench {{
	counter dropped {{
	}}
	set blocked {{
		type ipv4_addr
		flags interval
		auto-merge
	}}
	chain ingress {{
		type filter hook ingress device {interface} priority 0
		ip saddr @blocked counter name dropped drop
	}}
}}
"""


class Skipped(Exception):
    """It cannot be measured here; says why."""


def available_bytes():
    return int(re.search(r"MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024


def settled_bytes():
    """What is available once the kernel has freed what others have left."""
    before, deadline = -1, time.monotonic() + SETTLE_S
    while (now := available_bytes()) - before > 1 << 20 and time.monotonic() < deadline:
        before = now
        time.sleep(0.5)
    return now


def need_memory(count):
    need, there = count * NFT_BYTES + (512 << 20), available_bytes()
    if there < need:
        raise Skipped(f"{count} entries want {need >> 20} MiB of memory, {there >> 20} are available")


class Nftables:
    """A set of intervals in a netdev ingress hook."""
    name = "nftables"

    def __init__(self, host, interface, folder):
        self._host, self._folder = host, folder
        host.run("nft", "-f", "-", input=NFT_TABLE.format(interface=interface))

    def write(self, entries, name, in_place=False):
        """The command that loads them; `in_place` of what is there, in one transaction."""
        path = self._folder / f"{name}.nft"
        with open(path, "w") as file:
            if in_place:
                file.write("flush set netdev bench blocked\n")
            file.write("add element netdev bench blocked {\n")
            file.writelines(sets.text(4, entry) + ",\n" for entry in entries)
            file.write("}\n")
        return ["nft", "-f", path]

    def change(self, verb, prefix):
        """The command that adds ("add") or deletes ("delete") one."""
        return ["nft", verb, "element", "netdev", "bench", "blocked", f"{{ {prefix} }}"]

    def dropped(self):
        return counter_packets(self._host, "bench", "dropped")

    def kernel_bytes(self, available_before):
        """By how much less is available: it does not tell itself."""
        return max(0, available_before - settled_bytes())


class Ipset:
    """hash:net, matched in iptables' raw table."""
    name = "ipset"

    def __init__(self, host, folder, size):
        self._host, self._folder, self._size = host, folder, size
        host.run("ipset", "create", "blocked", "hash:net", "maxelem", size)
        host.run("iptables", "-t", "raw", "-I", "PREROUTING", "-m", "set", "--match-set", "blocked", "src",
                 "-j", "DROP")

    def write(self, entries, name, in_place=False):
        """The command that loads them; `in_place` of what is there, by a set that is made aside."""
        path, target = self._folder / f"{name}.ipset", "aside" if in_place else "blocked"
        with open(path, "w") as file:
            if in_place:
                file.write(f"create {target} hash:net maxelem {self._size}\n")
            file.writelines(f"add {target} {sets.text(4, entry)}\n" for entry in entries)
            if in_place:
                file.write(f"swap {target} blocked\ndestroy {target}\n")
        return ["ipset", "-exist", "restore", "-file", path]

    def change(self, verb, prefix):
        return ["ipset", {"add": "add", "delete": "del"}[verb], "blocked", prefix]

    def dropped(self):
        return iptables_packets(self._host, "match-set")

    def kernel_bytes(self, _):
        header = self._host.run("ipset", "list", "-terse", "blocked").stdout
        return int(re.search(r"Size in memory: (\d+)", header)[1])


def iptables_packets(host, text):
    """What the rule of raw PREROUTING with this text has counted."""
    listed = host.run("iptables", "-t", "raw", "-L", "PREROUTING", "-v", "-x", "-n").stdout.splitlines()
    return next(int(line.split()[0]) for line in listed if "DROP" in line and text in line)


class XdpFilter:
    """Holds single addresses, at most XDP_FILTER_MAX."""
    name = "xdp-filter"

    def __init__(self, interface, addresses):
        first = sets.text(4, (addresses[0], 32))
        # Its maps are pinned at one place for all namespaces: give it a bpffs of its own.
        run("unshare", "--mount", *interface.namespace.enter, "sh", "-ec", f"""
            mount -t bpf bpf /sys/fs/bpf
            xdp-filter load --mode native --policy allow --features ipv4 {interface.name}
            xdp-filter ip --mode src {first}""", env=os.environ | {"LIBXDP_SKIP_DISPATCHER": "1"})
        self._fill(xdp_id(interface), addresses)

    @staticmethod
    def _fill(program, addresses):
        """As the tool would, a process an address: with the value that it wrote for the first."""
        maps = json.loads(run("bpftool", "-j", "prog", "show", "id", program).stdout)["map_ids"]
        shown = [json.loads(run("bpftool", "-j", "map", "show", "id", map_id).stdout) for map_id in maps]
        fd = bpf.open_map(next(one["id"] for one in shown if one["name"] == "filter_ipv4"))
        keys = [sets.packed(4, address) for address in addresses]
        value = bpf.lookup(fd, keys[0], 8 * bpf.possible_cpus())
        bpf.update_batch(fd, b"".join(keys), value * len(keys), len(keys))
        os.close(fd)
