# SPDX-License-Identifier: GPL-2.0-or-later
"""Nobody cuts off this host, or themselves, by accident: what is refused, what is meant, and what fwd
lets pass by itself where nobody was there to refuse.

The peer is the host's gateway and the administrator's machine.
"""
import pytest

from fwdtest.rules import ETH0
from fwdtest.traffic import wait_until

ANOTHER = "10.1.0.3"  # of the peer, as little guarded as any


@pytest.fixture
def routed(net):
    """With default routes to the peer, and another address there."""
    net.host.ip("route", "add", "default", "via", net.wire.ipv4)
    net.host.ip("-6", "route", "add", "default", "via", net.wire.ipv6)
    net.wire.add_address(f"{ANOTHER}/24")
    return net


def rules(daemon):
    """Prefixes and origins, those that are blocked and those that are allowed."""
    return [[(entry["prefix"], entry["origin"]) for entry in daemon.request(command)["entries"]]
            for command in ("list", "allow list")]


def refused(daemon, *arguments, **options):
    """What fwctl says; nothing has changed."""
    before = rules(daemon)
    done = daemon.fwctl(*arguments, check=False, **options)
    assert done.returncode == 1, done
    assert rules(daemon) == before
    return done.stderr.removeprefix("fwctl: ").strip()


def system(daemon):
    """What fwd itself lets pass, and why."""
    return {entry["prefix"]: entry["comment"] for entry in daemon.request("allow list")["entries"]
            if entry["origin"] == "system"}


def is_cut_off(host, address):
    return not host.ping(address, wait_s=0.3)


def ssh(address):
    """The environment of a login from there."""
    return {"env": {"SSH_CONNECTION": f"{address} 50022 192.0.2.1 22"}}


# ---- refused ----

def test_what_covers_the_gateway_is_refused(routed):
    daemon = routed.daemon()
    tail = ": this would cut this host off; use --force if it is meant"
    assert refused(daemon, "add", "10.1.0.2/31") == \
        f"10.1.0.2/31 covers 10.1.0.2, the default gateway on eth0{tail}"
    assert refused(daemon, "add", routed.wire.ipv6) == \
        f"{routed.wire.ipv6} is the default gateway on eth0{tail}"
    routed.host.ip("route", "add", "default", "via", ANOTHER, "table", "77")
    wait_until(lambda: daemon.fwctl("add", ANOTHER, check=False).returncode == 1)
    assert daemon.request("add", prefixes=["::/0"])["error"]["code"] == "lockout"
    assert "add by uid 0" in daemon.log() and "is refused: ::/0 covers" in daemon.log()


def test_what_covers_an_address_of_this_host_is_refused(net):
    daemon = net.daemon()
    assert refused(daemon, "add", "10.1.0.0/24").startswith("10.1.0.0/24 covers 10.1.0.1, an address of this host (eth0)")
    assert "an address of this host (lo)" in refused(daemon, "add", "127.0.0.0/8")
    assert "an address of this host (lo)" in refused(daemon, "add", "::1")
    net.host.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
    wait_until(lambda: daemon.fwctl("add", "192.0.2.0/24", "--ttl", "1s", check=False).returncode == 1)


@pytest.mark.parametrize("address, prefix", [
    ("198.51.100.7", "198.51.100.0/24"), ("::ffff:198.51.100.7", "198.51.100.7"),
    ("2001:db8:1::7", "2001:db8:1::/48"), ("fe80::7%eth0", "fe80::/64")])
def test_what_covers_the_callers_ssh_session_is_refused(net, address, prefix):
    daemon = net.daemon()
    assert "where you are logged in by SSH: this would cut you off" in \
        refused(daemon, "add", prefix, **ssh(address))
    daemon.fwctl("add", "203.0.113.0/24", **ssh(address))
    daemon.fwctl("allow", "add", prefix)
    daemon.fwctl("add", prefix, **ssh(address))
    assert "nothing would allow it any more" in refused(daemon, "allow", "del", prefix, **ssh(address))
    daemon.fwctl("allow", "del", prefix, "--force", **ssh(address))


def test_the_session_is_found_behind_sudo(net):
    """sudo cleans the environment of what it runs; its ancestors keep theirs."""
    daemon = net.daemon()
    words = ["sh", "-c", 'env -u SSH_CONNECTION sh -c "$*; exit \\$?"; exit $?', "sh"]
    assert "logged in by SSH" in refused(daemon, "add", "198.51.100.0/24", by=words, **ssh("198.51.100.7"))


