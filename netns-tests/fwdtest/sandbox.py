# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts made of network namespaces.

    with Sandbox() as sandbox:
        host, peer = sandbox.namespace("host"), sandbox.namespace("peer")
        eth0, wire = sandbox.link(host, "eth0", peer, "eth0")
        peer.ping(eth0.ipv4)

Namespaces are named fwd-PID-N-NAME, so that runs side by side do not meet and the next run finds
what a killed one left behind. Nothing speaks on a link unasked: neighbours are permanent, there are
no link-local addresses, no duplicate address detection and no multicast reports after the first.
"""
import contextlib
import ctypes
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path

BPFFS = Path("/sys/fs/bpf")
NETNS = Path("/run/netns")

CLONE_NEWNET = 0x40000000  # linux/sched.h
TUNSETIFF = 0x400454CA  # linux/if_tun.h, as the three below
IFF_TUN, IFF_TAP, IFF_NO_PI = 0x1, 0x2, 0x1000

# On an emulated machine: by how much every deadline is longer.
SLOW = float(os.environ.get("FWD_SLOW", "1"))

_libc = ctypes.CDLL(None, use_errno=True)
_serial = itertools.count()


def rounds(count):
    """How often to do what is left to chance: less often on an emulated machine."""
    return max(1, int(count / SLOW))


def others_may_enter():
    """Whether another user reaches programs and libraries here; in some chroots / is root's alone."""
    return os.stat("/").st_mode & 0o5 == 0o5


