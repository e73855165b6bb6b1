#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""fwd at work, on real packets between network namespaces.

    attacker ── eth1 ┐
                     ├ host (fwd) ── tun0, a tunnel to somewhere else
      office ── eth0 ┘

Exits with 0 if everything was as it says. With --keep a shell in the host follows.
"""
import shlex
import signal
import socket
import struct
import subprocess
import sys

from fwdtest.daemon import FWCTL, Daemon
from fwdtest.sandbox import Sandbox
from fwdtest.traffic import ARRIVAL_WAIT_S, TunReceiver

RULES = '[[interface]]\nname = "eth*"\n'
SERVER, CLIENT = 8080, 40000  # ports


def title(text):
    print(f"\n== {text}")


def expect(fact, holds):
    print(f"   {'ok' if holds else 'FAILED'}: {fact}")
    if not holds:
        raise AssertionError(fact)


def tool(daemon, *words, **options):
    """Shows a fwctl command and what it prints."""
    print(f"host# fwctl {shlex.join(words)}")
    print(daemon.fwctl(*words, **options).stdout, end="")


def reaches(sender, address):
    print(f"{sender}$ ping -c 3 {address}")
    return sender.ping(address, count=3)


def connects(client, address):
    """Whether a TCP connection comes to be."""
    print(f"{client}$ connect to {address}:{SERVER}")
    with client.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.bind(("", CLIENT))
        connection.settimeout(0.5)
        # A reset in place of the four-way end, so that the port is free again at once.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        try:
            connection.connect((address, SERVER))
        except TimeoutError:
            return False
        return True


def block(daemon, attacker, office):
    host_1, host_0 = attacker.interfaces["eth0"].peer.ipv4, office.interfaces["eth0"].peer.ipv4
    source = attacker.interfaces["eth0"].ipv4

    title("A source is blocked, another one is not")
    expect("nothing is blocked yet: the attacker gets answers", reaches(attacker, host_1))
    tool(daemon, "add", source, "--ttl", "1h30m", "--comment", "port scan")
    expect("the attacker gets none any more", not reaches(attacker, host_1))
    expect("the office still does", reaches(office, host_0))
    tool(daemon, "list")
    expect("three packets were counted", daemon.fwctl_json("list")["entries"][0]["packets"] == 3)
    tool(daemon, "test", source, check=False)


def redirect(daemon, host, office, tun):
    address = office.interfaces["eth0"].peer.ipv4

    title("A port is redirected to another interface")
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.bind(("", SERVER))
        server.listen()
        expect(f"the host answers on tcp/{SERVER}", connects(office, address))
        tool(daemon, "redirect", "add", f"tcp/{SERVER}", tun.name)
        with TunReceiver(tun, struct.pack("!HH", CLIENT, SERVER)) as tunnel:
            expect("it does not any more", not connects(office, address))
            packets = tunnel.packets(1, ARRIVAL_WAIT_S)
    for packet in packets:
        print(f"{tun.name}: {socket.inet_ntoa(packet[12:16])}:{CLIENT} > {socket.inet_ntoa(packet[16:20])}:{SERVER}")
    expect(f"the packet went to {tun.name} instead", packets)
    tool(daemon, "redirect", "list")


def outlive(daemon, attacker):
    address = attacker.interfaces["eth0"].peer.ipv4

    title("The filter does not need the daemon")
    print(f"host# kill -9 {daemon.pid}")
    daemon.kill()
    expect("the attacker is still blocked", not reaches(attacker, address))
    print("host# fwd")
    daemon.start()
    expect("the rule is still there", len(daemon.fwctl_json("list")["entries"]) == 1)


def shell(daemon, host, others):
    """A shell at the host, with fwctl on the right socket, and the other hosts by name."""
    lines = [f"alias fwctl='{FWCTL} -s {daemon.socket_path}'", r"PS1='host# '"]
    lines += [f"alias {other}='{shlex.join(other.enter)}'" for other in others]
    rc = daemon.folder / "bashrc"
    rc.write_text("\n".join(lines) + "\n")
    title(f"A shell at the host. Try: fwctl list; {others[0]} ping {others[0].interfaces['eth0'].peer.ipv4}")
    print(f"   configuration: {daemon.config_path}\n   \"exit\" takes the sandbox down", flush=True)
    subprocess.run([*host.enter, "bash", "--rcfile", rc, "-i"], check=False)


def main(keep):
    with Sandbox() as sandbox:
        host, attacker, office = (sandbox.namespace(name) for name in ("host", "attacker", "office"))
        sandbox.link(host, "eth0", office, "eth0")
        sandbox.link(host, "eth1", attacker, "eth0")
        tun = sandbox.tun(host, "tun0")

        title("fwd starts on eth0 and eth1 of a host")
        daemon = Daemon(sandbox, host, RULES, log_level="info")
        print(daemon.config_path.read_text().strip())
        try:
            daemon.start()
            block(daemon, attacker, office)
            redirect(daemon, host, office, tun)
            outlive(daemon, attacker)
            title("What it did")
            tool(daemon, "status")
            tool(daemon, "stats")
            if keep:
                shell(daemon, host, (attacker, office))
            daemon.stop()
        except AssertionError:
            print(f"--- fwd's log ---\n{daemon.log()}", file=sys.stderr)
            raise
    title("The sandbox is gone; all was as it should be")


if __name__ == "__main__":
    if sys.argv[1:] not in ([], ["--keep"]):
        sys.exit("usage: ./dev run [--keep]")
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        main("--keep" in sys.argv)
    except AssertionError as failure:
        sys.exit(f"demo: {failure}")
