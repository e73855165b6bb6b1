# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures: `sandbox` is empty; `net` is a host and a peer with a wire between them; `listener`
is what the host's applications get.

Names in `net`: host.eth0 <-> peer.wire, as `net.host`, `net.eth0`, `net.peer`, `net.wire`, and
`net.daemon(RULES)`, which starts fwd at the host.
"""
import os
from types import SimpleNamespace

import pytest

from fwdtest.daemon import Daemon
from fwdtest.rules import ETH0
from fwdtest.sandbox import Sandbox
from fwdtest.traffic import Listener


def pytest_sessionstart(session):
    if os.geteuid() != 0:
        pytest.exit("network namespaces and BPF need root", returncode=1)


@pytest.fixture
def sandbox():
    with Sandbox() as sandbox:
        yield sandbox
        for log in sandbox.folder.glob("*/log"):
            print(f"--- {log.parent.name}'s log ---\n{log.read_text(errors='replace')}")


@pytest.fixture
def net(sandbox):
    host, peer = sandbox.namespace("host"), sandbox.namespace("peer")
    eth0, wire = sandbox.link(host, "eth0", peer, "wire")

    def daemon(rules=ETH0, **keys):
        return Daemon(sandbox, host, rules, **keys).start()

    return SimpleNamespace(sandbox=sandbox, host=host, peer=peer, eth0=eth0, wire=wire, daemon=daemon)


@pytest.fixture
def listener(net):
    """UDP port 7 of the host."""
    with Listener(net.host, 7) as listener:
        yield listener
