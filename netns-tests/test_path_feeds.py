# SPDX-License-Identifier: GPL-2.0-or-later
"""Feeds: lists that are replaced as a whole, with fwctl or from their files."""
import pytest

from fwdtest import kernel
from fwdtest.rules import ETH0
from fwdtest.traffic import Flow, udp, wait_until

BLOCKED, OTHER = "10.1.0.2", "10.1.0.3"


def feed(name, file=None):
    return f'[[blacklist.feed]]\nname = "{name}"\n' + (f'file = "{file}"\n' if file else "")


@pytest.fixture
def file(net):
    path = net.sandbox.folder / "drop.txt"
    path.write_text("192.0.2.1\n192.0.2.2\n")
    return path


@pytest.fixture
def daemon(net, file):
    """With "drop", which has a file, and "pushed", which has none."""
    daemon = net.daemon(ETH0 + feed("drop", file) + feed("pushed"))
    yield daemon
    daemon.stop()


def prefixes(daemon, origin):
    return [row["prefix"] for row in daemon.request("list", origin=origin)["entries"]]


def told(daemon, name):
    return {row["name"]: row for row in daemon.fwctl_json("feed", "list")["feeds"]}[name]


def replace(daemon, name, *lines, **options):
    return daemon.fwctl("--json", "feed", "replace", name, "-", input="\n".join(lines) + "\n", **options)


def test_a_list_takes_the_place_of_the_last_one_and_what_stays_keeps_its_hits(daemon, net, listener):
    flow = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    other = Flow(net.wire, udp(net.wire, 7, OTHER), listener)
    assert replace(daemon, "pushed", BLOCKED, "198.51.100.0/24", BLOCKED).stdout == \
        '{"entries": 2, "added": 2, "removed": 0}\n'
    flow.is_dropped()
    other.passes()
    [before] = daemon.request("list", prefix=BLOCKED)["entries"]
    replace(daemon, "pushed", OTHER, BLOCKED)
    assert prefixes(daemon, "pushed") == [BLOCKED, OTHER]
    [after] = daemon.request("list", prefix=BLOCKED)["entries"]
    assert (after["packets"], after["created_s"]) == (3, before["created_s"])
    other.is_dropped()
    replace(daemon, "pushed", "# nothing any more")
    flow.passes()
    other.passes()
    assert kernel.entries(daemon) == {"192.0.2.1", "192.0.2.2"}


def test_nothing_is_printed_on_success(daemon, file):
    for words in (["feed", "replace", "drop", "-f", file], ["feed", "reload", "drop"], ["feed", "reload"]):
        done = daemon.fwctl(*words)
        assert (done.stdout, done.stderr) == ("", ""), words


def test_a_bad_line_changes_nothing_and_is_named(daemon):
    replace(daemon, "pushed", "198.51.100.1")
    done = replace(daemon, "pushed", "198.51.100.2", "198.51.100.300", check=False)
    assert done.returncode == 1 and 'standard input:2: "198.51.100.300" is not' in done.stderr
    assert prefixes(daemon, "pushed") == ["198.51.100.1"]


def test_a_list_that_does_not_fit_changes_nothing(net):
    daemon = net.daemon(f"{ETH0}[blacklist]\nmax_entries = 3\n{feed('pushed')}")
    daemon.fwctl("add", "192.0.2.1")
    replace(daemon, "pushed", "198.51.100.1", "198.51.100.2")
    done = replace(daemon, "pushed", *(f"198.51.100.{i}" for i in range(3)), check=False)
    assert done.returncode == 1 and "full: 3 of 3 entries" in done.stderr
    assert prefixes(daemon, "pushed") == ["198.51.100.1", "198.51.100.2"]
    # One that runtime has too counts once.
    replace(daemon, "pushed", "198.51.100.1", "198.51.100.3", "192.0.2.1")


def test_a_feed_that_the_configuration_does_not_name_is_not_found(daemon):
    for words in (["replace", "nope", "-"], ["reload", "nope"]):
        done = daemon.fwctl("feed", *words, input="", check=False)
        assert done.returncode == 1 and '"nope"' in done.stderr
    assert daemon.request("feed reload", name="nope")["error"]["code"] == "not-found"


def test_a_feed_is_reloaded_without_the_configuration(daemon, file):
    file.write_text("192.0.2.2\n192.0.2.3\n192.0.2.4\n")
    daemon.config_path.write_text("nonsense")
    assert daemon.fwctl_json("feed", "reload", "drop") == {"entries": 3, "added": 2, "removed": 1}
    assert prefixes(daemon, "drop") == ["192.0.2.2", "192.0.2.3", "192.0.2.4"]