def run(*command, check=True, **options):
    """A command's CompletedProcess, with its output as text; a failure shows what it said."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                          timeout=options.pop("timeout", 60) * SLOW, **options)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(done.args)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class Namespace:
    """A host. Sockets and devices made `inside()` stay in it; commands run in it with `run()`."""

    def __init__(self, sandbox, label):
        self.sandbox, self.label = sandbox, label
        self.name = f"{sandbox.name}-{label}"
        self.path = NETNS / self.name
        self.interfaces = {}

    def __repr__(self):
        return self.label

    @property
    def enter(self):
        """The words in front of a command. (ip netns exec would remount /sys and hide bpffs.)"""
        return ["nsenter", f"--net={self.path}"]

    def run(self, *command, **options):
        return run(*self.enter, *command, **options)

    def ip(self, *words):
        return run("ip", "-n", self.name, *words)

    def ip_json(self, *words):
        return json.loads(run("ip", "-json", "-details", "-statistics", "-n", self.name, *words).stdout or "[]")

    def ping(self, address, source=None, count=1, wait_s=1):
        """True if all echo requests were answered."""
        words = ["ping", "-n", "-q", "-i", "0.01", "-c", count, "-W", wait_s * SLOW]
        if source:
            words += ["-I", source]
        return self.run(*words, address, check=False).returncode == 0

    @contextlib.contextmanager
    def inside(self):
        """The calling thread is in the namespace; what it opens stays there."""
        with open("/proc/thread-self/ns/net") as home, open(self.path) as there:
            _setns(there)
            try:
                yield
            finally:
                _setns(home)

    def socket(self, *arguments):
        with self.inside():
            return socket.socket(*arguments)

    def sysctl(self, name, value):
        with self.inside():
            Path("/proc/sys", *name.split(".")).write_text(f"{value}\n")


class Interface:
    """One end of a link, or a tun or tap device."""

    def __init__(self, namespace, name):
        self.namespace, self.name = namespace, name
        namespace.interfaces[name] = self
        link = self.link()
        self.ifindex = link["ifindex"]
        self.mac = link.get("address")
        self.ipv4 = self.ipv6 = None
        self.peer = None

    def __repr__(self):
        return f"{self.namespace}:{self.name}"

    def link(self):
        """What `ip link` tells of it now."""
        return self.namespace.ip_json("link", "show", "dev", self.name)[0]

    def tx_packets(self):
        with self.namespace.inside():
            devices = Path("/proc/thread-self/net/dev").read_text()
        return int(re.search(rf"^ *{re.escape(self.name)}:(.*)$", devices, re.MULTILINE)[1].split()[9])

    def sent_packets(self):
        """What `transmit()` has sent, and anything else that it transmits."""
        return self.tx_packets()

    def transmit(self, frame, count):
        """The frame, so many times, as a program of the host would hand it to the driver."""
        with self.namespace.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as raw:
            raw.bind((self.name, 0))
            for _ in range(count):
                raw.send(frame)

    def xdp_mode(self):
        """None, "native", "generic" or "multi", as the kernel has it."""
        modes = {1: "native", 2: "generic", 3: "offload", 4: "multi"}
        return modes.get(self.link().get("xdp", {}).get("mode"))

    def add_address(self, address):
        """One more address of the host, known to the other end of the link."""
        host = address.split("/")[0]
        before = self.tx_packets()
        self.namespace.ip("address", "add", address, "dev", self.name, "nodad")
        self.peer.namespace.ip("neighbour", "replace", host, "lladdr", self.mac,
                               "dev", self.peer.name, "nud", "permanent")
        if ":" in host:
            self._wait_for_report(before)

    def _wait_for_report(self, before):
        """The multicast report of a new IPv6 address (RFC 3810, section 6.1), so that silence follows."""
        deadline = time.monotonic() + 1
        while self.tx_packets() == before and time.monotonic() < deadline:
            time.sleep(0.005)  # none comes where another address had the same group


class Tun(Interface):
    """A tun (IP packets) or tap (frames) device whose other end is a file descriptor here.

    What is transmitted into the descriptor is what the device receives.
    """

    def __init__(self, namespace, name, fd):
        super().__init__(namespace, name)
        self.fd = fd
        self.written = 0

    def sent_packets(self):
        return self.written

    def transmit(self, packet, count):
        for _ in range(count):
            self.written += os.write(self.fd, packet) == len(packet)

    def read_packets(self):
        """The packets that were sent to the device since the last call."""
        packets = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packets.append(os.read(self.fd, 65536))
        return packets


class Sandbox:
    """Namespaces and a folder on bpffs, removed at the end whatever happens in between."""

    def __init__(self):
        self.name = f"fwd-{os.getpid()}-{next(_serial)}"
        self.namespaces = {}
        self._subnets = itertools.count(1)
        self._exit = contextlib.ExitStack()

    def __enter__(self):
        remove_leftovers()
        self._exit.callback(self._remove)
        self.bpffs = Path(tempfile.mkdtemp(prefix=f"fwd-test-{os.getpid()}-", dir=BPFFS))
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        return self

    def __exit__(self, *_):
        self._exit.close()

    def at_exit(self, function, *arguments):
        """Called before the namespaces go; the last one first."""
        self._exit.callback(function, *arguments)

    def _remove(self):
        for namespace in self.namespaces.values():
            _remove_namespace(namespace.path)
        shutil.rmtree(self.bpffs, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def namespace(self, label):
        namespace = self.namespaces[label] = Namespace(self, label)
        run("ip", "netns", "add", namespace.name)
        for name, value in (
            ("net.ipv6.conf.default.accept_dad", 0),
            ("net.ipv6.conf.default.addr_gen_mode", 1),  # no link-local address: nobody solicits
            ("net.ipv6.conf.default.mldv2_unsolicited_report_interval", 3600000),
            ("net.ipv4.conf.all.rp_filter", 0),
            ("net.ipv4.conf.default.rp_filter", 0),
        ):
            namespace.sysctl(name, value)
        namespace.ip("link", "set", "lo", "up")
        return namespace

    def link(self, one, one_name, other, other_name, queues=None):
        """A veth pair with addresses: 10.N.0.1 and 2001:db8:N::1 at `one`, .2 and ::2 at `other`.

        With one queue packets arrive in the order in which they were sent, whatever flow they are of.
        """
        subnet = next(self._subnets)
        mac = "02:00:00:00:%02x:%02x"
        few = ["numtxqueues", queues, "numrxqueues", queues] if queues else []
        one.ip("link", "add", one_name, "address", mac % (subnet, 1), *few, "type", "veth", "peer",
               "name", other_name, "address", mac % (subnet, 2), *few, "netns", other.name)
        ends = Interface(one, one_name), Interface(other, other_name)
        for i, end in enumerate(ends, start=1):
            end.peer = ends[2 - i]
            end.ipv4, end.ipv6 = f"10.{subnet}.0.{i}", f"2001:db8:{subnet:x}::{i}"
        for end in ends:
            end.namespace.ip("link", "set", end.name, "up")
        for end in ends:
            end.add_address(f"{end.ipv4}/24")
            end.add_address(f"{end.ipv6}/64")
        return ends

    def tun(self, namespace, name, mode="tun"):
        flags = IFF_NO_PI | {"tun": IFF_TUN, "tap": IFF_TAP}[mode]
        with namespace.inside():
            fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            self.at_exit(os.close, fd)
            fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        namespace.ip("link", "set", name, "up")
        return Tun(namespace, name, fd)


def remove_leftovers():
    """Removes the sandboxes of processes that are gone without having done so."""
    for path in NETNS.glob("fwd-*-*-*"):
        if _is_gone(path.name.split("-")[1]):
            _remove_namespace(path)
    for path in BPFFS.glob("fwd-test-*-*"):
        if _is_gone(path.name.split("-")[2]):
            shutil.rmtree(path, ignore_errors=True)


def _is_gone(pid):
    return pid.isdigit() and not Path("/proc", pid).exists()


def _remove_namespace(path):
    """Ends what runs in it, since a namespace lives as long as a process is in it."""
    for pid in run("ip", "netns", "pids", path.name, check=False).stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    run("ip", "netns", "delete", path.name, check=False)


def _setns(file):
    if _libc.setns(file.fileno(), CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns: {file.name}")
