# SPDX-License-Identifier: GPL-2.0-or-later
"""The control socket as docs/protocol.md describes it, without any manners that fwctl has.

    with Client(daemon.socket_path) as client:
        client.request("test", address="10.0.0.5")["verdict"]
        client.send(b'{"command": ')
        client.answer()
"""
import array
import contextlib
import fcntl
import json
import os
import socket

from .sandbox import SLOW

F_ADD_SEALS, SEALS = 1033, 0x2 | 0x4 | 0x8  # linux/fcntl.h: F_SEAL_SHRINK, _GROW and _WRITE


class Client:
    """A connection. `wait_s` bounds each read and write."""

    def __init__(self, path, wait_s=20):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._socket.settimeout(wait_s * SLOW)
        self._input = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._socket.close()

    def fileno(self):
        return self._socket.fileno()

    def send(self, data, fds=()):
        """Descriptors go with the first byte."""
        if fds:
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
            data = data[self._socket.sendmsg([data], ancillary):]
        if data:
            self._socket.sendall(data)

    def end(self):
        """No more requests; answers are still read."""
        self._socket.shutdown(socket.SHUT_WR)

    def answer(self):
        """The next line; None at the end of the connection."""
        while b"\n" not in self._input:
            with contextlib.suppress(ConnectionResetError):
                if more := self._socket.recv(1 << 20):
                    self._input += more
                    continue
            assert not self._input, f"the connection ends within a line: {self._input[:80]}"
            return None
        line, _, self._input = self._input.partition(b"\n")
        return json.loads(line)

    def rest(self):
        """All that is still to come, up to the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            while more := self._socket.recv(1 << 20):
                self._input += more
        return self._input

    def request(self, command, fds=(), **fields):
        """The answer to one request, the parts of a long one put together."""
        self.send(json.dumps({"command": command} | fields).encode() + b"\n", fds)
        answer = self.answer()
        while answer and answer.pop("more", False):
            rest = self.answer()
            answer["entries"] += rest["entries"]
            answer["more"] = rest.get("more", False)
        return answer


@contextlib.contextmanager
def memory_file(content=b"", size=None, seals=SEALS):
    """A descriptor of a list, sealed as the daemon wants it; with `size`, longer by a hole."""
    fd = os.memfd_create("list", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(fd, content)
        if size:
            os.truncate(fd, size)
        fcntl.fcntl(fd, F_ADD_SEALS, seals)
        yield fd
    finally:
        os.close(fd)
