# SPDX-License-Identifier: GPL-2.0-or-later
"""Counts the packets that come in, on every interface and from the first one on, by source.

A packet socket gets them behind XDP and before the host's addresses, routes and sockets.
"""
import collections
import json
import os
import socket
import time

from addresses import BLOCKED, FREE, RECORD

ETH_P_IP = 0x0800


def ready():
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])


def main():
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_IP))
    packets.settimeout(0.2)
    ready()
    names = {socket.inet_aton(BLOCKED): "blocked", socket.inet_aton(FREE): "free"}
    seen, written = collections.Counter(blocked=0, free=0), 0
    while True:
        try:
            data, sender = packets.recvfrom(2048)
            if sender[2] != socket.PACKET_OUTGOING and (name := names.get(data[12:16])):
                seen[name] += 1
        except TimeoutError:
            pass
        if time.monotonic() - written > 0.2:
            with open(RECORD + ".new", "w") as file:
                json.dump(seen, file)
            os.rename(RECORD + ".new", RECORD)
            written = time.monotonic()


main()
