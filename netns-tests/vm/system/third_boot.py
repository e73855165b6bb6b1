# SPDX-License-Identifier: GPL-2.0-or-later
"""A boot without the service, to see that the silence of the one before was its doing; then its removal."""
import subprocess
from pathlib import Path

from guest import card, fwctl, has_program, more, run, seen, show

STATE, CONFIG = Path("/var/lib/fwd"), Path("/etc/fwd")
ENABLED = "/etc/systemd/system/multi-user.target.wants/fwd.service"


def files_of_ours():
    """Files and folders anywhere on disk and in memory that have our name, but for the administrator's."""
    command = ["find", "/etc", "/run", "/usr", "/var", "/sys/fs/bpf", "(", "-name", "fwd*", "-o", "-name", "fwctl*", ")"]
    return set(subprocess.run(command, capture_output=True, text=True).stdout.split())


def test_without_the_service_blocked_packets_come_in():
    assert run("systemctl", "is-active", "fwd", check=False) == "inactive"
    assert seen()["blocked"] > 0


def test_the_service_stops_them_again():
    run("systemctl", "enable", "--now", "fwd")
    more("free")
    blocked = seen()["blocked"]
    more("free")
    assert seen()["blocked"] == blocked
    assert fwctl("list")["entries"][0]["packets"] > 0


def test_removal_leaves_nothing_in_the_kernel_and_nothing_that_runs():
    run("dpkg", "-r", "fwd")
    assert not has_program()
    assert "clsact" not in run("tc", "qdisc", "show", "dev", card())
    assert [path for path in Path("/sys/fs/bpf").rglob("*") if not path.is_dir()] == []
    assert show("fwd", "LoadState") == "not-found" and show("fwd", "MainPID") == "0"
    more("blocked")


def test_removal_leaves_what_its_administrator_made_only():
    """The rules, the configuration, and that it is enabled: should it be installed again."""
    assert (STATE / "rules.db").exists() and (CONFIG / "fwd.toml").exists()
    left = {path for path in files_of_ours() if not path.startswith(("/var/lib/dpkg/", str(STATE), str(CONFIG)))}
    assert left == {ENABLED}


def test_purge_leaves_not_even_those():
    run("dpkg", "--purge", "fwd")
    assert not STATE.exists() and not CONFIG.exists()
    assert run("getent", "group", "fwd", check=False) == ""
    assert files_of_ours() == set()
