# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon keeps of root's privileges once it runs, and that it does with those."""
import os
import re
import signal
from pathlib import Path

import pytest

from fwdtest import kernel
from fwdtest.daemon import FWD, Daemon
from fwdtest.rules import ETH0
from fwdtest.sandbox import run
from fwdtest.traffic import Flow, udp, wait_until

LATE = f'{ETH0}[[interface]]\nname = "late0"\n'
BLOCKED = "10.1.0.2"

NOTHING = 0
SERVICE = 1 << 12 | 1 << 38 | 1 << 39  # linux/capability.h: CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF
SYS_ADMIN = 1 << 21


def capabilities(status):
    return {name: int(value, 16) for name, value in re.findall(r"^Cap(\w+):\t(\w+)$", status, re.MULTILINE)}


def exactly(sets):
    return {"Inh": NOTHING, "Prm": sets, "Eff": sets, "Bnd": sets, "Amb": NOTHING}


def broker(daemon):
    """The process id of its only child."""
    return int(Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text())


def gone(pid):
    return not os.path.exists(f"/proc/{pid}")


def xdp(daemon):
    return {interface["name"]: interface["xdp"] for interface in daemon.fwctl_json("status")["interfaces"]}


def test_every_thread_has_exactly_three_capabilities(net):
    daemon = net.daemon()
    threads = [(task / "status").read_text() for task in Path(f"/proc/{daemon.pid}/task").iterdir()]
    assert len(threads) > 2
    for status in threads:
        assert capabilities(status) == exactly(SERVICE), status
        assert "NoNewPrivs:\t1\n" in status


def test_the_broker_has_one_capability_one_descriptor_and_a_filter(net):
    daemon = net.daemon()
    status = Path(f"/proc/{broker(daemon)}/status").read_text()
    assert "Name:\tfwd-broker\n" in status and "Seccomp:\t2\n" in status
    assert capabilities(status) == exactly(SYS_ADMIN)
    # It may just have opened something for an interface's new state.
    wait_until(lambda: len(os.listdir(f"/proc/{broker(daemon)}/fd")) == 1)


def test_an_interface_that_appears_later_is_attached_and_its_program_replaced(net, listener):
    daemon = net.daemon(LATE)
    assert capabilities(Path(f"/proc/{daemon.pid}/status").read_text())["Eff"] == SERVICE
    late, peer = net.sandbox.link(net.host, "late0", net.peer, "late0-p")
    wait_until(lambda: xdp(daemon) == {"eth0": "native", "late0": "native"})
    before = kernel.xdp_id(late)
    listed = "".join(f"172.16.{i // 256}.{i % 256}\n" for i in range(5000))
    daemon.fwctl("add", "-", input=f"{peer.ipv4}\n{BLOCKED}\n{listed}")
    assert kernel.xdp_id(late) != before, "so many entries come with other maps"
    Flow(peer, udp(peer, 7), listener).is_dropped()
    Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()


def test_the_libraries_ask_the_broker_too():
    """Their look-ups by id are bound to the daemon's functions, not to libbpf's own."""
    seen = run(FWD, "--version", env=os.environ | {"LD_DEBUG": "bindings", "LD_BIND_NOW": "1"}).stderr
    bound = re.findall(r"binding file (\S+) \[0\] to (\S+) \[0\]: normal symbol `(bpf_(?:prog|map|btf)_get_fd_by_id\w*)'",
                       seen)
    assert {"libbpf", "libxdp"} <= {Path(by).name.split(".")[0] for by, _, _ in bound}
    assert {Path(to).name for _, to, _ in bound} == {"fwd"}


def test_without_sys_admin_it_starts_and_says_what_does_not_work(net, listener):
    script = net.sandbox.folder / "less"
    script.write_text(f'#!/bin/sh\nexec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin "{FWD}" "$@"\n')
    script.chmod(0o755)
    daemon = Daemon(net.sandbox, net.host, ETH0, binary=script).start()
    assert "without CAP_SYS_ADMIN" in daemon.log()
    assert capabilities(Path(f"/proc/{daemon.pid}/status").read_text()) == exactly(SERVICE)
    assert not Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text(), "no broker"
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.passes()
    daemon.fwctl("add", BLOCKED)
    flow.is_dropped()
    daemon.fwctl("del", BLOCKED)
    flow.passes()


# ---- the broker's end ----

def test_the_broker_ends_with_a_daemon_that_is_killed(net):
    daemon = net.daemon()
    pid = broker(daemon)
    daemon.kill()
    wait_until(lambda: gone(pid))


def test_a_stop_that_signals_the_broker_too_still_detaches(net):
    """As systemd stops a service: every process of it gets SIGTERM."""
    daemon = net.daemon(ETH0, on_stop="detach")
    pid = broker(daemon)
    os.kill(pid, signal.SIGTERM)
    daemon.stop()
    assert gone(pid) and net.eth0.xdp_mode() is None and not daemon.pin_dir.exists()


@pytest.mark.parametrize("on_stop", ["keep", "detach"])
def test_without_its_broker_the_daemon_ends_to_be_started_again_and_filtering_goes_on(net, listener, on_stop):
    daemon = net.daemon(ETH0, on_stop=on_stop)
    daemon.fwctl("add", BLOCKED)
    os.kill(broker(daemon), signal.SIGKILL)
    assert daemon.process.wait(10) == 1
    assert "the broker of BPF objects has died" in daemon.log()
    assert "no longer filtered" not in daemon.log()
    daemon.end()
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    flow.is_dropped()
    daemon.start()
    assert daemon.fwctl_json("status")["adopted"]
    flow.is_dropped()
