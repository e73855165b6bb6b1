# SPDX-License-Identifier: GPL-2.0-or-later
"""fwd --detach-all, the emergency exit: nothing of fwd stays in the kernel, and nothing else goes."""
import json
import shutil

import pytest

from fwdtest import kernel
from fwdtest.daemon import Daemon, fwd
from fwdtest.sandbox import Interface, run
from fwdtest.traffic import Flow, Listener, udp, wait_until

RULES = """
[[interface]]
name = "eth0"
[blacklist]
direction = ["in", "out"]
addresses = ["10.1.0.2"]
[[redirect]]
protocol = "udp"
port = 9
target = "tun0"
"""


@pytest.fixture
def blocked(net):
    """A packet that fwd drops, and the socket that it would come to."""
    with Listener(net.host, 7) as listener:
        yield Flow(net.wire, udp(net.wire, 7), listener)


def detach_all(daemon, config=None, check=True):
    return fwd("--detach-all", "-c", config or daemon.config_path, namespace=daemon.namespace,
               env={"LIBXDP_BPFFS": daemon.env["LIBXDP_BPFFS"]}, check=check)


def programs():
    """The ids of all programs of that name, of whatever instance."""
    shown = json.loads(run("bpftool", "-j", "prog", "show").stdout)
    return {program["id"] for program in shown if program.get("name", "").startswith("fwd_")}


def attached(end):
    """The ids of the programs that an interface has."""
    ids = {kernel.xdp_id(end), *kernel.filters(end).values(), *kernel.filters(end, "egress").values()}
    return ids - {None}


def is_clean(daemon, end, before, blocked):
    assert not attached(end) and not kernel.has_clsact(end)
    assert not daemon.pin_dir.exists()
    wait_until(lambda: not before & programs())  # the kernel lets go of filters a little later
    blocked.passes()


def test_after_a_crash_everything_goes(net, blocked):
    daemon = net.daemon(RULES)
    blocked.is_dropped()
    ours = attached(net.eth0)
    assert len(ours) == 3
    daemon.kill()
    blocked.is_dropped()
    done = detach_all(daemon)
    assert done.stderr == ""
    # libxdp has a dispatcher where the kernel lets it.
    assert done.stdout.replace(", out of a dispatcher", "").splitlines() == [
        "eth0: native XDP program taken off",
        "eth0: tc filter taken off ingress",
        "eth0: tc filter taken off egress",
        "eth0: clsact qdisc removed",
        f"{daemon.pin_dir}: pins removed",
        f"Packets are no longer filtered. Rules that fwctl added stay in {daemon.folder}/state.",
    ]
    is_clean(daemon, net.eth0, ours, blocked)


def test_it_may_be_repeated_and_the_daemon_starts_again_with_its_rules(net, blocked):
    daemon = net.daemon(RULES)
    daemon.fwctl("add", "192.0.2.1")
    daemon.stop()
    detach_all(daemon)
    again = detach_all(daemon)
    assert (again.stdout, again.stderr) == ("There was nothing of fwd in the kernel.\n", "")
    daemon.start()
    blocked.is_dropped()
    assert [entry["prefix"] for entry in daemon.fwctl_json("list")["entries"]] == ["10.1.0.2", "192.0.2.1"]


@pytest.mark.parametrize("mistake", ["[[interface]]\nname = 7", 'x = "'])
def test_a_configuration_with_errors_still_tells_the_pin_directory(net, blocked, mistake):
    daemon = net.daemon(RULES)
    ours = attached(net.eth0)
    daemon.stop()
    daemon.write_rules(f"{RULES}\n{mistake}\n")
    done = detach_all(daemon)
    [said] = done.stderr.splitlines()
    assert said.startswith(f"fwd: {daemon.config_path}:") and said.endswith(f'going by pin_dir "{daemon.pin_dir}"')
    is_clean(daemon, net.eth0, ours, blocked)


def test_without_a_configuration_programs_go_wherever_their_pins_are(net, blocked):
    daemon = net.daemon(RULES)
    ours = attached(net.eth0)
    daemon.stop()
    done = detach_all(daemon, net.sandbox.folder / "none.toml")
    assert done.stderr == (f"fwd: {net.sandbox.folder}/none.toml: cannot open: No such file or directory; "
                           'going by pin_dir "/sys/fs/bpf/fwd"\n')
    assert not attached(net.eth0) and daemon.pin_dir.exists()
    blocked.passes()
    detach_all(daemon)
    is_clean(daemon, net.eth0, ours, blocked)


@pytest.mark.parametrize("lost", ["", "current/control", "current/interfaces"])
def test_lost_pins_keep_no_program(net, blocked, lost):
    daemon = net.daemon(RULES)
    ours = attached(net.eth0)
    daemon.kill()
    path = daemon.pin_dir / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert detach_all(daemon).stderr == ""
    is_clean(daemon, net.eth0, ours, blocked)


