"""Instructions of a traced call, counted by valgrind: a figure that does not depend on the machine's load.

    python benchmarks/instructions.py [--calls 2000] [CASE ...]
    python benchmarks/instructions.py --check     fails where a case has grown by more than 3 %
    python benchmarks/instructions.py --write     keeps the figures in instructions.json and docs/performance.md

Each case is run for N calls and for 2 N; the difference is divided by N. The traces lie in a ring that is large
enough for all of them; nothing delivers them. What is kept was counted with one Python, C library and compiler.
With others ``--check`` counts the commit that the figures were kept with, too, and compares with that.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(ROOT / "tests"))

import floor  # noqa: E402
from support.spools import clean_up  # noqa: E402

KEPT = HERE / "instructions.json"
DOCUMENT = ROOT / "docs/performance.md"
BEGIN, END = (
    "<!-- instructions: made by `benchmarks/instructions.py --write` -->",
    "<!-- instructions: end -->",
)

PROGRAM = """
import asyncio
import contextvars
import sys
import floor_core
import mlflow_fasttrace as mlflow

calls = int(sys.argv[1])


@mlflow.trace
def noop():
    return None


def nothing():
    return None


variable = contextvars.ContextVar("floor")
floor = floor_core.Floor(nothing, variable.set, variable.reset)


@mlflow.trace
def two(a, b):
    return a


chat = [{{"role": "user", "content": "word " * 160}} for _ in range(4)]


@mlflow.trace
def talk(messages):
    return messages[0]


def scope():
    with mlflow.start_span("s") as span:
        span.set_inputs({{"a": 1}})
        span.set_outputs([1, 2])
        span.set_attribute("k", "v")


@mlflow.trace
def items():
    for n in range({parts}):
        yield n


@mlflow.trace
async def coroutine():
    return None


async def many():
    for _ in range({parts}):
        await coroutine()


def work():
    {statement}


def repeat():
    work()
    for _ in range(calls):
        work()


if {is_root}:
    repeat()
else:
    with mlflow.start_span("root"):
        repeat()
"""

#: By name: what is called, and how many calls that is.
CASES = {
    "floor": ("floor()", 1),
    "no-op": ("noop()", 1),
    "two arguments": ("two(1, b='x')", 1),
    "chat-sized": ("talk(chat)", 1),
    "start_span": ("scope()", 1),
    "root": ("noop()", 1),
    "async": ("asyncio.run(many())", 1000),
    "generator's item": ("list(items())", 100),
}

#: By how much a case may grow.
TOLERANCE = 0.03

#: What the functions of a call belong to, by what is in their names; the first counts.
PARTS = {
    "the core": r"_core\.abi3\.so",
    "context variable": r"[Hh]amt|[Cc]ontext|[Tt]oken|popcount",
    "objects": r"[Mm]alloc|[Ff]ree|GC_|gc_|_New\b|GenericNew|GenericAlloc|[Dd]ealloc|_NewReference",
    "calls": r"Eval|Frame|[Vv]ectorcall|vacall|_Call|call|initialize_locals|method|PyArg|ArgParse|Arguments",
    "the rest": "",
}

#: Functions of fewer instructions a call are not kept.
LEAST = 15

#: What the compiler, or callgrind, adds to a function's name.
SUFFIX = re.compile(r"(\.(lto_priv|constprop|isra|part|cold)(\.\d+)?|'\d+)+$")

#: Instructions a call by function, with the library that it is in.
Figures = dict[str, float]


def costs(profile: Path) -> collections.Counter[str]:
    """The instructions of each function in a file of callgrind's, without those that it calls."""
    names: dict[tuple[str, str], str] = {}
    found: collections.Counter[str] = collections.Counter()
    library = function = ""
    of_call = False

    def named(kind: str, text: str) -> str:
        match = re.match(r"(\(\d+\))(?: (.*))?$", text)
        assert match is not None, text
        if match[2]:
            names[kind, match[1]] = match[2]
        return names[kind, match[1]]

    for line in profile.read_text().splitlines():
        key, equals, value = line.partition("=")
        if key == "calls":
            of_call = True
        elif equals and key in ("ob", "cob"):
            name = os.path.basename(named("ob", value))
            library = name if key == "ob" else library
        elif equals and key in ("fn", "cfn"):
            name = SUFFIX.sub("", named("fn", value))
            function = name if key == "fn" else function
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if of_call:
                of_call = False
            else:
                found[f"{library}: {function}"] += int(line.split()[1])
    return found


def run(program: str, calls: int, folder: Path, package: Path) -> collections.Counter[str]:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        profile, spool = Path(scratch, "callgrind.out"), Path(scratch, "spool")
        result = subprocess.run(
            [
                "valgrind",
                "--tool=callgrind",
                f"--callgrind-out-file={profile}",
                sys.executable,
                "-c",
                program,
                str(calls),
            ],
            capture_output=True,
            text=True,
            cwd=scratch,
            env={
                **os.environ,
                "PYTHONHASHSEED": "0",
                "PYTHONPATH": os.pathsep.join([str(package), str(folder)]),
                "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
                "MLFLOW_FASTTRACE_SPOOL_DIR": str(spool),
                "MLFLOW_FASTTRACE_SENDER": "none",
                "MLFLOW_FASTTRACE_RING_BYTES": str(256 << 20),
            },
        )
        clean_up(spool)
        if result.returncode != 0:
            sys.exit(result.stderr)
        return costs(profile)


