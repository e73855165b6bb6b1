# SPDX-License-Identifier: GPL-2.0-or-later
"""fwctl doctor: what it finds out about a host, with and without a daemon, and that it disturbs nothing."""
import ctypes
import json
import os
import re
import shutil
import signal

import pytest

from fwdtest import kernel
from fwdtest.daemon import FWCTL, SANITIZER_OPTIONS
from fwdtest.sandbox import run

# Those that the kernels of Debian answer with "ok", wherever that is.
FINE = ("kernel", "bpffs", "load-xdp", "load-tc", "attach-xdp", "clsact", "jit", "conntrack")


def examine(namespace, socket="/none", by=()):
    """The findings by id and subject; the exit status has to be theirs."""
    done = run(*namespace.enter, *by, FWCTL, "--json", "-s", socket, "doctor", check=False,
               env=os.environ | SANITIZER_OPTIONS | {"LIBXDP_BPFFS": str(namespace.sandbox.bpffs)})
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert done.returncode == (1 if report["problems"] else 0), report
    return {(finding["id"], finding["subject"]): finding for finding in report["findings"]}


def states(findings, *ids, subject=None):
    return {name: findings[name, subject]["state"] for name in ids}


def problems(findings):
    return [key for key, finding in findings.items() if finding["state"] == "problem"]


def test_a_clean_host_has_no_problem_and_nothing_is_left_on_it(net):
    programs, links = run("bpftool", "prog", "show").stdout, net.host.ip_json("link", "show")
    findings = examine(net.host)
    assert problems(findings) == []
    assert set(states(findings, *FINE).values()) == {"ok"}
    assert set(states(findings, "native-xdp", "mtu", "xdp-program", subject="eth0").values()) == {"ok"}
    assert ("mtu", "lo") not in findings and ("native-xdp", "lo") not in findings
    assert findings["native-xdp", "eth0"]["text"] == "native XDP (driver veth)"
    assert findings["capabilities", "fwctl"]["state"] == "ok"
    assert kernel.xdp_id(net.eth0) is None and not kernel.has_clsact(net.eth0)
    now = net.host.ip_json("link", "show")
    assert [link["ifname"] for link in now] == [link["ifname"] for link in links]
    assert "fwd_probe" not in programs + run("bpftool", "prog", "show").stdout


def test_what_a_daemon_tells_is_among_the_findings(net):
    daemon = net.daemon('[[interface]]\nname = "eth0"\n[[interface]]\nname = "wg*"\n')
    findings = examine(net.host, daemon.socket_path)
    assert problems(findings) == []
    assert re.fullmatch(rf"fwd [0-9.]+ runs, process {daemon.pid}", findings["daemon", None]["text"])
    assert findings["socket", None]["text"] == f"only root may use {daemon.socket_path}"
    assert findings["capabilities", "fwd"]["state"] == "ok"
    assert findings["attached", "eth0"]["text"] == "fwd has attached what the rules need: native XDP"
    assert findings["xdp-program", "eth0"]["state"] == "ok"
    assert findings["waiting", "wg*"]["state"] == "note"


def test_a_program_of_somebody_else_is_named_with_who_holds_it_and_where(net):
    foreign, pin = kernel.Foreign(net.sandbox), net.sandbox.bpffs / "theirs"
    foreign.hold(net.eth0)
    theirs = kernel.xdp_id(net.eth0)
    assert "held by nobody else" in examine(net.host)["xdp-program", "eth0"]["text"]
    run("bpftool", "prog", "pin", "id", theirs, pin)
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    held = libbpf.bpf_obj_get(os.fsencode(pin))
    try:
        finding = examine(net.host)["xdp-program", "eth0"]
    finally:
        os.close(held)
    assert finding["state"] == "note"
    assert f'"xdp_pass" (id {theirs}, loaded 20' in finding["text"]
    assert f", held by process {os.getpid()}, pinned at {pin})" in finding["text"]
    assert finding["remedy"].startswith("ip link set dev eth0 xdp off")
    assert kernel.xdp_id(net.eth0) == theirs


def test_a_program_of_somebody_else_is_a_problem_where_fwd_should_be(net):
    kernel.Foreign(net.sandbox).hold(net.eth0)
    daemon = net.daemon()
    findings = examine(net.host, daemon.socket_path)
    assert problems(findings) == [("attached", "eth0"), ("xdp-program", "eth0")]


def test_a_large_mtu_is_fine_where_kernel_and_driver_have_frags(net):
    net.host.ip("link", "set", "eth0", "mtu", "9000")
    release = tuple(map(int, re.match(r"(\d+)\.(\d+)", os.uname().release).groups()))
    finding = examine(net.host)["mtu", "eth0"]
    assert finding["state"] == ("ok" if release >= (6, 3) else "note")
    assert "MTU 9000" in finding["text"]


def test_generic_only_and_masters_are_noted(net):
    net.host.ip("link", "add", "br0", "type", "bridge")
    net.host.ip("link", "set", "eth0", "master", "br0")
    findings = examine(net.host)
    assert findings["native-xdp", "br0"]["state"] == "note"
    assert findings["native-xdp", "br0"]["text"].startswith("generic XDP only")
    assert ("mtu", "br0") not in findings, "generic XDP takes any"
    assert findings["master", "eth0"]["text"].startswith("it is a port of the bridge br0")
    assert problems(findings) == []


def test_a_host_without_a_bpf_file_system_is_told_to_mount_one(net):
    findings = examine(net.host, by=("unshare", "--mount", "sh", "-c", 'umount /sys/fs/bpf && exec "$@"', "sh"))
    assert problems(findings) == [("bpffs", None)]
    assert findings["bpffs", None]["remedy"].startswith("mount -t bpf bpf /sys/fs/bpf")


def test_a_daemon_that_hangs_is_a_problem_and_does_not_hang_doctor(net):
    daemon = net.daemon()
    daemon.signal(signal.SIGSTOP)
    try:
        findings = examine(net.host, daemon.socket_path)
    finally:
        daemon.signal(signal.SIGCONT)
    assert problems(findings) == [("daemon", None)]
    assert "has not answered for 3 s" in findings["daemon", None]["text"]
    assert ("xdp-program", "eth0") in findings


@pytest.mark.skipif(not shutil.which("nft"), reason="no nft")
def test_tables_of_nftables_are_named(net):
    assert examine(net.host)["firewall", "nftables"]["state"] == "ok"
    net.host.run("nft", "add table inet one; add table ip two")
    finding = examine(net.host)["firewall", "nftables"]
    assert finding["state"] == "note" and "(inet one, ip two)" in finding["text"]


def test_without_privileges_it_says_what_it_cannot_see(net):
    daemon = net.daemon()
    findings = examine(net.host, daemon.socket_path, by=("setpriv", "--bounding-set", "-all", "--inh-caps", "-all"))
    unseen = "load-xdp", "load-tc", "attach-xdp", "clsact", "frags", "dispatcher"
    assert {findings[check, None]["remedy"] for check in unseen} == {"run it as root"}
    assert findings["xdp-program", "eth0"]["remedy"] == "run it as root"
    assert findings["capabilities", "fwctl"]["state"] == "note"
    assert problems(findings) == []


def test_interfaces_of_a_daemon_in_another_namespace_are_said_to_be_there(net):
    findings = examine(net.peer, net.daemon().socket_path)
    assert findings["interfaces", "eth0"]["state"] == "note"
    assert ("mtu", "eth0") not in findings
