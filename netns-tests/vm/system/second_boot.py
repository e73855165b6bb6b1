# SPDX-License-Identifier: GPL-2.0-or-later
"""After a reboot. The sender was sending all the while, and the witness there before the network."""
from addresses import BLOCKED
from guest import cycles, fwctl, more, run, seen, show


def test_the_rules_are_back():
    [entry] = fwctl("list")["entries"]
    assert (entry["prefix"], entry["comment"]) == (BLOCKED, "kept")


def test_not_one_blocked_packet_was_accepted_since_the_system_started():
    more("free")
    assert seen()["blocked"] == 0, run("journalctl", "-b", "-o", "short-monotonic")
    [entry] = fwctl("list")["entries"]
    assert entry["packets"] > 0, "none was sent"


def test_the_filter_was_there_before_the_network():
    """The order in which they started, whatever came in."""
    active = int(show("fwd", "ActiveEnterTimestampMonotonic"))
    assert 0 < active < int(show("systemd-networkd", "ExecMainStartTimestampMonotonic"))
    assert int(show("witness", "ActiveEnterTimestampMonotonic")) < \
        int(show("systemd-networkd", "ExecMainStartTimestampMonotonic"))


def test_every_unit_came_up_and_no_order_was_broken():
    assert run("systemctl", "--failed", "--plain", "--no-legend") == ""
    assert cycles() == []


def test_stopped_and_disabled_it_stays_away_from_the_next_boot():
    run("systemctl", "disable", "fwd")
    assert run("systemctl", "is-enabled", "fwd", check=False) == "disabled"
