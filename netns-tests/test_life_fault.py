# SPDX-License-Identifier: GPL-2.0-or-later
"""A reload is all or nothing: each call that it makes to the kernel fails in turn."""
import os
import random
import time

import pytest

from fwdtest.daemon import Daemon
from fwdtest.fault import FOR_EVER, LIBRARY, Fault
from fwdtest.rules import TRANSIENT, lasting
from fwdtest.stream import Stream
from fwdtest.traffic import wait_until

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason=f"there is no {LIBRARY}")

ALWAYS, OLD_ONLY, NEW_ONLY, NEVER = "10.1.0.8", "10.1.0.9", "10.1.0.10", "10.1.0.2"
CHANGING = TRANSIENT | {"packets", "bytes", "last_hit_s", "created_s", "loaded_s", "config_loaded_s"}
STEP = int(os.environ.get("FWD_FAULTS", 80))  # of how many calls one fails; 1: each in turn
# More than a small change may have: a new bank of maps is made.
MANY = [f"172.16.{i // 256}.{i % 256}" for i in range(4200)]


def policy_of(client):
    """What is in force as the daemon tells it, and whether the kernel has it so."""
    told = [lasting(client.request(command), CHANGING) for command in ("allow list", "redirect list", "status")]
    status = told[-1]
    del status["maps"]  # how much room there is may change
    for interface in status["interfaces"]:
        interface["xdp"] = bool(interface["xdp"])  # "auto" is generic where native failed
    return told, client.request("verify")["differences"]


def old_rules():
    return (f'[[interface]]\nname = "eth0"\n[blacklist]\naddresses = ["{ALWAYS}", "{OLD_ONLY}"]\n'
            '[allowlist]\naddresses = ["192.0.2.1"]\n'
            '[[redirect]]\nprotocol = "udp"\nport = 8080\ntarget = "tun0"\n')


def new_rules(feed):
    return (f'[[interface]]\nname = "eth*"\n[blacklist]\ndirection = ["in", "out"]\n'
            f'addresses = ["{ALWAYS}", "{NEW_ONLY}"]\n[[blacklist.feed]]\nname = "drop"\nfile = "{feed}"\n'
            '[allowlist]\naddresses = ["192.0.2.2"]\n'
            '[[redirect]]\nprotocol = "tcp"\nport = "9000-9009"\ntarget = "tun0"\ndirection = "out"\n')


class Case:
    """A daemon that goes from the old rules to the new ones and back."""

    def __init__(self, net, prefixes):
        self.net = net
        net.sandbox.tun(net.host, "tun0")
        net.sandbox.link(net.host, "eth1", net.peer, "wire1")
        self.fault = Fault(net.sandbox)
        feed = net.sandbox.folder / "feed"
        feed.write_text("\n".join(prefixes))
        self.new = new_rules(feed)
        self.daemon = Daemon(net.sandbox, net.host, old_rules(), env=self.fault.env).start()
        self.client = self.daemon.client(wait_s=60)
        # What libraries find out once, and never again, they find out here.
        self.reload(self.new)
        self.wanted_new = policy_of(self.client)
        self.reload(old_rules())
        self.wanted_old = policy_of(self.client)
        assert self.wanted_old != self.wanted_new

    def reload(self, rules):
        self.daemon.write_rules(rules)
        return self.daemon.request("reload")

    def turn(self, first, last):
        """A reload in which these calls fail. False if there were not so many."""
        with self.fault.at(first, last):
            answer = self.reload(self.new)
        if last != first:
            # A message of a link, instead of the pauses between tries, which grow.
            self.net.host.ip("link", "set", "dev", "eth0", "alias", str(first))
        what = f"call {first}, {self.fault.name}: {answer}\n{self.daemon.log()[-3000:]}"
        assert answer["ok"] or answer["error"]["message"], what
        self.comes_to(self.wanted_new if answer["ok"] else self.wanted_old, what)
        if answer["ok"]:
            assert self.reload(old_rules())["ok"], what
            self.comes_to(self.wanted_old, what)
        return self.fault.failed > 0

    def comes_to(self, wanted, what):
        """At once where a change failed; what is not part of it is made up for soon."""
        try:
            wait_until(lambda: policy_of(self.client) == wanted, 10)
        except AssertionError:
            assert policy_of(self.client) == wanted, what


@pytest.mark.parametrize("size", [10, len(MANY)])
@pytest.mark.parametrize("lasts", [False, True])
def test_a_reload_in_which_a_call_fails_leaves_the_old_policy_whole_or_makes_the_new_one(net, size, lasts):
    case = Case(net, MANY[:size])
    number = random.randrange(1, STEP + 1)
    with Stream(net.wire, always=ALWAYS, never=NEVER) as stream:
        while case.turn(number, FOR_EVER if lasts else number):
            number += STEP
        stream.wait_for(20)
    stream.only_arrives("never")
    assert number > 20


def test_interfaces_that_could_not_be_listed_are_known_once_they_can_be(net):
    fault = Fault(net.sandbox)
    daemon = Daemon(net.sandbox, net.host, '[[interface]]\nname = "eth*"\n', env=fault.env).start()
    with fault.at(1, FOR_EVER):
        net.sandbox.link(net.host, "eth1", net.peer, "wire1")
        wait_until(lambda: "cannot list the network interfaces again" in daemon.log())
        time.sleep(2)  # for more of them
    wait_until(lambda: "the network interfaces are known again" in daemon.log())
    wait_until(lambda: {row["name"] for row in daemon.request("status")["interfaces"]} == {"eth0", "eth1"})
    assert daemon.log().count("cannot list the network interfaces again") == 1
    daemon.stop()
