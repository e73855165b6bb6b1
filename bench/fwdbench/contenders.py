# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs with a set in their maps. Each has a `name`; the sandbox lets go of them."""
import contextlib
import os
import struct

from fwdtest.daemon import Daemon

from . import bpf, sets

START_WAIT_S = 600
ETH0 = '[[interface]]\nname = "eth0"\nxdp_mode = "native"\n'


def max_entries(count):
    return f"[blacklist]\nmax_entries = {max(count, 1)}\n"


class Fwd:
    """The daemon at a host's eth0, the set as a feed."""
    name = "fwd"

    def __init__(self, sandbox, host, family, entries, room=0):
        feed_file = sets.write(sandbox.folder / "feed.txt", family, entries)
        feed = f'[[blacklist.feed]]\nname = "bench"\nfile = "{feed_file}"\n'
        self.daemon = Daemon(sandbox, host, ETH0 + max_entries(len(entries) + room) + feed)
        self.daemon.spawn()
        self.daemon.wait_for("READY=1", START_WAIT_S)

    def open_program(self):
        """As it is pinned now: the daemon may load another one when its maps grow."""
        return bpf.open_pinned(self.daemon.pin_dir / "current" / "xdp_0")

    def memory(self):
        """The maps that the daemon has open or pinned, and its own pages."""
        maps = {}

        def note(fd, pid):
            with contextlib.suppress(OSError):
                info = bpf.descriptor_info(fd, pid)
                if "map_id" in info:
                    maps[info["map_id"]] = int(info["memlock"])

        for fd in os.listdir(f"/proc/{self.daemon.pid}/fd"):
            note(fd, self.daemon.pid)
        for pin in (self.daemon.pin_dir / "current").iterdir():
            fd = bpf.open_pinned(pin)
            note(fd, "self")
            os.close(fd)
        return {"kernel_bytes": sum(maps.values()), "process_bytes": self.daemon.memory_kib("RssAnon") * 1024}


def _open(sandbox, build, name, sizes, flags):
    program = bpf.Object(build / f"{name}.bpf.o", sizes, flags=flags)
    sandbox.at_exit(program.close)
    return program


class Hash:
    """Holds hosts only: it has one address of each entry."""

    name = "hash (hosts)"

    def __init__(self, sandbox, build, family, addresses, flags=0):
        addresses, name = dict.fromkeys(addresses), f"blocked{family}"
        opened = _open(sandbox, build, "hash", {name: len(addresses)}, flags)
        keys = b"".join(sets.packed(family, address) for address in addresses)
        bpf.update_batch(opened.map(name), keys, bytes(8 * len(addresses)), len(addresses))
        self.program = opened.program("blacklist")


def lpm_keys(family, entries):
    return b"".join(struct.pack("=I", length) + sets.packed(family, address) for address, length in entries)


class Lpm:
    name = "LPM trie"

    def __init__(self, sandbox, build, family, size, flags=0):
        self._family, name = family, f"blocked{family}"
        opened = _open(sandbox, build, "lpm", {name: size}, flags)
        self.map, self.program = opened.map(name), opened.program("blacklist")

    def load(self, entries):
        bpf.update_batch(self.map, lpm_keys(self._family, entries), bytes(8 * len(entries)), len(entries))
        return self
