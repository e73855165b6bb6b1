# SPDX-License-Identifier: GPL-2.0-or-later
"""fwd and another XDP program on one interface, by libxdp's dispatcher.

The other one is xdp-filter of xdp-tools: it drops UDP to one port and counts that. Skipped where the
kernel does not load the dispatcher, as seen without fwd.
"""
import json
import os
import re
import shutil
import signal

import pytest

from fwdtest.sandbox import Sandbox, run
from fwdtest.stream import Stream
from fwdtest.traffic import Flow, Listener, rises, udp, wait_until

BLOCKED, FREE = "10.1.0.66", "10.1.0.7"
THEIR_PORT, OUR_PORT = 9, 7
STREAM = 100  # a stream's ports are so much higher than those of single packets
RULES = f'[[interface]]\nname = "eth0"\nxdp_mode = "native"\n[blacklist]\naddresses = ["{BLOCKED}"]\n'
OURS, THEIRS = "fwd_xdp", "xdpfilt_alw_all"

ORDERS = pytest.mark.parametrize("first", [OURS, THEIRS])


class Filter:
    """xdp-filter on an interface."""

    def __init__(self, interface, bpffs):
        self.interface = interface
        # Where libxdp keeps the dispatcher's pins: the daemon has the same place.
        self.env = os.environ | {"LIBXDP_BPFFS": str(bpffs)}
        interface.namespace.sandbox.at_exit(self.end)

    def _run(self, *command, **options):
        return self.interface.namespace.run(*command, env=self.env, **options)

    def load(self):
        self._run("xdp-filter", "load", "-m", "native", self.interface.name)
        for port in (THEIR_PORT, THEIR_PORT + STREAM):
            self._run("xdp-filter", "port", port, "-p", "udp")

    def end(self):
        """It has pins beside the sandbox's, too."""
        self._run("xdp-filter", "unload", "--all", check=False)

    def unload(self):
        self._run("xdp-filter", "unload", self.interface.name)

    def hits(self, port=THEIR_PORT):
        shown = self._run("xdp-filter", "status").stdout
        return int(re.search(rf"^ +{port} +dst,udp +(\d+)", shown, re.MULTILINE)[1])

    def programs(self):
        """{name: id} of what the dispatcher calls; no name is there twice."""
        shown = self._run("xdp-loader", "status", self.interface.name).stdout
        rows = re.findall(r"^ => +\d+ +(\S+) +(\d+) ", shown, re.MULTILINE)
        assert len(dict(rows)) == len(rows), shown
        return dict(rows)


@pytest.fixture(scope="module", autouse=True)
def dispatcher():
    if not shutil.which("xdp-filter"):
        pytest.skip("xdp-filter is not installed")
    with Sandbox() as sandbox:
        eth0, _ = sandbox.link(sandbox.namespace("host"), "eth0", sandbox.namespace("peer"), "wire")
        theirs = Filter(eth0, sandbox.bpffs)
        theirs.load()
        if THEIRS not in theirs.programs():
            pytest.skip("libxdp's dispatcher cannot be loaded here")


@pytest.fixture
def theirs(net):
    return Filter(net.eth0, net.sandbox.bpffs)


@pytest.fixture
def flows(net):
    with Listener(net.host, OUR_PORT) as ours, Listener(net.host, THEIR_PORT) as theirs:
        yield {
            "blocked by us": Flow(net.wire, udp(net.wire, OUR_PORT, BLOCKED), ours),
            "blocked by them": Flow(net.wire, udp(net.wire, THEIR_PORT, FREE), theirs),
            "free": Flow(net.wire, udp(net.wire, OUR_PORT, FREE), ours),
        }


def arrive(net, theirs, first, **keys):
    """Both on the interface, in this order; the daemon."""
    if first == THEIRS:
        theirs.load()
    daemon = net.daemon(RULES, **keys)
    if first == OURS:
        theirs.load()
    assert set(theirs.programs()) == {OURS, THEIRS}
    return daemon