def test_a_file_that_cannot_be_read_changes_nothing(daemon, file):
    file.write_text("192.0.2.9\nbad\n")
    for words in (["feed", "reload"], ["feed", "reload", "drop"]):
        done = daemon.fwctl(*words, check=False)
        assert done.returncode == 1 and f"{file}:2: " in done.stderr
    file.unlink()
    assert str(file) in daemon.fwctl("feed", "reload", check=False).stderr
    assert prefixes(daemon, "drop") == ["192.0.2.1", "192.0.2.2"]


def test_reload_of_all_feeds_takes_those_that_have_a_file(daemon, file):
    replace(daemon, "pushed", "198.51.100.1")
    file.write_text("192.0.2.7\n")
    daemon.fwctl("feed", "reload")
    assert (prefixes(daemon, "drop"), prefixes(daemon, "pushed")) == (["192.0.2.7"], ["198.51.100.1"])
    done = daemon.fwctl("feed", "reload", "pushed", check=False)
    assert done.returncode == 1 and '"pushed"' in done.stderr and "file" in done.stderr


@pytest.mark.parametrize("words", [["reload"], ["feed", "reload"], ["feed", "reload", "drop"]])
def test_what_was_replaced_stands_until_the_file_is_read_again(daemon, file, words):
    replace(daemon, "drop", "198.51.100.1")
    replace(daemon, "pushed", "198.51.100.2")
    assert (told(daemon, "drop")["replaced"], told(daemon, "drop")["file"]) == (True, str(file))
    daemon.fwctl(*words)
    assert told(daemon, "drop")["replaced"] is False
    assert (prefixes(daemon, "drop"), prefixes(daemon, "pushed")) == (["192.0.2.1", "192.0.2.2"], ["198.51.100.2"])


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_was_replaced_stands_over_a_restart(daemon, end):
    replace(daemon, "drop", "198.51.100.1")
    replace(daemon, "pushed", "198.51.100.2", "2001:db8::/32")
    loaded_s = told(daemon, "drop")["loaded_s"]
    getattr(daemon, end)()
    daemon.start()
    assert (prefixes(daemon, "drop"), prefixes(daemon, "pushed")) == (
        ["198.51.100.1"], ["198.51.100.2", "2001:db8::/32"])
    assert (told(daemon, "drop")["replaced"], told(daemon, "drop")["loaded_s"]) == (True, loaded_s)


def test_a_feed_that_is_no_longer_named_is_gone_for_good(daemon, file):
    replace(daemon, "pushed", "198.51.100.1")
    daemon.write_rules(ETH0 + feed("drop", file))
    daemon.fwctl("reload")
    daemon.write_rules(ETH0 + feed("drop", file) + feed("pushed"))
    daemon.fwctl("reload")
    assert prefixes(daemon, "pushed") == []


def test_a_feed_counts_the_hits_of_its_prefixes(daemon, net, listener):
    assert told(daemon, "pushed") == {"name": "pushed", "file": None, "entries": 0, "packets": 0, "bytes": 0,
                                      "last_hit_s": None, "loaded_s": told(daemon, "pushed")["loaded_s"],
                                      "replaced": False}
    replace(daemon, "pushed", BLOCKED, OTHER, "2001:db8:1::3")
    first = Flow(net.wire, udp(net.wire, 7, BLOCKED), listener)
    second = Flow(net.wire, udp(net.wire, 7, OTHER), listener, count=4)
    first.is_dropped()
    second.is_dropped()
    row = told(daemon, "pushed")
    size = 3 * len(first.frame) + 4 * len(second.frame)
    assert (row["entries"], row["packets"], row["bytes"], row["replaced"]) == (3, 7, size, True)
    wait_until(lambda: told(daemon, "pushed")["last_hit_s"] is not None)
    assert told(daemon, "drop")["packets"] == 0


def test_the_table_has_a_line_a_feed(daemon, file):
    replace(daemon, "pushed", "198.51.100.1")
    header, first, second = daemon.fwctl("feed", "list").stdout.splitlines()
    assert header.split() == ["NAME", "ENTRIES", "PACKETS", "BYTES", "LAST-HIT", "LOADED", "FROM"]
    assert first.split()[:4] == ["drop", "2", "0", "0"] and first.endswith(f" ago  {file}")
    assert second.split()[:4] == ["pushed", "1", "0", "0"] and second.endswith(" ago  feed replace")
