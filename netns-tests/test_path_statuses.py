# SPDX-License-Identifier: GPL-2.0-or-later
"""The exit statuses of fwctl, from the real daemon, and who may use it."""
import grp
import json
import re
import shutil
import socket
from types import SimpleNamespace

import pytest

from fwdtest.daemon import FWCTL, Daemon, SANITIZER_OPTIONS, fail_on_report
from fwdtest.sandbox import Sandbox, others_may_enter, run

needs_others = pytest.mark.skipif(not others_may_enter(), reason="/ is closed to other users here")

DONE, FAILED, USAGE, NO_DAEMON, NOT_PERMITTED = range(5)
GROUP, READ_GROUP = "games", "news"  # Debian always has them, and they mean nothing here

RULES = """
[[interface]]
name = "eth0"
[blacklist]
max_entries = 5
addresses = ["192.0.2.0/24"]
[allowlist]
addresses = ["192.0.2.7"]
"""


@pytest.fixture(scope="module")
def shared_daemon():
    with Sandbox() as sandbox:
        host = sandbox.namespace("host")
        sandbox.link(host, "eth0", sandbox.namespace("peer"), "wire")
        daemon = Daemon(sandbox, host, RULES, group=GROUP, read_group=READ_GROUP).start()
        # The way to the socket, and a fwctl, for everybody.
        sandbox.folder.chmod(0o711)
        daemon.folder.chmod(0o711)
        daemon.tool = shutil.copy(FWCTL, sandbox.folder / "fwctl")
        yield daemon
        daemon.stop()


@pytest.fixture
def daemon(shared_daemon):
    yield shared_daemon
    shared_daemon.request("flush")


# Each with a word of what it says on standard error; what is done says nothing.
@pytest.mark.parametrize("words, status, said", [
    ("add 10.0.0.1", DONE, ""),
    ("add 10.0.0.1 10.0.0.1 10.0.0.0/16", DONE, ""),
    ("add 192.0.2.0/24", DONE, ""),
    ("add 10.0.0.1 --ttl 1h --comment twice", DONE, ""),
    ("del 192.0.2.0/24", FAILED, "configuration"),
    ("del 10.0.0.2", FAILED, "10.0.0.2 is not blocked"),
    ("allow del 10.0.0.2", FAILED, "10.0.0.2 is not on the allowlist"),
    ("allow add 10.0.0.3", DONE, ""),
    ("allow del 10.0.0.3", DONE, ""),
    ("test 192.0.2.1", FAILED, ""),
    ("test 192.0.2.7", DONE, ""),
    ("test 10.0.0.1", DONE, ""),
    ("add 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4", DONE, ""),
    ("add 10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5", FAILED, "full: 5 of 5 entries"),
    ("redirect add tcp/1-65535 tun0 --on eth9", FAILED, '"eth9"'),
    ("redirect del tcp/80", FAILED, "tcp/80"),
    ("list --origin feed", FAILED, '"feed"'),
    ("reload", DONE, ""),
    ("confirm", FAILED, "nothing waits for confirmation"),
    ("flush", DONE, ""),
    ("flush now", USAGE, "now"),
    ("", USAGE, "command"),
    ("ad 10.0.0.1", USAGE, "ad"),
    ("add", USAGE, "add"),
    ("add 10.0.0.256", USAGE, '"10.0.0.256"'),
    ("add 10.0.0.5/24", USAGE, "10.0.0.0/24"),
    ("add 10.0.0.1 --ttl soon", USAGE, '"soon"'),
    ("add -f", USAGE, "-f"),
    ("add -f /nonexistent", USAGE, "/nonexistent"),
    ("test 10.0.0.0/8", USAGE, '"10.0.0.0/8"'),
    ("redirect add tcp/0 tun0", USAGE, '"0"'),
    ("redirect add tcp/80 tun0 --mode fast", USAGE, '"fast"'),
    ("status --frobnicate", USAGE, '"--frobnicate"'),
])
def test_a_command_line_has_its_exit_status(daemon, words, status, said):
    done = daemon.fwctl(*words.split(), check=False)
    assert (done.returncode, said in done.stderr, bool(done.stderr)) == (status, True, bool(said)), done.stderr
    assert done.stderr.count("\n") <= 1


def test_twice_is_success_and_what_is_gone_is_not(daemon):
    statuses = [daemon.fwctl(*words.split(), check=False).returncode
                for words in ("add 10.0.0.1", "add 10.0.0.1", "test 10.0.0.1", "del 10.0.0.1", "test 10.0.0.1",
                              "del 10.0.0.1", "redirect add udp/9 tun0", "redirect add udp/9 tun0",
                              "redirect add udp/9 tun1", "redirect del udp/9", "redirect del udp/9")]
    assert statuses == [DONE, DONE, FAILED, DONE, DONE, FAILED, DONE, DONE, DONE, DONE, FAILED]