def test_programs_of_another_version_go(net, blocked):
    daemon = net.daemon(RULES)
    ours = attached(net.eth0)
    daemon.stop()
    kernel.set_abi_version(daemon, 4000)
    detach_all(daemon)
    is_clean(daemon, net.eth0, ours, blocked)


def test_a_bridge_and_its_port_are_both_left(net):
    """The port first, by its number; but the kernel takes nothing off while the bridge has a program."""
    net.host.ip("link", "add", "br0", "type", "bridge")
    net.host.ip("link", "set", "eth0", "master", "br0")
    daemon = net.daemon(RULES + '[[interface]]\nname = "br0"\n')
    bridge = Interface(net.host, "br0")
    assert len(attached(net.eth0)) == 3 and len(attached(bridge)) == 3
    daemon.stop()
    assert detach_all(daemon).stderr == ""
    assert not attached(net.eth0) | attached(bridge) and not daemon.pin_dir.exists()


def test_what_others_have_stays(net):
    foreign = kernel.Foreign(net.sandbox)
    one, _ = net.sandbox.link(net.host, "one", net.peer, "one-p")
    foreign.hold(one)
    for end in net.eth0, one:
        net.host.run("tc", "qdisc", "add", "dev", end.name, "clsact")
        foreign.filter(end, 5, "mark")
    net.host.ip("link", "add", "empty", "type", "bridge")
    net.host.run("tc", "qdisc", "add", "dev", "empty", "clsact")
    theirs = attached(net.eth0), attached(one)
    daemon = net.daemon(RULES + '[[interface]]\nname = "one"\n')
    assert len(attached(net.eth0)) == 4 and len(attached(one)) == 4
    daemon.stop()
    shutil.rmtree(daemon.pin_dir)
    detach_all(daemon)
    assert (attached(net.eth0), attached(one)) == theirs
    assert "clsact" in net.host.run("tc", "qdisc", "show", "dev", "empty").stdout


# A map of that name, and a program of another.
NAMESAKE = """
#define SECTION(name) __attribute__((section(name), used))
struct { int (*type)[2]; int (*key_size)[4]; int (*value_size)[64]; int (*max_entries)[1]; } control SECTION(".maps");
static void *(*lookup)(void *, const void *) = (void *)1;
SECTION("xdp") int other_xdp(void *ctx) { int zero = 0; return lookup(&control, &zero) ? 2 : 1; }
"""


def test_a_program_is_not_ours_by_the_name_of_a_map_alone(net):
    source, program = net.sandbox.folder / "namesake.c", net.sandbox.folder / "namesake.o"
    source.write_text(NAMESAKE)
    run("clang", "-O2", "-g", "-target", "bpf", "-c", source, "-o", program)
    net.host.ip("link", "set", "dev", "eth0", "xdp", "obj", program, "sec", "xdp")
    theirs = kernel.xdp_id(net.eth0)
    daemon = Daemon(net.sandbox, net.host, RULES)
    assert theirs and detach_all(daemon).stdout == "There was nothing of fwd in the kernel.\n"
    assert kernel.xdp_id(net.eth0) == theirs


def test_an_instance_in_another_namespace_is_left_alone(net, blocked):
    daemon = net.daemon(RULES)
    other = Daemon(net.sandbox, net.peer, RULES.replace("eth0", "wire").replace("10.1.0.2", "10.9.0.0/16"), "other")
    other.start().stop()
    theirs, ours = (attached(net.wire), kernel.program_ids(other)), attached(net.eth0)
    assert len(theirs[1]) == 3
    daemon.stop()
    detach_all(daemon)
    is_clean(daemon, net.eth0, ours, blocked)
    assert (attached(net.wire), kernel.program_ids(other)) == theirs


@pytest.mark.parametrize("pins", ["there", "lost"])
def test_it_is_refused_while_a_daemon_runs(net, blocked, pins):
    daemon = net.daemon(RULES)
    ours = attached(net.eth0)
    if pins == "lost":
        shutil.rmtree(daemon.pin_dir)
    done = detach_all(daemon, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == ("fwd: fwd runs: stop it first (systemctl stop fwd), or it would attach everything again\n")
    assert attached(net.eth0) == ours
    blocked.is_dropped()


def test_it_needs_privileges(net):
    daemon = Daemon(net.sandbox, net.host, RULES)
    done = fwd("--detach-all", "-c", daemon.config_path, check=False,
               by=("setpriv", "--bounding-set", "-all", "--inh-caps", "-all"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "fwd: not privileged: run it as root" in done.stderr


def test_it_does_not_go_with_a_check(net):
    assert fwd("--check", "--detach-all", check=False).returncode == 2
