# SPDX-License-Identifier: GPL-2.0-or-later
"""`fwctl verify` names what differs from the rules, whatever it is, and `--repair` mends it."""
import json
import sqlite3
import struct
import threading

import pytest

from fwdtest import kernel
from fwdtest.daemon import fwd
from fwdtest.sandbox import run
from fwdtest.stream import Stream
from fwdtest.traffic import Flow, Listener, TunReceiver, udp

RULES = """
[[interface]]
name = "eth0"
[blacklist]
addresses = ["192.0.2.0/24"]
[allowlist]
addresses = ["203.0.113.7"]
[[redirect]]
protocol = "udp"
port = 8080
target = "tun0"
"""
BLOCKED, ALLOWED = "10.1.0.2", "10.1.0.3"
AGREES = "all agree: 4 entries, 1 redirect, 1 interface"


@pytest.fixture
def daemon(net):
    net.tun = net.sandbox.tun(net.host, "tun0")
    daemon = net.daemon(RULES)
    daemon.fwctl("add", BLOCKED)
    daemon.fwctl("add", "2001:db8:ff00::/40", "--ttl", "1h")
    return daemon


def verify(daemon, *arguments):
    """(exit status, lines)"""
    done = daemon.fwctl("verify", *arguments, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def expect(daemon, *differences):
    """Just these; what is to be found is found again, as `verify` mends nothing, and then mended."""
    status, lines = verify(daemon)
    assert (status, lines[:-1]) == (1, list(differences))
    assert lines[-1] == (f"{len(differences)} differences" if len(differences) > 1 else "1 difference")
    assert verify(daemon) == (1, lines)
    status, lines = verify(daemon, "--repair")
    assert (status, lines[-1]) == (0, AGREES), lines
    assert lines[0] == f"{len(differences)} difference{'s' * (len(differences) > 1)} mended"
    assert verify(daemon) == (0, [AGREES])


def shown(pin):
    return json.loads(run("bpftool", "-j", "map", "dump", "pinned", pin).stdout)


def update(pin, key, value):
    run("bpftool", "map", "update", "pinned", pin, "key", *struct.pack("=I", key), "value", *value)


def elements(pin):
    """(key, value) of all that are not zero."""
    for row in shown(pin):
        value = bytes(int(byte, 16) for byte in row["value"])
        if any(value):
            yield struct.unpack("=I", bytes(int(byte, 16) for byte in row["key"]))[0], value


def pin(daemon, name):
    return daemon.pin_dir / "current" / name


def bank(daemon):
    return next(number for number in (0, 1) if any(elements(pin(daemon, f"entries4_{number}"))))


def entry(daemon, address):
    """The pin, key and value of the IPv4 entry."""
    where = pin(daemon, f"entries4_{bank(daemon)}")
    for key, value in elements(where):
        if value[28:32] == struct.pack("=I", int.from_bytes(bytes(map(int, address.split("."))), "big")):
            return where, key, value
    raise AssertionError(f"no entry {address}")


def refusal_of_a_second(net, daemon):
    """What another daemon says that is to use the same pin directory."""
    config = daemon.folder / "second.toml"
    config.write_text(f'[daemon]\nsocket = "{daemon.folder}/second.sock"\nstate_dir = "{daemon.folder}/second"\n'
                      f'pin_dir = "{daemon.pin_dir}"\n')
    return fwd("-c", config, namespace=net.host, check=False).stderr


def test_all_agrees_after_changes_of_every_kind_and_a_restart(net, daemon):
    assert verify(daemon) == (0, [AGREES])
    assert verify(daemon, "--repair") == (0, [AGREES])
    daemon.fwctl("add", "-", input="".join(f"172.16.{i // 256}.{i % 256}\n" for i in range(6000)))
    daemon.fwctl("add", "172.16.0.0/12", "--ttl", "30m")
    daemon.fwctl("del", "172.16.0.7")
    daemon.fwctl("add", "172.16.0.9", "--ttl", "1h")
    daemon.fwctl("allow", "add", "172.16.1.0/24")
    daemon.fwctl("redirect", "add", "tcp/1-65535", "tun0", "--on", "eth0", "--direction", "out")
    answer = daemon.fwctl_json("verify")
    assert answer == {"agrees": True, "differences": [], "n_differences": 0, "repaired": 0,
                      "checked": {"entries": 6005, "redirects": 2, "interfaces": 1}}
    daemon.kill()
    daemon.start()
    assert daemon.fwctl_json("verify") == answer
    daemon.fwctl("flush")
    daemon.fwctl("reload")
    assert verify(daemon)[0] == 0


def test_an_entry_that_is_changed_in_the_maps_is_named_and_mended(net, daemon):
    where, key, value = entry(daemon, BLOCKED)
    update(where, key, value[:28] + struct.pack("=I", 0x0A010003))
    with Listener(net.host, 7) as listener:
        Flow(net.wire, udp(net.wire, 7, ALLOWED), listener).is_dropped()
        expect(daemon, f"{BLOCKED}: blocked by the rules, not in the kernel's maps",
               f"{ALLOWED}: blocked in the kernel's maps, and no rule says so")
        Flow(net.wire, udp(net.wire, 7, ALLOWED), listener).passes()
        Flow(net.wire, udp(net.wire, 7, BLOCKED), listener).is_dropped()


def test_another_end_in_the_maps_is_named_and_mended(daemon):
    where, key, value = entry(daemon, BLOCKED)
    [about] = struct.unpack_from("=Q", value)
    update(where, key, struct.pack("=Q", about | 1 << 60) + value[8:])
    expect(daemon, f"{BLOCKED}: blocked in the kernel's maps to another end than by the rules")


def test_a_view_that_leads_elsewhere_is_named_and_mended(daemon):
    """To a view without any rule: packets see nothing of them."""
    control = pin(daemon, "control")
    [(key, value)] = elements(control)
    view = struct.unpack_from("=I", value, 8)[0]
    update(control, key, value[:8] + struct.pack("=I", (view + 4) % 8) + value[12:])
    status, lines = verify(daemon)
    assert status == 1 and f"{BLOCKED}: blocked by the rules, not in the kernel's maps" in lines
    assert verify(daemon, "--repair")[1][-1] == AGREES
    assert daemon.fwctl_json("verify")["agrees"]


def test_other_directions_in_the_view_are_named_and_mended(daemon):
    control = pin(daemon, "control")
    [(key, value)] = elements(control)
    at = 16 + struct.unpack_from("=I", value, 8)[0] * kernel.VIEW.size + 2
    update(control, key, value[:at] + b"\x03" + value[at + 1:])
    expect(daemon, "blacklist.direction: the kernel's maps have others than the rules (0x3, not 0x1)")


@pytest.mark.parametrize("name", ["control", "entries6_1"])
def test_a_missing_pin_is_named_and_pinned_again(daemon, name):
    path = pin(daemon, name)
    path.unlink()
    expect(daemon, f"{path}: the map in use is not pinned there")
    daemon.kill()
    daemon.start()
    assert daemon.fwctl_json("status")["adopted"] and verify(daemon)[0] == 0


def test_another_map_in_the_place_of_a_pin_is_named_and_replaced(daemon):
    path = pin(daemon, "lines_0")
    path.unlink()
    run("bpftool", "map", "create", path, "type", "array", "key", 4, "value", 64, "entries", 8, "name", "other")
    expect(daemon, f"{path}: another map than the one in use is pinned there")


def test_pins_that_are_all_removed_are_named_and_made_again(net, daemon):
    pins = len(list(pin(daemon, "control").parent.iterdir()))
    for path in sorted(daemon.pin_dir.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    daemon.pin_dir.rmdir()
    status, lines = verify(daemon)
    assert status == 1 and lines[-1] == f"{pins} differences", lines
    assert "eth0: XDP: our program is not pinned, so that a restart would not know it" in lines
    with Stream(net.wire, blocked=BLOCKED, allowed=ALLOWED) as stream:
        assert verify(daemon, "--repair")[1] == [f"{pins} differences mended", AGREES]
        stream.wait_for(20)
    stream.only_arrives("allowed")
    assert len(list(pin(daemon, "control").parent.iterdir())) == pins
    assert "another fwd uses the pin directory" in refusal_of_a_second(net, daemon)
    daemon.kill()
    daemon.start()
    assert daemon.fwctl_json("status")["adopted"] and verify(daemon)[0] == 0


def test_a_port_that_is_changed_in_the_tables_is_named_and_mended(net, daemon):
    """A port of the rule without it, and another one with it; then the whole table is not there."""
    tables = pin(daemon, "redirect_tables")
    rows = [row for row in shown(tables) if "error" not in row["value"]]
    [table] = {int.from_bytes(bytes(int(byte, 16) for byte in row["value"]), "little") for row in rows}
    line, port = 512 + 8080 // 128, 8080 % 128
    value = bytearray(256)
    value[2 * (port + 1)] = 1
    run("bpftool", "map", "update", "id", table, "key", *struct.pack("=I", line), "value", *value)
    expect(daemon, "udp/8080 in on eth0: redirected by the rules, not in the kernel's maps",
           "udp/8081 in on eth0: redirected in the kernel's maps, and no rule says so")
    for row in rows:
        run("bpftool", "map", "delete", "pinned", tables, "key", *(int(byte, 16) for byte in row["key"]))
    expect(daemon, "udp/8080 in on eth0: redirected by the rules, not in the kernel's maps")
    Flow(net.wire, udp(net.wire, 8080, ALLOWED), TunReceiver(net.tun)).passes()


def test_a_redirect_or_target_that_is_changed_in_the_maps_is_named_and_mended(net, daemon):
    redirects = pin(daemon, "redirects")
    [(key, value)] = elements(redirects)
    for target in (struct.pack("=I", 1) + value[4:], value[:4] + b"\2" + value[5:]):
        update(redirects, key, target)
        expect(daemon, "udp/8080 to tun0: the kernel's maps have another target than tun0 is now")
    update(redirects, key, b"\0" * 64)
    expect(daemon, "udp/8080 in to tun0: a rule, and not in the kernel's maps")
    Flow(net.wire, udp(net.wire, 8080, ALLOWED), TunReceiver(net.tun)).passes()


@pytest.mark.parametrize("name, where", [("xdp_0", "XDP"), ("tc_in_0", "TC in")])
def test_a_program_that_is_not_pinned_is_named_and_pinned_again(net, daemon, name, where):
    pin(daemon, name).unlink()
    with Stream(net.wire, blocked=BLOCKED, allowed=ALLOWED) as stream:
        expect(daemon, f"eth0: {where}: our program is not pinned, so that a restart would not know it")
        stream.wait_for(20)
    stream.only_arrives("allowed")


def test_a_stray_program_is_named_and_taken_off(net, daemon):
    if daemon.request("status")["interfaces"][0]["dispatcher"]:
        pytest.skip("ours is a component of libxdp's dispatcher: it cannot be attached by hand")
    one, _ = net.sandbox.link(net.host, "one", net.peer, "wire1")
    net.host.run("bpftool", "net", "attach", "xdpgeneric", "id", kernel.program_ids(daemon)["xdp_0"], "dev", "one")
    expect(daemon, "one: XDP: a program of ours, and the interface is not configured")
    assert kernel.xdp_id(one) is None and kernel.xdp_id(net.eth0)


def test_what_the_durable_store_has_otherwise_is_named_and_mended(daemon):
    daemon.fwctl("redirect", "add", "tcp/9", "tun0", "--on", "eth0")
    daemon.fwctl("add", "198.51.100.1", "198.51.100.2")
    with sqlite3.connect(daemon.folder / "state" / "rules.db") as db:
        [first] = db.execute("SELECT prefix FROM block WHERE hex(prefix) LIKE '%C6336401%'").fetchone()
        db.execute("UPDATE block SET prefix = ? WHERE prefix = ?", (first.replace(b"\x64\x01", b"\x64\x03"), first))
        db.execute("UPDATE block SET expires_boot_ns = 1 << 60 WHERE hex(prefix) LIKE '%C6336402%'")
        db.execute("DELETE FROM redirect")
    status, lines = verify(daemon)
    assert (status, lines) == (1, [
        "198.51.100.1: blocked, not in the durable store: a restart would forget it",
        "198.51.100.2: blocked, to another end in the durable store",
        "198.51.100.3: in the durable store, not blocked: a restart would block it",
        "tcp/9 in to tun0: redirected, not in the durable store: a restart would forget it",
        "4 differences"])
    assert verify(daemon, "--repair")[0] == 0
    before = daemon.fwctl_json("list")["entries"]
    daemon.kill()
    daemon.start()
    assert [entry["prefix"] for entry in daemon.fwctl_json("list")["entries"]] == [entry["prefix"] for entry in before]
    assert verify(daemon)[0] == 0


def test_what_cannot_be_mended_stays_with_the_reason(daemon):
    path = pin(daemon, "counters")
    path.unlink()
    path.mkdir()
    status, lines = verify(daemon, "--repair")
    assert (status, lines) == (1, [
        f"{path}: the map in use is not pinned there (mending failed: cannot pin {path}: Is a directory)",
        "1 difference"])
    path.rmdir()
    assert verify(daemon, "--repair")[0] == 0


def test_a_verify_of_a_million_entries_holds_up_nobody(net, daemon):
    daemon.fwctl("add", "-", input="".join(
        f"{11 + i // 62500}.{i // 250 % 250}.{i % 250}.1\n" for i in range(1000 * 1000 - 10)))
    ends = []
    verifier = threading.Thread(target=lambda: ends.append(daemon.fwctl_json("verify")))
    verifier.start()
    answered = 0
    while verifier.is_alive():
        daemon.request("status")
        daemon.request("add", prefixes=[f"10.77.{answered // 256 % 256}.{answered % 256}"], ttl="1h")
        daemon.request("del", prefixes=[f"10.77.{answered // 256 % 256}.{answered % 256}"])
        answered += 1
    verifier.join()
    assert answered > 3
    assert ends[0]["agrees"], ends[0]
    assert 999994 <= ends[0]["checked"]["entries"] <= 999996
