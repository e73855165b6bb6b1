# SPDX-License-Identifier: GPL-2.0-or-later
"""Starting, refusing to start, --check, and what the service manager is told."""
import signal
import stat
import time

import pytest

from fwdtest import kernel
from fwdtest.daemon import FWD, Daemon, fwd
from fwdtest.rules import ETH0
from fwdtest.sandbox import SLOW, others_may_enter, run
from fwdtest.traffic import Flow, udp

needs_others = pytest.mark.skipif(not others_may_enter(), reason="/ is closed to other users here")

BLOCKED = "10.1.0.2"


def configured(net, rules=ETH0, **keys):
    """An instance that is not started."""
    return Daemon(net.sandbox, net.host, rules, **keys)


def tree(*folders):
    """Every file below, but the state that a daemon at work changes by itself."""
    return sorted(str(path) for folder in folders for path in folder.rglob("*") if path.name != "log")


def refuses(net, daemon, *texts, within=()):
    """It ends with 1 and says so, and nothing is attached, pinned or listening that was not before."""
    def seen():
        return tree(net.sandbox.bpffs), kernel.xdp_id(net.eth0), kernel.filters(net.eth0), kernel.has_clsact(net.eth0)

    before = seen()
    done = run(*daemon.namespace.enter, *within, FWD, "-c", daemon.config_path, env=daemon.env, check=False)
    assert done.returncode == 1, done
    for text in texts:
        assert text in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, f"one failure, one line: {done.stderr}"
    assert seen() == before
    return done


# ---- refusals ----

def test_without_privileges_it_refuses(net):
    refuses(net, configured(net), "not privileged", "CAP_BPF",
            within=["setpriv", "--inh-caps=-all", "--bounding-set=-all"])


def test_without_a_bpf_file_system_it_refuses(net):
    pins = net.sandbox.folder / "pins"
    refuses(net, configured(net, pin_dir=str(pins)), f'pin_dir "{pins}"', "mount -t bpf")
    assert not pins.exists()


def test_a_socket_that_another_instance_serves_is_left_to_it(net, listener):
    first = net.daemon()
    first.fwctl("add", BLOCKED)
    second = configured(net, label="second", socket=str(first.socket_path))
    refuses(net, second, f"another fwd serves {first.socket_path}")
    assert first.fwctl_json("list")["entries"]
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()


def test_a_state_directory_that_another_instance_uses_is_left_to_it(net, listener):
    first = net.daemon()
    first.fwctl("add", BLOCKED)
    state = first.keys["state_dir"]
    second = configured(net, label="second", state_dir=state)
    refuses(net, second, f"another fwd uses the state directory {state}")
    assert not second.socket_path.exists()
    assert first.fwctl_json("list")["entries"]


@pytest.mark.parametrize("make, text", [(lambda path: path.write_text("mine"), "is not a socket"),
                                        (lambda path: path.mkdir(), "is not a socket"),
                                        (lambda path: path.symlink_to("/etc/hostname"), "is not a socket")])
def test_what_is_at_the_place_of_the_socket_and_is_no_socket_stays(net, make, text):
    daemon = configured(net)
    make(daemon.socket_path)
    refuses(net, daemon, str(daemon.socket_path), text)
    assert not stat.S_ISSOCK(daemon.socket_path.lstat().st_mode)


def test_a_socket_path_that_is_too_long_is_refused(net):
    refuses(net, configured(net, socket=f"/tmp/{'x' * 120}"), "xxx")


def test_a_socket_that_nobody_serves_is_replaced(net):
    daemon = net.daemon()
    daemon.kill()
    assert stat.S_ISSOCK(daemon.socket_path.lstat().st_mode)
    daemon.start()
    daemon.fwctl("status")


def test_a_feed_that_is_missing_at_the_start_is_refused_and_the_kernel_goes_on(net, listener):
    feed = net.sandbox.folder / "feed"
    feed.write_text(f"{BLOCKED}\n")
    daemon = net.daemon(f'{ETH0}[[blacklist.feed]]\nname = "drop"\nfile = "{feed}"\n')
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.is_dropped()
    daemon.stop()
    feed.unlink()
    refuses(net, daemon, 'feed "drop"', str(feed))
    flow.is_dropped()


# ---- --check ----

WRONG = f'{ETH0}colour = "red"\n[blacklist]\naddresses = ["10.0.0.300", "10.0.0.5/24"]\nmax_entries = 0\n[daemn]\n'


