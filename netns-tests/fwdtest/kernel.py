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

from .sandbox import run

TC_HANDLE, TC_PRIORITY = 0x667764, 10  # daemon/tc.h
ENTRY = struct.Struct("=16sBBBB4xQQQQ8x")  # struct fwd_entry, bpf/abi.h

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
    pins = (daemon.pin_dir / "current").glob("*_[0-9]*")
    return {pin.name: json.loads(run("bpftool", "-j", "prog", "show", "pinned", pin).stdout)["id"] for pin in pins}


def entries(daemon, name="block_entries"):
    """{prefix: views} of the entries in use, read as the programs read them; in no order."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    pin = daemon.pin_dir / "current" / name
    size = json.loads(run("bpftool", "-j", "map", "show", "pinned", pin).stdout)["max_entries"] * ENTRY.size
    fd = libbpf.bpf_obj_get(os.fsencode(pin))
    assert fd >= 0, f"{pin}: {os.strerror(ctypes.get_errno())}"
    with mmap.mmap(fd, size, access=mmap.ACCESS_READ) as memory:
        rows = list(ENTRY.iter_unpack(memory))
    os.close(fd)
    return {_prefix(address, family, length): views for address, family, length, views, used, *_ in rows if used}


def _prefix(address, family, length):
    address = ipaddress.ip_address(address[:4] if family == 4 else address)
    return str(address) if length == address.max_prefixlen else f"{address}/{length}"


def set_abi_version(daemon, version):
    """Has the pinned maps look like those of another build."""
    pin = daemon.pin_dir / "current" / "control"
    value = json.loads(run("bpftool", "-j", "map", "lookup", "pinned", pin, "key", *b"\0\0\0\0").stdout)["value"]
    run("bpftool", "map", "update", "pinned", pin, "key", *b"\0\0\0\0",
        "value", *struct.pack("=I", version), *(int(byte, 16) for byte in value[4:]))