def both_filter(daemon, theirs, flows):
    hits = theirs.hits()
    # Of the same run priority, libxdp calls them by name: what they drop we have let pass.
    with rises(daemon, {("eth0", "xdp", "drop"): 3, ("eth0", "xdp", "pass"): 6}):
        flows["blocked by us"].is_dropped()
        flows["blocked by them"].is_dropped()
        flows["free"].passes()
    assert theirs.hits() - hits == 3


@ORDERS
def test_both_programs_filter(net, theirs, flows, first):
    for flow in flows.values():
        flow.passes()
    daemon = arrive(net, theirs, first)
    both_filter(daemon, theirs, flows)
    assert daemon.request("status")["interfaces"][0]["dispatcher"]


@ORDERS
def test_ours_leaves_and_comes_back_without_disturbing_the_other(net, theirs, flows, first):
    daemon = arrive(net, theirs, first, on_stop="detach")
    their_id = theirs.programs()[THEIRS]
    both_filter(daemon, theirs, flows)
    hits = theirs.hits(THEIR_PORT + STREAM)
    with Stream(net.wire, port=THEIR_PORT + STREAM, theirs=FREE) as stream:
        daemon.stop()
        assert theirs.programs() == {THEIRS: their_id}
        stream.wait_for(20)
        daemon.start()
        assert theirs.programs()[THEIRS] == their_id
        stream.wait_for(20)
    stream.only_arrives()
    assert theirs.hits(THEIR_PORT + STREAM) - hits == stream.sent["theirs"]
    both_filter(daemon, theirs, flows)


@ORDERS
def test_the_other_leaves_and_comes_back_without_disturbing_ours(net, theirs, flows, first):
    daemon = arrive(net, theirs, first)
    with Stream(net.wire, port=OUR_PORT + STREAM, blocked=BLOCKED, free=FREE) as stream:
        theirs.unload()
        stream.wait_for(20)
        theirs.load()
        stream.wait_for(20)
    stream.only_arrives("free")
    both_filter(daemon, theirs, flows)


@ORDERS
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_both_go_on_while_the_daemon_is_away_and_it_adopts_its_own(net, theirs, flows, first, end):
    daemon = arrive(net, theirs, first)
    programs = theirs.programs()
    with Stream(net.wire, port=OUR_PORT + STREAM, blocked=BLOCKED, free=FREE) as stream:
        daemon.signal(signal.SIGTERM if end == "stop" else signal.SIGKILL)
        daemon.process.wait()
        stream.wait_for(20)
        daemon.end()
        daemon.start()
        stream.wait_for(20)
    stream.only_arrives("free")
    assert theirs.programs() == programs
    both_filter(daemon, theirs, flows)


@ORDERS
def test_ours_is_replaced_in_the_dispatcher_when_its_maps_grow(net, theirs, flows, first):
    daemon = arrive(net, theirs, first)
    before = theirs.programs()
    listed = net.sandbox.folder / "list"
    listed.write_text("\n".join(f"100.{i >> 8}.{i & 255}.1" for i in range(20_000)))
    with Stream(net.wire, port=OUR_PORT + STREAM, blocked=BLOCKED, free=FREE) as stream:
        daemon.fwctl("add", "-f", listed)
    stream.only_arrives("free")
    after = theirs.programs()
    assert after[THEIRS] == before[THEIRS] and after[OURS] != before[OURS]
    both_filter(daemon, theirs, flows)


def test_exchanges_and_reloads_leave_no_program_and_no_descriptor_behind(net, theirs):
    daemon = arrive(net, theirs, THEIRS)
    many = net.sandbox.folder / "many"
    many.write_text("\n".join(f"172.16.{i // 256}.{i % 256}" for i in range(5000)))

    def exchange():
        daemon.fwctl("add", "-f", many)
        daemon.fwctl("del", "-f", many)
        daemon.fwctl("reload")
        return daemon.descriptors()

    exchange()
    files, maps = exchange(), len(json.loads(run("bpftool", "-j", "map", "show").stdout))
    for _ in range(4):
        exchange()
    assert daemon.descriptors() <= files + 2
    wait_until(lambda: len(json.loads(run("bpftool", "-j", "map", "show").stdout)) <= maps)
