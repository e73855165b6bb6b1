# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest receives from the network: sender.py FOLDER

Sends on the wire of `boot -n FOLDER` until it is killed, whether the guest is there or not: packets of a
source that the tests block and of one that they do not, in turns.
"""
import contextlib
import socket
import sys
import time
from pathlib import Path

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from addresses import BLOCKED, FREE, GUEST, GUEST_MAC, PORT

PAUSE_S = 0.01


def main(folder):
    wire = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    wire.bind(str(folder / "here"))
    wire.setblocking(False)
    frames = [bytes(Ether(src="02:00:00:00:00:02", dst=GUEST_MAC) / IP(src=source, dst=GUEST)
                    / UDP(sport=40000, dport=PORT) / b"fwd") for source in (BLOCKED, FREE)]
    while True:
        for frame in frames:
            # No guest, or one that is busy: as with any wire, the frame is lost.
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError, BlockingIOError):
                wire.sendto(frame, str(folder / "guest"))
        with contextlib.suppress(BlockingIOError):
            while wire.recv(65536):
                pass
        time.sleep(PAUSE_S)


main(Path(sys.argv[1]))
