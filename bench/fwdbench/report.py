# SPDX-License-Identifier: GPL-2.0-or-later
"""Results as tables, in text or Markdown, and what of the targets is reached."""
from types import SimpleNamespace

MILLION = 1_000_000
MIB = 1 << 20


def _table(title, head, rows, notes=()):
    return SimpleNamespace(title=title, head=head, rows=rows, notes=list(notes))


def _pair(summary, scale=1.0, digits=1):
    return f"{summary['min'] * scale:.{digits}f} / {summary['median'] * scale:.{digits}f}" if summary else "-"


def _ratio(one, other):
    """How many times as dear the other is; what is within the resolution of the clock counts as 0.1 ns."""
    return max(other["min"], 0.1) / max(one["min"], 0.1)


def packet(result):
    if "skipped" in result:
        return [_table("Cost per packet", ["skipped"], [[result["skipped"]]])]
    floor = result["floor"]
    rows = [[row["set"], f"{row['entries']:,}", kind, _pair(row[kind][floor])]
            + [_pair(row[kind][name]) for name in ("XDP_PASS", "fwd", "hash (hosts)", "LPM trie")]
            + [f"{_ratio(row[kind]['fwd'], row[kind][name]):.1f}" for name in ("hash (hosts)", "LPM trie")]
            + [" / ".join(f"{row['memory'][kind] / MIB:.1f}" for kind in ("kernel_bytes", "process_bytes"))]
            for row in result["rows"] for kind in ("hit", "miss")]
    head = ["set", "entries", "sources", f"floor ({floor})", "XDP_PASS", "fwd", "hash (hosts)", "LPM trie",
            "hash / fwd", "LPM / fwd", "MiB of maps / daemon"]
    return [_table("Cost per packet through the loaded program: ns above the floor, minimum / median", head, rows,
                   ["hash (hosts) has one address of each entry"])]


def _lost(*summaries):
    share = min(summary["arrived"] for summary in summaries if summary)
    return [] if share == 1 else [f"at worst {share:.1%} of the frames arrived"]


def wire(result):
    hit, miss, notes = result["hit"], result["miss"], result["notes"]
    names = list(dict.fromkeys([*hit, *miss, *notes]))
    rows = []
    for name in names:
        drop, passed = hit.get(name), miss.get(name)
        said = [notes[name]] if name in notes else []
        if drop or passed:
            said += _lost(drop, passed)
        rows.append([name, _pair(drop, digits=0), f"{1e3 / drop['min']:.2f}" if drop else "-",
                     f"{_ratio(hit['fwd'], drop):.2f}" if drop else "-", _pair(passed, digits=0),
                     f"{passed['min'] - miss['XDP_PASS']['min']:+.0f}" if passed else "-", "; ".join(said)])
    head = ["filter", "dropped: ns", "million dropped a second", "times fwd's ns", "passed: ns",
            "above XDP_PASS: ns", "note"]
    return [_table(f"Over veth on one core, {result['entries']:,} IPv4 prefixes: minimum / median", head, rows)]


def _seconds(times):
    return f"{times['seconds']:.3f}" if times else "-"


def _milliseconds(times, key="median"):
    return f"{times[key] * 1e3:.3f}" if times else "-"


def _change_rows(contenders):
    for name, result in contenders.items():
        load, memory = result["load"], result["memory"]
        tool = max(result.get(what, {}).get("tool_bytes", 0) for what in ("load", "replace"))
        yield [name, _seconds(load), _seconds(result.get("replace")), _milliseconds(result["add"]),
               _milliseconds(result["delete"]), f"{memory['kernel_bytes'] / MIB:.0f}",
               f"{memory['process_bytes'] / MIB:.0f}", f"{tool / MIB:.0f}"]


def change(result):
    contenders, entries = result["contenders"], f"{result['entries']:,}"
    notes = [f"{name}: {text}" for name, text in result["notes"].items()]
    head = ["firewall", "load: s", "replace: s", "add one: ms", "delete one: ms", "kernel MiB", "process MiB",
            "tool MiB"]
    tables = [_table(f"From the command to enforcement, {entries} IPv4 prefixes", head, list(_change_rows(contenders)),
                     [*notes, "LPM trie: system calls alone, from keys in memory"])]
    fwd = contenders["fwd"]
    rows = [[what, str(times["count"])] + [_milliseconds(times, key) for key in ("min", "median", "p99", "max")]
            for what, times in (("add, one connection", fwd["socket"]["add"]),
                                ("delete, one connection", fwd["socket"]["delete"]),
                                (f"add while {entries} others are loaded", fwd["meanwhile"]))]
    tables.append(_table("Inside the daemon: a request's round trip, ms",
                         ["request", "count", "min", "median", "p99", "max"], rows))
    return tables


def _span(looks, key, scale=1):
    values = [look[key] / scale for look in looks]
    return " / ".join(f"{value:.0f}" for value in (values[0], max(values), values[-1])) if values else "-"


def _load_extra(case):
    said = {"adds_per_s": "{:,.0f} adds a second", "deletes_per_s": "{:,.0f} deletes a second",
            "packets": "{:,} packets, each where it should be"}
    return "; ".join(text.format(case[key]) for key, text in said.items() if key in case)


