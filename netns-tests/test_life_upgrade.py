# SPDX-License-Identifier: GPL-2.0-or-later
"""The packet path outlives the daemon, whatever becomes of it: each packet is counted meanwhile."""
import contextlib
import signal
import subprocess

import pytest

from fwdtest import kernel
from fwdtest.daemon import FWD, FWD_NEWER, START_WAIT_S
from fwdtest.rules import ETH0
from fwdtest.sandbox import rounds
from fwdtest.stream import Stream

BLOCKED, NEIGHBOUR, EXCEPTED, ALLOWED = "10.1.0.8", "10.1.0.9", "10.1.0.10", "10.1.0.2"
TURNS = rounds(100)
LIST = "".join(f"172.16.{i // 256}.{i % 256}\n" for i in range(5000))

upgrades = pytest.mark.skipif(not FWD_NEWER.exists(), reason=f"there is no {FWD_NEWER}")


@pytest.fixture
def daemon(net):
    """It blocks a source, and a prefix but for an address of it; and has rules enough for tables."""
    daemon = net.daemon(f'{ETH0}[blacklist]\naddresses = ["{NEIGHBOUR}"]\n[allowlist]\naddresses = ["{EXCEPTED}"]\n')
    daemon.fwctl("add", "10.1.0.8/29", "--comment", "kept")
    daemon.fwctl("add", "-", input=LIST)
    return daemon


@contextlib.contextmanager
def packets_go_on(net):
    """Blocked ones are dropped, each, and of the others none."""
    flows = {"blocked": BLOCKED, "neighbour": NEIGHBOUR, "excepted": EXCEPTED, "allowed": ALLOWED}
    with Stream(net.wire, **flows) as stream:
        yield stream
    stream.only_arrives("excepted", "allowed")


def is_whole(daemon):
    assert daemon.fwctl_json("status")["blacklist"]["entries"] == 5002 == len(kernel.entries(daemon))
    assert kernel.entries(daemon, "allow") == {EXCEPTED}
    assert [pin.name for pin in daemon.pin_dir.iterdir()] == ["current"]


def test_a_hundred_restarts_let_no_blocked_packet_pass_and_lose_no_other(net, daemon):
    with packets_go_on(net) as stream:
        for turn in range(TURNS):
            daemon.kill() if turn % 2 else daemon.stop()
            daemon.start()
            assert daemon.request("status")["adopted"]
    is_whole(daemon)
    # Not one packet was seen by anybody else, nor counted twice.
    assert daemon.verdicts() == {
        ("eth0", "xdp", "drop"): stream.sent["blocked"] + stream.sent["neighbour"],
        ("eth0", "xdp", "allow"): stream.sent["excepted"],
        ("eth0", "xdp", "pass"): stream.sent["allowed"],
    }


@upgrades
def test_a_hundred_upgrades_and_downgrades_let_no_blocked_packet_pass_and_lose_no_other(net, daemon):
    with packets_go_on(net):
        for turn in range(TURNS):
            daemon.kill() if turn % 4 > 1 else daemon.stop()
            daemon.binary = FWD if turn % 2 else FWD_NEWER
            daemon.start()
            assert not daemon.request("status")["adopted"]
    is_whole(daemon)


@upgrades
def test_an_upgrade_that_is_killed_half_way_is_made_up_for_by_the_next_start(net, daemon):
    with packets_go_on(net):
        for turn in range(30):
            daemon.kill()
            daemon.binary = FWD if turn % 2 else FWD_NEWER
            daemon.spawn()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.process.wait(0.01 * turn)
    daemon.kill()
    daemon.start()
    is_whole(daemon)


@upgrades
def test_a_daemon_that_fails_to_start_for_want_of_descriptors_leaves_the_old_policy_whole(net, daemon):
    """At each step that opens something, of an upgrade that would replace everything."""
    daemon.kill()
    few = daemon.folder / "few"
    failed = 0
    with packets_go_on(net) as stream:
        for limit in range(5, 200):
            few.write_text(f'#!/bin/sh\nexec prlimit --nofile={limit}:{limit} {FWD_NEWER} "$@"\n')
            few.chmod(0o755)
            daemon.binary = few
            daemon.spawn()
            try:
                daemon.wait_for("READY=1", START_WAIT_S)
                break
            except AssertionError:
                failed += 1
                assert "many open files" in daemon.log()
        stream.wait_for(20)
    assert failed > 10
    is_whole(daemon)


def test_a_daemon_that_fails_to_start_for_its_configuration_leaves_the_old_policy_whole(net, daemon):
    daemon.stop()
    good = daemon.config_path.read_text()
    with packets_go_on(net) as stream:
        daemon.config_path.write_text(good + "[blacklist\n")
        daemon.spawn()
        assert daemon.process.wait(START_WAIT_S) == 1
        stream.wait_for(20)
    daemon.end()
    daemon.config_path.write_text(good)
    daemon.start()
    assert daemon.fwctl_json("status")["adopted"]
    is_whole(daemon)


def test_a_daemon_that_hangs_filters_on(net, daemon):
    with packets_go_on(net) as stream:
        daemon.signal(signal.SIGSTOP)
        stream.wait_for(200)
        daemon.signal(signal.SIGCONT)
        assert daemon.request("status")["ok"]
    is_whole(daemon)
