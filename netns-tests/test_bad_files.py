# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration files and lists that are none: --check, start, reload and fwctl say so; the rules stay."""
import os
import random
import signal
import stat
import time
from types import SimpleNamespace

import pytest

from fwdtest.daemon import Daemon, fwd
from fwdtest.sandbox import SLOW, Sandbox, others_may_enter
from fwdtest.traffic import Flow, Listener, udp, wait_until

needs_others = pytest.mark.skipif(not others_may_enter(), reason="/ is closed to other users here")

AT_MOST_S = 3 * SLOW

RULES = '[[interface]]\nname = "eth0"\n[blacklist]\naddresses = ["10.1.0.70"]\n'


def make_bad(path, kind):
    """Puts something in the place of a file."""
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    if kind == "directory":
        path.mkdir()
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "device":
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero
    elif kind == "dangling link":
        path.symlink_to(path.parent / "nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "binary":
        path.write_bytes(random.Random(1).randbytes(100_000))
    elif kind == "zeros":
        path.write_bytes(bytes(4096))
    elif kind == "a gigabyte of zeros":
        path.touch()
        os.truncate(path, 1 << 30)


# What is said of each, of a configuration and of a list.
KINDS = {
    "missing": ("No such file", "No such file"),
    "directory": ("a directory", "a directory"),
    "FIFO": ("not a regular file", "not a regular file"),
    "device": ("not a regular file", "not a regular file"),
    "dangling link": ("No such file", "No such file"),
    "loop": ("symbolic links", "symbolic links"),
    "binary": (":1:", ":1:"),
    "zeros": (":1:1:", ":1: binary data"),
    "a gigabyte of zeros": ("too large", "too large"),
}


@pytest.fixture(scope="module")
def shared_host():
    with Sandbox() as sandbox:
        host, peer = sandbox.namespace("host"), sandbox.namespace("peer")
        _, wire = sandbox.link(host, "eth0", peer, "wire")
        daemon = Daemon(sandbox, host, RULES).start()
        with Listener(host, 7) as listener:
            yield SimpleNamespace(sandbox=sandbox, host=host, daemon=daemon, other=Daemon(sandbox, host, label="other"),
                                  feed=sandbox.folder / "feed",
                                  blocked=Flow(wire, udp(wire, 7, "10.1.0.70"), listener),
                                  fed=Flow(wire, udp(wire, 7, "10.1.0.71"), listener),
                                  free=Flow(wire, udp(wire, 7), listener))
        daemon.stop()


def with_feed(path):
    return f'{RULES}[[blacklist.feed]]\nname = "feed"\nfile = "{path}"\n'


@pytest.fixture
def host(shared_host):
    """The configuration and its feed are good, and in force again at the end."""
    shared_host.feed.write_text("10.1.0.71\n")
    shared_host.daemon.write_rules(with_feed(shared_host.feed))
    shared_host.daemon.request("reload")
    yield shared_host
    for path in (shared_host.daemon.config_path, shared_host.feed):
        make_bad(path, "missing")


def filters_as_before(host):
    host.blocked.is_dropped(0.05)
    host.fed.is_dropped(0.05)
    host.free.passes()
    assert [(row["prefix"], row["origin"]) for row in host.daemon.request("list")["entries"]] == [
        ("10.1.0.70", "config"), ("10.1.0.71", "feed")]


def is_refused_quickly(words, path, run):
    start = time.monotonic()
    done = run()
    assert time.monotonic() - start < AT_MOST_S
    assert done.returncode == 1
    assert str(path) in done.stderr and words in done.stderr, done.stderr
    assert done.stderr.replace("\n", "").isprintable() and len(done.stderr) < 20_000


def refuse_everywhere(host, path, words, start_with):
    """--check, a start, fwctl reload and SIGHUP."""
    config = host.daemon.config_path
    before = host.daemon.memory_kib("VmHWM")
    is_refused_quickly(words, path, lambda: fwd("--check", "-c", config, check=False))
    is_refused_quickly(words, path, lambda: fwd("-c", start_with, namespace=host.host, check=False))
    is_refused_quickly(words, path, lambda: host.daemon.fwctl("reload", check=False))

    said = host.daemon.log().count("reload failed")
    host.daemon.signal(signal.SIGHUP)
    wait_until(lambda: host.daemon.log().count("reload failed") == said + 1)
    assert str(path) in host.daemon.log().split("reload failed")[-1]
    assert host.daemon.memory_kib("VmHWM") - before < 32 << 10
    filters_as_before(host)


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_that_is_none_is_refused(host, kind):
    make_bad(host.daemon.config_path, kind)
    refuse_everywhere(host, host.daemon.config_path, KINDS[kind][0], start_with=host.daemon.config_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_feed_that_is_none_is_refused(host, kind):
    make_bad(host.feed, kind)
    host.other.write_rules(with_feed(host.feed))
    refuse_everywhere(host, host.feed, KINDS[kind][1], start_with=host.other.config_path)


@pytest.mark.parametrize("line", ["10.0.0.300", "10.0.0.5/24", "10.0.0.1 10.0.0.2", "example.org", "010.0.0.1"])
def test_a_bad_line_of_a_feed_is_named(host, line):
    host.feed.write_text(f"# good ones\n192.0.2.1\n\n{line}\n192.0.2.2\n")
    done = host.daemon.fwctl("reload", check=False)
    assert done.returncode == 1 and f"{host.feed}:4: " in done.stderr and line in done.stderr
    filters_as_before(host)


@needs_others
@pytest.mark.parametrize("which", ["configuration", "feed"])
def test_a_file_that_may_not_be_read_is_refused(host, which):
    path = host.daemon.config_path if which == "configuration" else host.feed
    host.sandbox.folder.chmod(0o711)
    host.daemon.folder.chmod(0o711)
    path.chmod(0o600)
    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    done = fwd("--check", "-c", host.daemon.config_path, by=nobody, check=False)
    assert done.returncode == 1
    assert str(path) in done.stderr and "Permission denied" in done.stderr


@pytest.mark.parametrize("kind, words", [
    ("missing", "No such file"), ("directory", "a directory"), ("binary", ":1:"), ("zeros", ":1: binary data"),
    ("a gigabyte of zeros", "too large"), ("device", "too large"),
])
def test_fwctl_refuses_a_list_that_is_none(host, kind, words):
    path = host.sandbox.folder / "list"
    make_bad(path, kind)
    start = time.monotonic()
    done = host.daemon.fwctl("add", "-f", path, check=False)
    assert time.monotonic() - start < AT_MOST_S
    assert done.returncode in (1, 2) and str(path) in done.stderr and words in done.stderr, done.stderr
    make_bad(path, "missing")
    filters_as_before(host)