@pytest.mark.parametrize("n", [10, 20_000])
def test_a_list_with_such_a_prefix_is_refused_as_a_whole(routed, n):
    daemon = routed.daemon()
    hosts = [f"20.{i >> 16}.{i >> 8 & 255}.{i & 255}" for i in range(n)]
    said = refused(daemon, "add", "-", input="\n".join([*hosts, "10.1.0.0/29"]))
    assert said.startswith("10.1.0.0/29 covers 10.1.0.2, the default gateway on eth0")
    daemon.fwctl("add", "-", input="\n".join(hosts))


def test_what_the_allowlist_has_is_no_danger(routed):
    daemon = routed.daemon()
    daemon.fwctl("allow", "add", routed.wire.ipv4, routed.eth0.ipv4)
    daemon.fwctl("add", "10.1.0.0/24")
    assert system(daemon) == {}
    assert routed.host.ping(routed.wire.ipv4) and is_cut_off(routed.host, ANOTHER)


# ---- meant ----

def test_what_is_forced_is_dropped_until_it_is_deleted(routed):
    daemon = routed.daemon()
    daemon.fwctl("add", "10.1.0.0/24", "--force")
    assert is_cut_off(routed.host, routed.wire.ipv4)
    daemon.stop()
    daemon.start()
    assert system(daemon) == {}
    assert is_cut_off(routed.host, routed.wire.ipv4)
    daemon.fwctl("del", "10.1.0.0/24")
    assert routed.host.ping(routed.wire.ipv4)
    assert refused(daemon, "add", "10.1.0.0/24")


def test_what_the_configuration_names_is_meant(routed):
    daemon = routed.daemon(f'{ETH0}[blacklist]\naddresses = ["10.1.0.2", "10.1.0.0/24"]\n')
    assert system(daemon) == {"10.1.0.1": "an address of this host (eth0), in 10.1.0.0/24 (config)"}
    assert is_cut_off(routed.host, routed.wire.ipv4)


# ---- nobody is there to refuse ----

def test_a_gateway_that_appears_after_the_start_is_reached_though_a_feed_covers_it(net):
    """As at boot: fwd is there first, then the address, then the route."""
    net.wire.add_address(f"{ANOTHER}/24")
    net.host.ip("addr", "flush", "dev", "eth0")
    (net.sandbox.folder / "feed").write_text("10.1.0.0/24\n")
    daemon = net.daemon(f'{ETH0}[[blacklist.feed]]\nname = "drop"\nfile = "{net.sandbox.folder}/feed"\n')
    assert system(daemon) == {}
    net.host.ip("addr", "add", "10.1.0.1/24", "dev", "eth0")
    net.host.ip("route", "add", "default", "via", net.wire.ipv4)
    wait_until(lambda: len(system(daemon)) == 2)
    assert system(daemon) == {"10.1.0.1": "an address of this host (eth0), in 10.1.0.0/24 (drop)",
                              "10.1.0.2": "the default gateway on eth0, in 10.1.0.0/24 (drop)"}
    assert daemon.request("status")["allowlist"] == {"entries": 0, "max_entries": 65536, "spared": 2}
    assert net.host.ping(net.wire.ipv4) and is_cut_off(net.host, ANOTHER)
    assert daemon.log().count("10.1.0.2 passes though it is blocked") == 1
    daemon.stop()
    daemon.start()
    assert net.host.ping(net.wire.ipv4) and is_cut_off(net.host, ANOTHER)
    net.host.ip("route", "del", "default")
    wait_until(lambda: "10.1.0.2" not in system(daemon))
    assert is_cut_off(net.host, net.wire.ipv4)


def test_a_reload_and_a_feed_do_not_cut_the_gateway_off(routed):
    feed = '[[blacklist.feed]]\nname = "drop"\n'
    daemon = routed.daemon(ETH0 + feed)
    daemon.write_rules(f'{ETH0}{feed}[blacklist]\naddresses = ["10.1.0.0/30"]\n')
    daemon.fwctl("reload")
    assert set(system(daemon)) == {"10.1.0.1", "10.1.0.2"}
    daemon.write_rules(ETH0 + feed)
    daemon.fwctl("reload")
    assert system(daemon) == {}
    daemon.fwctl("feed", "replace", "drop", "-", input="0.0.0.0/0\n::/0\n")
    assert routed.host.ping(routed.wire.ipv4) and routed.host.ping(routed.wire.ipv6)
    assert is_cut_off(routed.host, ANOTHER)
    daemon.write_rules(f'{ETH0}{feed}[allowlist]\nsystem = false\n')
    daemon.fwctl("reload")
    assert system(daemon) == {}
    assert is_cut_off(routed.host, routed.wire.ipv4)