def load(result):
    entries, keys = f"{result['entries']:,}", ("median", "p99", "max")
    waits = [[case["case"], what, str(times["count"])] + [_milliseconds(times, key) for key in keys]
             for case in result["cases"]
             for what, times in [*case["probe"].items(), *([("its own", case["batch"])] if "batch" in case else [])]]
    use = [[case["case"], f"{case['seconds']:.1f}", _span(case["use"], "rss_bytes", MIB),
            _span(case["use"], "descriptors"), _span(case["use"], "state_bytes", MIB), _load_extra(case)]
           for case in result["cases"]]
    return [_table(f"What a client waits under load, up to {entries} entries: ms", ["load", "request", "count", *keys],
                   waits, ["its own: a batch of what makes the load"]),
            _table("What the daemon needs meanwhile: at first / most / at last",
                   ["load", "s", "MiB of memory", "descriptors", "MiB on disk", ""], use)]


PARTS = {"packet": packet, "wire": wire, "change": change, "load": load}


def _rows(packet_result, name, entries):
    return [row for row in packet_result.get("rows", []) if row["set"].startswith(name) and row["entries"] == entries]


def _costs(rows, kinds=("hit", "miss")):
    return [row[kind] for row in rows for kind in kinds]


def _packet_targets(result):
    """(what, measured, bound, sign); measured None: this run has no such row."""
    big, small = _rows(result, "IPv4 mixed", MILLION), _rows(result, "IPv4 mixed", 1000)
    six, hosts = _rows(result, "IPv6 mixed", 100_000), _rows(result, "IPv4 hosts", MILLION)

    def least(costs, other):
        return min((_ratio(cost["fwd"], cost[other]) for cost in costs), default=None)

    for kind, bound in (("miss", 15), ("hit", 6)):
        times = least(_costs(big, [kind]), "LPM trie")
        yield f"1,000,000 IPv4 mixed, {kind}: times cheaper than the LPM trie", times, bound, ">="
    yield "any row: hash of hosts / fwd, the least", least(_costs(result.get("rows", [])), "hash (hosts)"), 1, ">="
    above = max((cost["fwd"]["min"] for cost in _costs(small)), default=None)
    yield "1,000 IPv4 mixed: ns above the floor", above, 15, "<="
    yield "100,000 IPv6 mixed: times cheaper than the LPM trie", least(_costs(six), "LPM trie"), 3, ">="
    memory = max((row["memory"]["kernel_bytes"] / MIB for row in hosts), default=None)
    yield "1,000,000 IPv4 hosts: MiB of all maps", memory, 64, "<="


def _wire_targets(result):
    if result["entries"] != MILLION:
        result = {"hit": {}, "miss": {}, "partial": []}
    aside = {"fwd", "XDP_DROP", *result["partial"]}
    others = [cost for name, cost in result["hit"].items() if name not in aside]
    ratio = min((_ratio(result["hit"]["fwd"], cost) for cost in others), default=None)
    yield "over veth, 1,000,000: drops a second, times any other's that holds them", ratio, 4, ">="
    miss = result["miss"]
    yield ("over veth, 1,000,000: ns that a passed packet costs above XDP_PASS",
           miss["fwd"]["min"] - miss["XDP_PASS"]["min"] if miss else None, 150, "<=")


def _change_targets(result):
    fwd = result["contenders"]["fwd"] if result["entries"] == MILLION else None
    yield "load of 1,000,000 from a file: s", fwd and fwd["load"]["seconds"], 1.5, "<="
    yield "one add at 1,000,000 inside the daemon, median: ms", fwd and fwd["socket"]["add"]["median"] * 1e3, 2, "<="
    yield "one add at 1,000,000 as a command, median: ms", fwd and fwd["add"]["median"] * 1e3, 15, "<="
    yield "one add while 1,000,000 are loaded, p99: ms", fwd and fwd["meanwhile"]["p99"] * 1e3, 5, "<"


def _load_targets(result):
    full = result["entries"] >= MILLION
    waits = [times["p99"] * 1e3 for case in result["cases"] for what, times in case["probe"].items() if what != "add"]
    yield "under load, p99 of test and status, the worst case: ms", max(waits, default=None) if full else None, 50, "<"


_TARGETS = {"packet": _packet_targets, "wire": _wire_targets, "change": _change_targets, "load": _load_targets}
_COMPARE = {">=": lambda value, bound: value >= bound, "<=": lambda value, bound: value <= bound,
            "<": lambda value, bound: value < bound}


def targets(results):
    """[{"target", "measured", "bound", "reached"}]; `reached` is None for what was not measured."""
    return [{"target": what, "measured": value, "bound": f"{sign} {bound}",
             "reached": None if value is None else _COMPARE[sign](value, bound)}
            for part in PARTS if part in results for what, value, bound, sign in _TARGETS[part](results[part])]


def _target_table(rows):
    said = {True: "reached", False: "NOT reached", None: "not measured"}
    return _table("Targets", ["target", "bound", "measured", ""],
                  [[row["target"], row["bound"], "-" if row["measured"] is None else f"{row['measured']:.2f}",
                    said[row["reached"]]] for row in rows])


def _text(table):
    lines = [table.head, *table.rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.head))]
    numeric = [all(row[i][:1] in "+-0123456789" for row in table.rows) for i in range(len(widths))]
    shown = ["  ".join(cell.rjust(width) if right else cell.ljust(width)
                       for cell, width, right in zip(line, widths, numeric)).rstrip() for line in lines]
    return "\n".join([table.title, "", *shown, *(f"  {note}" for note in table.notes)])


def _markdown(table):
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join([f"### {table.title}", "", *(f"| {' | '.join(line)} |" for line in lines),
                      *(f"\n{note}." for note in table.notes)])


def render(report, markdown=False):
    show = _markdown if markdown else _text
    tables = [table for part, build in PARTS.items() if part in report for table in build(report[part])]
    machine = _table("Machine", ["", "what"], [[name, value] for name, value in report["machine"].items()])
    return "\n\n".join(show(table) for table in [machine, *tables, _target_table(report["targets"])])