def test_check_prints_every_error_with_its_place_and_touches_nothing(net):
    daemon = configured(net, WRONG)
    before = tree(net.sandbox.folder, net.sandbox.bpffs)
    done = fwd("--check", "-c", daemon.config_path, namespace=net.host, check=False)
    lines = daemon.config_path.read_text().splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    errors = done.stderr.splitlines()
    for line, text in (('colour = "red"', "colour"), ('addresses = ["10.0.0.300", "10.0.0.5/24"]', '"10.0.0.300"'),
                       ('addresses = ["10.0.0.300", "10.0.0.5/24"]', "did you mean 10.0.0.0/24?"),
                       ("max_entries = 0", "max_entries"), ("[daemn]", "daemn")):
        place = f"{daemon.config_path}:{lines.index(line) + 1}:"
        assert [error for error in errors if error.startswith(place) and text in error], (line, errors)
    assert len(errors) == 5
    assert all(error.split(":")[2].isdigit() for error in errors)
    assert tree(net.sandbox.folder, net.sandbox.bpffs) == before and net.eth0.xdp_mode() is None


def test_check_of_a_right_configuration_is_silent_and_touches_nothing(net):
    daemon = configured(net)
    before = tree(net.sandbox.folder, net.sandbox.bpffs)
    done = fwd("--check", "-c", daemon.config_path, namespace=net.host)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert tree(net.sandbox.folder, net.sandbox.bpffs) == before and net.eth0.xdp_mode() is None


def test_check_leaves_a_daemon_at_work_alone(net):
    daemon = net.daemon()
    daemon.fwctl("add", BLOCKED)
    before = kernel.xdp_id(net.eth0), kernel.entries(daemon)
    assert fwd("--check", "-c", daemon.config_path, namespace=net.host).returncode == 0
    assert (kernel.xdp_id(net.eth0), kernel.entries(daemon)) == before
    daemon.fwctl("status")


@needs_others
@pytest.mark.parametrize("rules, status", [(ETH0, 0), (WRONG, 1)])
def test_check_needs_no_privileges(net, rules, status):
    daemon = configured(net, rules)
    net.sandbox.folder.chmod(0o755)
    daemon.folder.chmod(0o755)
    binary = net.sandbox.folder / "fwd-for-all"  # the build folder may be root's alone
    binary.write_bytes(FWD.read_bytes())
    binary.chmod(0o755)
    done = run("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", binary, "--check",
               "-c", daemon.config_path, check=False, env=daemon.env)
    assert done.returncode == status and bool(done.stderr) == bool(status), done


@pytest.mark.parametrize("path", ["/nonexistent/fwd.toml", "/tmp"])
def test_check_of_what_cannot_be_read_names_it(path):
    done = fwd("--check", "-c", path, check=False)
    assert done.returncode == 1 and path in done.stderr


# ---- the service manager ----

def test_ready_comes_once_packets_are_filtered(net, listener):
    """With so many entries that a start which did not wait for them would be seen."""
    feed = net.sandbox.folder / "feed"
    feed.write_text("".join(f"172.16.{i // 256}.{i % 256}\n" for i in range(30000)) + "192.168.1.1\n")
    daemon = configured(net, f'{ETH0}[[blacklist.feed]]\nname = "drop"\nfile = "{feed}"\n')
    frame = bytes(udp(net.wire, 7, "192.168.1.1"))
    flow = Flow(net.wire, frame, listener)
    flow.passes()
    daemon.start()
    net.wire.transmit(frame, 3)
    assert listener.packets(1, 0.2) == []
    assert daemon.fwctl_json("status")["blacklist"]["entries"] == 30001


def test_sigterm_is_answered_by_stopping_and_status_0(net):
    daemon = net.daemon()
    daemon.notify.lines.clear()
    daemon.signal(signal.SIGTERM)
    daemon.wait_for("STOPPING=1", 5)
    assert daemon.process.wait(5) == 0
    daemon.end()


@pytest.mark.parametrize("whose, pinged", [("$$", True), ("1", False)])
def test_the_watchdog_is_pinged_if_it_is_ours(net, whose, pinged):
    script = net.sandbox.folder / "with-pid"
    script.write_text(f'#!/bin/sh\nWATCHDOG_PID={whose} exec "{FWD}" "$@"\n')
    script.chmod(0o755)
    daemon = Daemon(net.sandbox, net.host, ETH0, binary=script, env={"WATCHDOG_USEC": "200000"}).start()
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        daemon.notify.receive(0.1)
    pings = daemon.notify.lines.count("WATCHDOG=1")
    assert pings >= 3 if pinged else pings == 0


def test_a_stop_while_clients_wait_is_prompt(net):
    daemon = net.daemon()
    with daemon.client() as silent, daemon.client() as halfway:
        halfway.send(b'{"command": ')
        start = time.monotonic()
        daemon.stop()
        assert time.monotonic() - start < 2 * SLOW
        assert silent.answer() is None and halfway.answer() is None
