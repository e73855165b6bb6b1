# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel has, seen past the daemon: programs of interfaces, filters, pinned maps; and
programs of somebody else."""
import ctypes
import ipaddress
import json
import mmap
import os
import re
import struct
from pathlib import Path

from .sandbox import run

TC_HANDLE, TC_PRIORITY = 0x667764, 10  # daemon/tc.h

# bpf/abi.h: struct fwd_control as far as its views, struct fwd_view
CONTROL, VIEW = struct.Struct("=IIII"), struct.Struct("=BBBx4I")

# bpf/trie.h: what is known and the address of struct fwd_entry and struct fwd_entry6; the lines
ENTRY4, ENTRY6 = struct.Struct("=Q20xI"), struct.Struct("=Q24xQQ16x")
USED, ALLOW = 1, 2
LINE_WORDS, NODE_WORDS = 16, 12  # of a line; of a node in front of its cells
NODE, LIST, INDEX = 0x80000000, 0x40000000, 0x3FFFFFFF
TABLE_CELLS = 1 << 16

# The smallest programs, without any header; "shot_marked" drops what "mark" has marked.
FOREIGN = """
#define SECTION(name) __attribute__((section(name), used))
SECTION("xdp") int xdp_pass(void *ctx) { return 2; }
SECTION("mark") int set_mark(unsigned *skb) { skb[2] = 7; return -1; }
SECTION("shot_marked") int shot_if_marked(unsigned *skb) { return skb[2] == 7 ? 2 : -1; }
"""


class Foreign:
    """Programs of somebody else, on interfaces and in clsact."""

    def __init__(self, sandbox):
        source, self.path = sandbox.folder / "foreign.c", sandbox.folder / "foreign.o"
        source.write_text(FOREIGN)
        run("clang", "-O2", "-target", "bpf", "-c", source, "-o", self.path)

    def hold(self, interface):
        interface.namespace.run("ip", "link", "set", "dev", interface.name, "xdp", "obj", self.path, "sec", "xdp")

    def filter(self, interface, preference, section, direction="ingress"):
        interface.namespace.run("tc", "filter", "add", "dev", interface.name, direction, "pref", preference,
                                "bpf", "direct-action", "obj", self.path, "sec", section)


def xdp_id(interface):
    """The id of the program that the interface runs (a dispatcher's where it has one), or None."""
    return interface.link().get("xdp", {}).get("prog", {}).get("id")


def filters(interface, direction="ingress"):
    """{(priority, handle): program id} of all bpf filters."""
    shown = interface.namespace.run("tc", "filter", "show", "dev", interface.name, direction).stdout
    return {(int(priority), int(handle, 16)): int(program)
            for priority, handle, program in re.findall(r"pref (\d+) .*handle (0x[0-9a-f]+) .* id (\d+) ", shown)}


def has_clsact(interface):
    return "clsact" in interface.namespace.run("tc", "qdisc", "show", "dev", interface.name).stdout


def program_ids(daemon):
    """{pin: id} of the programs that the daemon has pinned."""
    pins = [pin for hook in ("xdp", "tc") for pin in (daemon.pin_dir / "current").glob(f"{hook}_*")]
    return {pin.name: json.loads(run("bpftool", "-j", "prog", "show", "pinned", pin).stdout)["id"] for pin in pins}


def entries(daemon, table="block"):
    """The prefixes of "block" or "allow" in the maps that packets see; no other can be reached."""
    roots, lines, entries4, entries6 = _bank_in_use(daemon)
    flags = USED if table == "block" else USED | ALLOW
    prefixes = set()
    for family, rows in enumerate((list(ENTRY4.iter_unpack(entries4)), list(ENTRY6.iter_unpack(entries6)))):
        used = {index for index, row in enumerate(rows) if row[0] & (USED | ALLOW) == flags}
        assert _reached(lines, roots[(flags & ALLOW) + family]) <= used
        prefixes |= {_prefix(*rows[index]) for index in used}
    return prefixes


def _bank_in_use(daemon):
    """The roots of its tries (enum fwd_trie) and the content of its maps, all of one moment."""
    control = None
    while control != (now := _memory(daemon, "control")):
        control = now
        view = CONTROL.unpack_from(control)[2]
        bank, _, _, *roots = VIEW.unpack_from(control, CONTROL.size + view * VIEW.size)
        lines, *rows = [_memory(daemon, f"{name}_{bank}") for name in ("lines", "entries4", "entries6")]
    assert CONTROL.unpack_from(control)[3] == 0, "the daemon is not at rest"
    return roots, memoryview(lines).cast("I"), *rows


def _memory(daemon, name):
    """The elements of a pinned map."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    pin = daemon.pin_dir / "current" / name
    fd = libbpf.bpf_obj_get(os.fsencode(pin))
    assert fd >= 0, f"{pin}: {os.strerror(ctypes.get_errno())}"
    shown = dict(line.split(":\t") for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())
    with mmap.mmap(fd, int(shown["value_size"]) * int(shown["max_entries"]), access=mmap.ACCESS_READ) as memory:
        content = memory[:]
    os.close(fd)
    return content


def _reached(lines, cell):
    """The numbers of the entries that a cell of a trie leads to."""
    first = (cell & INDEX) * LINE_WORDS
    if cell & NODE and cell & LIST:
        cells = lines[first:first + TABLE_CELLS]
    elif cell & NODE:
        count = sum(word.bit_count() for word in lines[first:first + 8])
        cells = [lines[first + 10], *lines[first + NODE_WORDS:first + NODE_WORDS + count]]
    elif cell & LIST:
        behind = next(i for i in range(first, len(lines)) if not lines[i])
        return set(lines[first:behind])
    else:
        return {cell} if cell else set()
    return {entry for below in cells if below for entry in _reached(lines, below)}


def _prefix(about, *words):
    length = about >> 8 & 0xFF
    address = ipaddress.IPv4Address(*words) if len(words) == 1 else ipaddress.IPv6Address(words[0] << 64 | words[1])
    return str(address) if length == address.max_prefixlen else f"{address}/{length}"


def set_abi_version(daemon, version):
    """Has the pinned maps look like those of another build."""
    pin = daemon.pin_dir / "current" / "control"
    value = json.loads(run("bpftool", "-j", "map", "lookup", "pinned", pin, "key", *b"\0\0\0\0").stdout)["value"]
    run("bpftool", "map", "update", "pinned", pin, "key", *b"\0\0\0\0",
        "value", *struct.pack("=I", version), *(int(byte, 16) for byte in value[4:]))
