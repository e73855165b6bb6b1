# SPDX-License-Identifier: GPL-2.0-or-later
"""The package is installed, and the service does what its administrator asks for; each test goes on
where the one before left off."""
import grp
import os
import re
import shutil
import signal
import stat
from pathlib import Path

import pytest

from addresses import BLOCKED
from guest import card, cycles, fwctl, has_program, more, run, seen, show, wait_until

CONFIG = Path("/etc/fwd/fwd.toml")
PACKAGE = "/srv/fwd/fwd.deb"


@pytest.fixture(scope="module", autouse=True)
def network():
    """A network that comes up by itself from now on, and the witness of what comes in."""
    shutil.copytree("/srv/fwd", "/opt/witness", ignore=shutil.ignore_patterns("*.deb"))
    shutil.copy("/srv/fwd/wire.network", "/etc/systemd/network/")
    shutil.copy("/srv/fwd/witness.service", "/etc/systemd/system/")
    run("systemctl", "daemon-reload")
    run("systemctl", "enable", "--now", "witness", "systemd-networkd")


def filters_meanwhile(action):
    """Not one blocked packet comes in from now until some time after the action; others do."""
    more("free")
    blocked = seen()["blocked"]
    action()
    more("free")
    assert seen()["blocked"] == blocked


def test_installing_makes_the_group_and_starts_nothing():
    run("dpkg", "-i", PACKAGE)
    assert grp.getgrnam("fwd").gr_mem == []
    assert run("systemctl", "is-enabled", "fwd", check=False) == "disabled"
    assert run("systemctl", "is-active", "fwd", check=False) == "inactive"
    run("fwd", "--check")


def test_the_shipped_configuration_attaches_to_nothing():
    run("systemctl", "enable", "--now", "fwd")
    assert run("systemctl", "is-active", "fwd") == "active"
    assert fwctl("status")["interfaces"] == [] and not has_program()
    more("blocked")


def test_the_socket_is_for_root_and_the_group():
    socket = os.stat("/run/fwd/fwd.sock")
    assert (socket.st_uid, socket.st_gid) == (0, grp.getgrnam("fwd").gr_gid)
    assert stat.S_IMODE(socket.st_mode) == 0o660


def test_a_reload_takes_the_interface_and_a_rule_drops():
    pid = show("fwd", "MainPID")
    CONFIG.write_text(CONFIG.read_text().replace('#[[interface]]\n#name = "eth0"', f'[[interface]]\nname = "{card()}"'))
    run("systemctl", "reload", "fwd")
    assert has_program() and fwctl("status")["interfaces"][0]["name"] == card()
    fwctl("add", BLOCKED, "--comment", "kept")
    filters_meanwhile(lambda: run("systemctl", "reload", "fwd"))
    assert show("fwd", "MainPID") == pid


def test_a_reload_with_errors_fails_tells_why_and_changes_nothing():
    good = CONFIG.read_text()
    CONFIG.write_text(good + "nonsense = 1\n")
    filters_meanwhile(lambda: run("systemctl", "reload", "fwd", check=False))
    CONFIG.write_text(good)
    assert "nonsense" in run("journalctl", "-b", "-u", "fwd", "-o", "cat")
    assert run("systemctl", "is-active", "fwd") == "active"


def test_the_filter_goes_on_over_a_restart():
    pid = show("fwd", "MainPID")
    filters_meanwhile(lambda: run("systemctl", "restart", "fwd"))
    assert show("fwd", "MainPID") != pid


def test_the_filter_goes_on_over_a_kill_and_the_service_comes_back():
    pid = show("fwd", "MainPID")

    def kill():
        os.kill(int(pid), signal.SIGKILL)
        wait_until(lambda: show("fwd", "ActiveState") == "active" and show("fwd", "MainPID") not in ("0", pid))

    filters_meanwhile(kill)


def test_the_filter_goes_on_over_an_upgrade_which_keeps_the_configuration(tmp_path):
    pid, config = show("fwd", "MainPID"), CONFIG.read_text()
    run("dpkg-deb", "-R", PACKAGE, str(tmp_path / "newer"))
    control = tmp_path / "newer" / "DEBIAN" / "control"
    control.write_text(re.sub(r"^Version: (.*)$", r"Version: \1+newer", control.read_text(), flags=re.MULTILINE))
    # The shipped example changes, too: dpkg has to choose.
    with open(tmp_path / "newer" / "etc/fwd/fwd.toml", "a") as shipped:
        shipped.write("# newer\n")
    run("dpkg-deb", "-b", str(tmp_path / "newer"), str(tmp_path / "newer.deb"))

    filters_meanwhile(lambda: run("dpkg", "--force-confdef", "--force-confold", "-i", str(tmp_path / "newer.deb")))
    assert show("fwd", "MainPID") not in ("0", pid)
    assert CONFIG.read_text() == config
    assert run("dpkg-query", "-W", "-f", "${Version}", "fwd").endswith("+newer")


def test_the_rules_are_those_that_were_added():
    [entry] = fwctl("list")["entries"]
    assert (entry["prefix"], entry["comment"]) == (BLOCKED, "kept")


def test_the_unit_is_without_fault(capfd):
    """Its exposure is for the reader."""
    assert run("systemd-analyze", "verify", "fwd.service", "--man=no") == ""
    assert cycles() == []
    with capfd.disabled():
        print("\n" + run("systemd-analyze", "--no-pager", "security", "fwd"))