def count(case: str, calls: int, folder: Path, package: Path) -> Figures:
    statement, parts = CASES[case]
    program = PROGRAM.format(statement=statement, parts=parts, is_root=case == "root")
    calls = max(calls // parts, 1)
    once, twice = (run(program, n * calls, folder, package) for n in (1, 2))
    return {name: (twice[name] - once[name]) / (calls * parts) for name in twice}


def count_all(cases: list[str], calls: int, package: Path) -> dict[str, Figures]:
    """The figures of each case, two counted at a time."""
    with tempfile.TemporaryDirectory(prefix="fasttrace-instructions-") as folder:
        floor.build(Path(folder))
        with ThreadPoolExecutor(2) as pool:
            return dict(
                zip(
                    cases,
                    pool.map(lambda case: count(case, calls, Path(folder), package), cases),
                    strict=True,
                )
            )


def environment() -> dict[str, str]:
    """What the figures depend on besides this project."""
    compiler = subprocess.check_output(["cc", "--version"], text=True).splitlines()[0]
    valgrind = subprocess.check_output(["valgrind", "--version"], text=True).strip()
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "compiler": compiler,
        "valgrind": valgrind,
    }


def growth(before: dict[str, Figures], after: dict[str, Figures]) -> list[str]:
    """A line for each case that has grown by more than TOLERANCE, and one for each function that it has grown in."""
    lines = []
    for case in before.keys() & after.keys():
        was, now = sum(before[case].values()), sum(after[case].values())
        if now <= was * (1 + TOLERANCE):
            continue
        lines.append(f"{case}: {now:,.0f} instructions, {was:,.0f} before ({now / was - 1:+.1%})")
        grown = {
            name: now - before[case].get(name, 0.0)
            for name, now in after[case].items()
            if now - before[case].get(name, 0.0) >= LEAST
        }
        for name, by in sorted(grown.items(), key=lambda item: -item[1]):
            lines.append(f"    {by:+8,.0f}  {name}")
    return lines


def count_earlier(cases: list[str], calls: int) -> dict[str, Figures]:
    """The figures, here, of the commit that the kept ones are of."""
    commit = subprocess.check_output(
        ["git", "log", "-1", "--format=%H", "--", str(KEPT)], text=True, cwd=ROOT
    ).strip()
    with tempfile.TemporaryDirectory(prefix="fasttrace-earlier-") as folder:
        tree = Path(folder, "tree")
        subprocess.check_call(
            ["git", "worktree", "add", "--quiet", "--detach", tree, commit], cwd=ROOT
        )
        try:
            subprocess.check_call(
                [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"], cwd=tree
            )
            return count_all(cases, calls, tree / "python")
        finally:
            subprocess.check_call(["git", "worktree", "remove", "--force", tree], cwd=ROOT)


def check(figures: dict[str, Figures], calls: int) -> None:
    kept = json.loads(KEPT.read_text())
    before = kept["cases"]
    if kept["environment"] != environment():
        print("The figures were kept with others:", kept["environment"])
        print("Here:", environment(), "- their commit is counted, too.", flush=True)
        before = count_earlier(list(figures), calls)
    lines = growth(before, figures)
    if lines:
        sys.exit(
            "\n".join(
                [
                    *lines,
                    "More than 3 % were added. What is worth it is kept by `python benchmarks/instructions.py "
                    "--write`, and said in the commit.",
                ]
            )
        )


def parts(figures: Figures) -> Figures:
    """The instructions of a call by what they are spent on."""
    found = dict.fromkeys(PARTS, 0.0)
    for name, number in figures.items():
        found[next(part for part, words in PARTS.items() if re.search(words, name))] += number
    return found


def table(cases: dict[str, Figures]) -> str:
    """The table of docs/performance.md."""
    lines = [
        "| | instructions | " + " | ".join(PARTS) + " |",
        "|---|" + "---:|" * (len(PARTS) + 1),
    ]
    for case, found in cases.items():
        numbers = [sum(found.values()), *parts(found).values()]
        lines.append(f"| {case} | " + " | ".join(f"{number:,.0f}" for number in numbers) + " |")
    return "\n".join(lines)


def document(text: str, kept: dict[str, Any]) -> str:
    """The text of docs/performance.md with the table of kept figures."""
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    about = kept["environment"]
    counted = f"Python {about['python']}, {about['libc']}, {about['compiler']}"
    return f"{before}{BEGIN}\n\n{table(kept['cases'])}\n\n{counted}.\n\n{END}{after}"


def write(figures: dict[str, Figures]) -> None:
    cases = {
        case: {
            name: round(number, 1)
            for name, number in sorted(found.items(), key=lambda item: -item[1])
            if number >= LEAST
        }
        for case, found in figures.items()
    }
    for case, found in figures.items():
        rest = sum(found.values()) - sum(cases[case].values())
        cases[case]["all others"] = round(rest, 1)
    kept = {"environment": environment(), "cases": cases}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n")
    DOCUMENT.write_text(document(DOCUMENT.read_text(), kept))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument(
        "cases", nargs="*", default=list(CASES), metavar="CASE", help=", ".join(CASES)
    )
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is missing: apt-get install -y valgrind")
    unknown = set(options.cases) - CASES.keys()
    if unknown:
        parser.error(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    figures = count_all(options.cases, options.calls, ROOT / "python")
    for case, found in figures.items():
        print(f"{case:<18}{sum(found.values()):10,.0f} instructions", flush=True)
    if options.check:
        check(figures, options.calls)
    if options.write:
        write(figures)


if __name__ == "__main__":
    main()
