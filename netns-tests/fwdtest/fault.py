# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls of the daemon to the kernel that fail, by netns-tests/fault.c.

    fault = Fault(sandbox)
    daemon = Daemon(sandbox, host, RULES, env=fault.env).start()
    with fault.at(7):
        daemon.fwctl("reload", check=False)
    fault.failed, fault.name
"""
import contextlib
import mmap
import os
import struct

from .daemon import BUILD

LIBRARY = BUILD / "netns-tests" / "libfwd-fault.so"
LAYOUT = struct.Struct("=IIIII64s")  # armed, first, last, calls, failed, name
FOR_EVER = 0xFFFFFFFF


class Fault:
    def __init__(self, sandbox):
        path = sandbox.folder / "fault"
        path.write_bytes(bytes(LAYOUT.size))
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), LAYOUT.size)
        options = os.environ.get("ASAN_OPTIONS", "exitcode=99")
        self.env = {"LD_PRELOAD": str(LIBRARY), "FWD_FAULT": str(path),
                    "ASAN_OPTIONS": f"{options}:verify_asan_link_order=0"}

    @contextlib.contextmanager
    def at(self, first, last=None):
        """The calls with these numbers fail, of those that are made meanwhile; 0: none, they are counted."""
        LAYOUT.pack_into(self._memory, 0, 0, first, last or first, 0, 0, b"")
        struct.pack_into("=I", self._memory, 0, 1)
        try:
            yield self
        finally:
            struct.pack_into("=I", self._memory, 0, 0)

    def _field(self, index):
        return LAYOUT.unpack_from(self._memory)[index]

    @property
    def calls(self):
        return self._field(3)

    @property
    def failed(self):
        return self._field(4)

    @property
    def name(self):
        """Of the first call that failed."""
        return self._field(5).rstrip(b"\0").decode()