def test_json_says_the_same_of_a_failure(daemon):
    done = daemon.fwctl("--json", "del", "10.0.0.2", check=False)
    assert done.returncode == FAILED and "10.0.0.2 is not blocked" in done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "not-found"


@pytest.mark.parametrize("path", ["nowhere", "stale", "file"])
def test_no_daemon_at_the_socket(daemon, path):
    path = daemon.folder / path
    if path.name == "stale":
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(path))
    elif path.name == "file":
        path.touch()
    done = run(FWCTL, "-s", path, "status", check=False)
    assert done.returncode == NO_DAEMON and str(path) in done.stderr


# ---- who may ----


def as_nobody(daemon, *words, groups=("--clear-groups",)):
    done = run("setpriv", "--reuid=nobody", "--regid=nogroup", *groups, daemon.tool, "-s", daemon.socket_path,
               *words, check=False, env=SANITIZER_OPTIONS)
    fail_on_report(done.stderr)
    return SimpleNamespace(status=done.returncode, stderr=done.stderr)


@needs_others
def test_nobody_is_not_permitted_and_changes_nothing(daemon):
    for words in (["status"], ["add", "10.0.0.1"], ["flush"]):
        done = as_nobody(daemon, *words)
        assert done.status == NOT_PERMITTED and "ermi" in done.stderr, done.stderr
    assert daemon.request("test", address="10.0.0.1")["verdict"] == "pass"


@needs_others
def test_a_member_of_the_group_may_do_everything(daemon):
    member = [f"--groups={grp.getgrnam(GROUP).gr_gid}"]
    assert as_nobody(daemon, "add", "10.0.0.1", groups=member).status == DONE
    assert as_nobody(daemon, "test", "10.0.0.1", groups=member).status == FAILED
    assert as_nobody(daemon, "del", "10.0.0.1", groups=member).status == DONE


@needs_others
def test_a_member_of_other_groups_is_not_permitted(daemon):
    others = ",".join(str(group.gr_gid) for group in grp.getgrall() if group.gr_name not in (GROUP, READ_GROUP, "root"))
    assert as_nobody(daemon, "status", groups=[f"--groups={others}"]).status == NOT_PERMITTED


@needs_others
def test_a_member_of_the_read_group_may_look_and_change_nothing(daemon):
    member = [f"--groups={grp.getgrnam(READ_GROUP).gr_gid}"]
    for words in ("status", "stats", "list", "allow list", "redirect list", "feed list", "test 10.0.0.1"):
        assert as_nobody(daemon, *words.split(), groups=member).status == DONE
    for words in ("add 10.0.0.1", "allow add 10.0.0.1", "redirect add tcp/80 eth0", "flush", "reload"):
        done = as_nobody(daemon, *words.split(), groups=member)
        command = next(name for name in ("allow add", "redirect add", words.split()[0]) if words.startswith(name))
        assert done.status == NOT_PERMITTED
        assert f'not permitted: "{command}" changes rules; members of "{READ_GROUP}" may only look' in done.stderr
        assert re.search(rf'refused "{command}" to uid 65534 \(pid \d+\)', daemon.log())
    assert daemon.request("test", address="10.0.0.1")["verdict"] == "pass"


@needs_others
def test_a_member_of_hundreds_of_groups_may_if_it_is_one_of_them(daemon):
    many = [str(gid) for gid in range(20000, 20400)]
    assert as_nobody(daemon, "status", groups=["--groups=" + ",".join(many)]).status == NOT_PERMITTED
    many.append(str(grp.getgrnam(GROUP).gr_gid))
    assert as_nobody(daemon, "status", groups=["--groups=" + ",".join(many)]).status == DONE


@needs_others
def test_the_mode_of_the_socket_is_not_what_keeps_others_out(daemon):
    """The kernel says who asks, whoever could open the socket."""
    assert daemon.socket_path.stat().st_mode & 0o7777 == 0o660
    assert daemon.socket_path.stat().st_gid == grp.getgrnam(GROUP).gr_gid
    daemon.socket_path.chmod(0o666)
    try:
        done = as_nobody(daemon, "add", "10.0.0.1")
    finally:
        daemon.socket_path.chmod(0o660)
    assert done.status == NOT_PERMITTED and "member of the socket's group" in done.stderr
    assert "refused uid 65534" in daemon.log()
    assert daemon.request("test", address="10.0.0.1")["verdict"] == "pass"
