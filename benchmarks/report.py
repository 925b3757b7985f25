"""The figures as documents: docs/benchmarks.md, its chart, and the README's table.

    .venv/bin/python benchmarks/report.py     # from benchmarks/results.json

What stands between a pair of markers is replaced; prose around them stays.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

from tracers import NAMES, adapter  # noqa: E402

RESULTS = HERE / "results.json"
DOCUMENT = ROOT / "docs/benchmarks.md"
README = ROOT / "README.md"
CHART = ROOT / "docs/images/benchmarks.svg"

Results = dict[str, Any]


def to_json(results: Results) -> str:
    """Sorted, with four significant digits, and a line a figure, so that a change of it reads well."""
    figures = {
        name: {key: [float(f"{value:.4g}") for value in values] for key, values in rows.items()}
        for name, rows in results["figures"].items()
    }
    lines = [
        f' "about": {json.dumps(results["about"], indent=2, sort_keys=True)},',
        ' "figures": {',
    ]
    for name in sorted(figures):
        rows = [f"   {json.dumps(key)}: {figures[name][key]}" for key in sorted(figures[name])]
        comma = "," if name != max(figures) else ""
        lines += [f"  {json.dumps(name)}: {{", ",\n".join(rows), f"  }}{comma}"]
    return "{\n" + "\n".join(lines) + "\n }\n}\n"


def median(results: Results, name: str, key: str) -> float | None:
    values = results["figures"].get(name, {}).get(key)
    return statistics.median(values) if values else None


# ---- numbers as they are read ----


def _digits(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def us(value: float) -> str:
    return f"{_digits(max(value, 0.0))} µs"


def ms(value: float) -> str:
    return f"{_digits(value)} ms"


def seconds(value: float) -> str:
    return f"{value:.2f} s"


def megabytes(value: float) -> str:
    return f"{value:.1f} MB" if value < 10 else f"{value:,.0f} MB"


def percent(value: float) -> str:
    return f"{math.floor(value + 1e-9):.0f} %" if value < 100 else "100 %"


def times(value: float) -> str:
    return f"{value:,.1f}x" if value < 10 else f"{value:,.0f}x"


# ---- tables ----


@dataclass(frozen=True)
class Column:
    key: str
    title: str
    show: Callable[[float], str] = us


@dataclass(frozen=True)
class Table:
    heading: str
    text: str
    columns: tuple[Column, ...]
    names: tuple[str, ...] = NAMES


OWN = ("mlflow", "mlflow_512", "fasttrace")


def of_delivery(place: str) -> tuple[Column, ...]:
    """What is measured of the delivery to a real server, or a database."""
    return (
        Column(f"{place}.us", "caller"),
        Column(f"{place}.program_cpu", "program's CPU"),
        Column(f"{place}.sender_cpu", "sender's CPU"),
        Column(f"{place}.delivered", "all there after", seconds),
        Column(f"{place}.arrived", "arrived", percent),
    )


TABLES = (
    Table(
        "What a call costs its caller",
        "Beyond the same call untraced, inside of a root. *No-op*: neither argument nor result. *Two arguments*: "
        "two integers and their sum. *Ten nested*: a function that calls one that calls one, ten spans in all. "
        "*Chat*: 3.2 KB in, 1.5 KB out. *100 KB* and *5 MB*: one text of that size as argument.",
        (
            Column("noop.us", "no-op"),
            Column("two.us", "two arguments"),
            Column("nested.us", "ten nested"),
            Column("chat.us", "chat"),
            Column("text_100_kb.us", "100 KB"),
            Column("text_5_mb.us", "5 MB"),
        ),
    ),
    Table(
        "Other kinds of spans",
        "*Span*: a context manager with inputs, an output and an attribute. *64 attributes*: a span with as "
        "many. *Root*: a trace of one span. *Async*: one of 100 tasks that each pause once. *Generator*: an item "
        "of a generator of 100, and of 10,000. *Off*: tracing is switched off. *Unsampled*: a sampling ratio of "
        "0.",
        (
            Column("start_span.us", "span"),
            Column("attributes.us", "64 attributes"),
            Column("root.us", "root"),
            Column("async.us", "async"),
            Column("generator_100.us", "generator, 100"),
            Column("generator_10000.us", "generator, 10,000"),
            Column("off.us", "off"),
            Column("unsampled.us", "unsampled"),
        ),
    ),
    Table(
        "The slowest calls",
        "Single calls in a tight loop, with the call itself and the two clock readings around it: the no-op "
        "call, and a trace of five spans. A cell is empty where there were too few calls to say it.",
        (
            Column("noop_single.p50", "no-op, median"),
            Column("noop_single.p99", "p99"),
            Column("noop_single.p999", "p99.9"),
            Column("noop_single.p9999", "p99.99"),
            Column("root_of_5.p50", "trace of 5, median"),
            Column("root_of_5.p99", "p99"),
            Column("root_of_5.p999", "p99.9"),
            Column("root_of_5.p9999", "p99.99"),
        ),
    ),
    Table(
        "Threads",
        "No-op calls, each a root, of so many threads at once: the time of all by the number of calls.",
        (
            Column("threads_1.us", "1 thread"),
            Column("threads_2.us", "2 threads"),
            Column("threads_8.us", "8 threads"),
        ),
    ),
    Table(
        "Bursts, until they are delivered",
        "2,000 calls in a row: the caller's time of a call, the processors' time of a span until a flush has "
        "returned (of the program, and of the process that delivers for it), and how long that took. *Arrived* "
        "is the least of all rows but that of the text of 5 MB, which some refuse.",
        (
            Column("burst_noop.us", "no-op"),
            Column("burst_noop.program_cpu", "program's CPU"),
            Column("burst_noop.sender_cpu", "sender's CPU"),
            Column("burst_chat.us", "chat"),
            Column("burst_chat.program_cpu", "program's CPU"),
            Column("burst_chat.sender_cpu", "sender's CPU"),
            Column("burst_chat.delivered", "chat, delivered", seconds),
            Column("arrived", "arrived", percent),
            Column("text_5_mb.arrived", "5 MB, arrived", percent),
        ),
    ),
    Table(
        "What it takes besides",
        "The import, the set-up (of the first three with `set_experiment`, which asks the server) and the first "
        "span of a program. Memory at its peak, after all rows but the "
        "large texts and after those, too. Files on disk, of the package and of all that it needs.",
        (
            Column("first.ms", "import and first span", ms),
            Column("memory.program", "program", megabytes),
            Column("memory.sender", "sender", megabytes),
            Column("memory_5_mb.program", "program, 5 MB", megabytes),
            Column("memory_5_mb.sender", "sender, 5 MB", megabytes),
            Column("size.own", "package", megabytes),
            Column("size.needed", "needs", megabytes),
        ),
    ),
    Table(
        "A real MLflow server",
        "100 traces of 11 spans to `mlflow server` with one worker on SQLite: the caller's time and the "
        "processors' time of a span, and when a search finds them all.",
        of_delivery("live"),
        OWN,
    ),
    Table(
        "A database without a server",
        "The same to a tracking URI `sqlite:///...`.",
        of_delivery("sqlite"),
        OWN,
    ),
    Table(
        "The server goes away",
        "100 traces of two spans once nothing listens any more: the caller's time of a span, how long the exit takes "
        "(a program is killed after ten seconds), and what arrives when another program records with the server "
        "back.",
        (
            Column("down.us", "caller"),
            Column("down.exit", "exit", seconds),
            Column("down.kept", "kept", percent),
        ),
    ),
)

#: The rows whose ratio to the floor is told.
FLOORED = (
    ("noop", "no-op"),
    ("two", "two arguments"),
    ("start_span", "span"),
    ("root", "root"),
    ("async", "async"),
    ("generator_100", "generator, an item"),
    ("off", "off"),
    ("unsampled", "unsampled"),
)


def arrived(results: Results, name: str) -> float | None:
    """The least share of all rows, but of that of the text of 5 MB."""
    rows = results["figures"].get(name, {})
    shares = [
        statistics.median(values)
        for key, values in rows.items()
        if key.endswith(".arrived") and not key.startswith(("live.", "sqlite.", "text_5_mb."))
    ]
    return min(shares, default=None)


def lines_of(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    titles = list(head)
    return [
        "| " + " | ".join(titles) + " |",
        "|---" + "|---:" * (len(titles) - 1) + "|",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def table(results: Results, of: Table) -> list[str]:
    rows = []
    for name in of.names:
        values = [
            arrived(results, name) if column.key == "arrived" else median(results, name, column.key)
            for column in of.columns
        ]
        if all(value is None for value in values):
            continue
        cells = [
            "" if value is None else column.show(value)
            for value, column in zip(values, of.columns, strict=True)
        ]
        rows.append([adapter(name).title, *cells])
    return [
        f"### {of.heading}",
        "",
        of.text,
        "",
        *lines_of(["", *(c.title for c in of.columns)], rows),
        "",
    ]


def floor_table(results: Results) -> list[str]:
    rows = []
    for key, title in FLOORED:
        ours, floor = (median(results, "fasttrace", f"{key}.{part}") for part in ("us", "floor"))
        if ours is not None and floor:
            rows.append([title, us(ours), us(floor), times(max(ours, 0) / floor)])
    lines = lines_of(["", "fasttrace", "floor", "fasttrace / floor"], rows)
    chat, encoding = median(results, "fasttrace", "chat.us"), median(results, "msgspec", "chat.us")
    if chat is not None and encoding is not None:
        lines += [
            "",
            f"A chat-sized call costs {us(chat)}; `msgspec.msgpack.encode` takes {us(encoding)} for its inputs "
            f"and outputs: {us(chat - encoding)} beyond that.",
        ]
    return [
        "### How far from the least",
        "",
        "The floor is a C callable that reads two clocks, makes an id and switches a context variable around "
        "the call (`benchmarks/floor.c`), measured in the same blocks as the row. It records no value, "
        "whatever the row.",
        "",
        *lines,
        "",
    ]


def machine(results: Results) -> str:
    about = results["about"]
    load = ", ".join(str(part) for part in about["load"])
    return (
        f"{about['date']}, commit {about['commit']}; Python {about['python']}, {about['cpus']} CPUs "
        f"({about['cpu']}), Linux {about['kernel']}, load {load} at its start, {about['seconds']} s in all."
    )


def document(results: Results) -> str:
    """What stands between the markers of docs/benchmarks.md."""
    about = results["about"]
    versions = ", ".join(f"{name} {version}" for name, version in sorted(about["versions"].items()))
    lines = [f"{machine(results)} {versions}.", ""]
    for each in TABLES:
        lines += table(results, each)
    lines += floor_table(results)
    lines += ["### What each records", ""]
    recorded = [[adapter(n).title, adapter(n).records] for n in NAMES if n in results["figures"]]
    lines += ["| | |", "|---|---|", *("| " + " | ".join(row) + " |" for row in recorded)]
    return "\n".join(lines)


README_ROWS = (
    ("noop.us", "no-op call", us),
    ("chat.us", "chat-sized call (3.2 KB in, 1.5 KB out)", us),
    ("start_span.us", "start_span, inputs, outputs, attribute", us),
    ("root.us", "root (a trace of one span)", us),
    ("async.us", "async call, 100 tasks", us),
    ("generator_100.us", "generator, an item", us),
    ("noop_single.p99", "no-op call, p99", us),
    ("live.us", "live server: caller's time a span", us),
    ("live.program_cpu", "live server: program's CPU a span", us),
    ("live.sender_cpu", "live server: sender's CPU a span", us),
    ("live.delivered", "live server: 100 traces of 11 spans until it has all", seconds),
)


def readme_table(results: Results) -> str:
    rows = []
    for key, title, show in README_ROWS:
        theirs, ours = median(results, "mlflow", key), median(results, "fasttrace", key)
        ratio = times(theirs / ours) if theirs and ours and ours > 0 else ""
        rows.append([title, *("" if v is None else show(v) for v in (theirs, ours)), ratio])
    shares = [arrived(results, name) for name in ("mlflow", "fasttrace")]
    rows.append(["spans that arrived", *("" if s is None else percent(s) for s in shares), ""])
    return "\n".join(lines_of(["", "MLflow", "fasttrace", "MLflow / fasttrace"], rows))


def readme_section(results: Results) -> str:
    """What stands between the markers of README.md."""
    about = results["about"]
    head = f"Python {about['python']}, {about['cpus']} CPUs, medians of rounds (`make bench`, {about['date'][:10]}):"
    return f"{head}\n\n{readme_table(results)}"


# ---- the chart ----

PANELS = (
    ("noop.us", "No-op call"),
    ("chat.us", "Chat-sized call: 3.2 KB in, 1.5 KB out"),
    ("start_span.us", "Span with inputs, output and attribute"),
    ("root.us", "Root: a trace of one span"),
)
STYLE = """
  .page { fill: #ffffff }
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 15px }
  .axis, .value { fill: #59636e }
  .axis { font-size: 11px }
  .line { stroke: #d1d9e0 }
  .bar { fill: #8c959f }
  .mlflow { fill: #54aeff }
  .ours { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117 }
    text { fill: #f0f6fc }
    .axis, .value { fill: #9198a1 }
    .line { stroke: #3d444d }
    .bar { fill: #6e7681 }
    .mlflow { fill: #388bfd }
    .ours { fill: #3fb950 }
  }
"""
WIDTH, LEFT, RIGHT, BAR, GAP = 760, 150, 90, 16, 6


def chart(results: Results) -> str:
    """Bars on a logarithmic axis, a panel a case."""
    values = {
        key: [(n, v) for n in NAMES if (v := median(results, n, key)) is not None and v > 0]
        for key, _ in PANELS
    }
    every = [value for bars in values.values() for _, value in bars] or [1.0]
    low, high = math.floor(math.log10(min(every))), math.ceil(math.log10(max(every)))
    high = max(high, low + 1)

    def x(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return LEFT + max(0.0, share) * (WIDTH - LEFT - RIGHT)

    parts: list[str] = []
    y = 24
    for key, title in PANELS:
        bars = values[key]
        parts.append(f'<text class="title" x="{LEFT}" y="{y}">{escape(title)}</text>')
        top, bottom = y + 10, y + 10 + len(bars) * (BAR + GAP) + GAP
        for power in range(low, high + 1):
            at, tick = x(10.0**power), f"{10.0**power:,.10g} µs"
            parts.append(
                f'<line class="line" x1="{at:.1f}" y1="{top}" x2="{at:.1f}" y2="{bottom}"/>'
            )
            parts.append(
                f'<text class="axis" text-anchor="middle" x="{at:.1f}" y="{bottom + 14}">{tick}</text>'
            )
        for number, (name, value) in enumerate(bars):
            at = top + GAP + number * (BAR + GAP)
            kind = "ours" if name == "fasttrace" else "mlflow" if name in OWN else "bar"
            parts.append(
                f'<text text-anchor="end" x="{LEFT - 8}" y="{at + 13}">{escape(adapter(name).title)}</text>'
            )
            parts.append(
                f'<rect class="{kind}" x="{LEFT}" y="{at}" width="{max(1.0, x(value) - LEFT):.1f}" '
                f'height="{BAR}" rx="2"/>'
            )
            parts.append(
                f'<text class="value" x="{x(value) + 6:.1f}" y="{at + 13}">{us(value)}</text>'
            )
        y = bottom + 48
    height = y - 20
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="What a traced call costs its caller, by tracer">\n'
        f'<style>{STYLE}</style>\n<rect class="page" width="{WIDTH}" height="{height}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


# ---- files ----


def between_markers(text: str, made: str) -> str:
    """A document with what stands between its markers replaced."""
    before, opening, rest = text.partition("<!-- benchmarks: made by `make bench` -->\n")
    _, closing, after = rest.partition("<!-- benchmarks: end -->")
    if not opening or not closing:
        raise ValueError("no markers")
    return f"{before}{opening}\n{made}\n\n{closing}{after}"


def written(results: Results) -> dict[Path, str]:
    """The documents as they are to be."""
    return {
        DOCUMENT: between_markers(DOCUMENT.read_text(), document(results)),
        README: between_markers(README.read_text(), readme_section(results)),
        CHART: chart(results),
    }


def write(results: Results) -> None:
    # The figures are rounded as they are kept, so that the documents can be made of the file.
    for path, text in written(json.loads(to_json(results))).items():
        path.write_text(text)


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text()))
