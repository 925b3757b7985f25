"""MLflow as it comes, MLflow with larger batches, the core and the floor, interleaved in one run.

    python benchmarks/compare.py [--rounds 5] [--json FILE]

Every column runs in a process of its own and delivers to a sink that counts the spans which arrive
(the line "spans that arrived" must read 100 %); the last block delivers to a real ``mlflow server``.
Each round runs every column once, so that a drift of the machine's speed meets all of them; a
figure is the median of the rounds' figures. The floor is a C callable that reads two clocks, makes
an id and switches a context variable (floor.c): what a traced call costs at least.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent / "tests"))

from sink import Sink  # noqa: E402
from support.servers import MlflowServer  # noqa: E402
from support.spools import base_environment  # noqa: E402

COLUMNS = {
    "MLflow": ("mlflow", {}),
    "MLflow, batch 512": ("mlflow", {"MLFLOW_ASYNC_TRACE_LOGGING_MAX_SPAN_BATCH_SIZE": "512"}),
    "fasttrace": ("mlflow_fasttrace", {}),
    "floor": ("floor", {}),
}

CASES = {
    "noop": "no-op call",
    "chat": "chat-sized call (3.2 KB in, 1.5 KB out)",
    "start_span": "start_span, inputs, outputs, attribute",
    "root": "root (a trace of one span)",
    "async": "async call, 100 tasks",
    "generator": "generator, an item",
}


def run(column: str, case: str, uri: str, folder: str) -> dict:
    module, environment = COLUMNS[column]
    result = subprocess.run(
        [sys.executable, str(HERE / "workload.py"), module, case, uri],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=folder,
        env={
            **os.environ,
            **base_environment(Path(tempfile.mkdtemp(prefix="spool-", dir=folder))),
            "MLFLOW_FASTTRACE_EXIT_TIMEOUT": "120",
            "FASTTRACE_FLOOR": folder,
            **environment,
        },
    )
    if result.returncode:
        sys.exit(f"{column}, {case}: {result.stderr}")
    return json.loads(result.stdout.splitlines()[-1])


def build_floor(folder: str) -> None:
    command = ["cc", "-O3", "-shared", "-fPIC", "-I", sysconfig.get_paths()["include"]]
    target = Path(folder) / "floor_core.abi3.so"
    subprocess.run([*command, str(HERE / "floor.c"), "-o", str(target)], check=True)


def medians(runs: list[dict]) -> dict:
    keys = [key for key in runs[0] if isinstance(runs[0][key], (int, float))]
    return {key: statistics.median(run[key] for run in runs) for key in keys}


def micro(rounds: int, folder: str) -> dict[str, dict[str, dict]]:
    """Caller's time of each case and column, delivering to the sink."""
    figures: dict[str, dict[str, list]] = {case: {c: [] for c in COLUMNS} for case in CASES}
    for _ in range(rounds):
        for case in CASES:
            for column in COLUMNS:
                if column == "floor":
                    if case == "noop":
                        figures[case][column].append(run(column, case, "", folder))
                    continue
                with Sink() as sink:
                    figure = run(column, case, sink.uri, folder)
                    sink.wait_for(figure["spans"], 60)
                    figure["arrived"] = 100.0 * sink.spans / figure["spans"]
                figures[case][column].append(figure)
            print(".", end="", flush=True, file=sys.stderr)
    return {
        case: {column: medians(runs) for column, runs in columns.items() if runs}
        for case, columns in figures.items()
    }


def live(rounds: int, folder: str) -> dict[str, dict]:
    """100 traces of 11 spans to a real server, until it has them all."""
    figures: dict[str, list] = {column: [] for column in COLUMNS if column != "floor"}
    server_folder = Path(folder) / "server"
    server_folder.mkdir()
    server = MlflowServer(server_folder)
    server.start()
    try:
        for _ in range(rounds):
            for column in figures:
                figures[column].append(run(column, "live", server.uri, folder))
                print(".", end="", flush=True, file=sys.stderr)
    finally:
        server.stop()
    return {column: medians(runs) for column, runs in figures.items()}


def show(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:,.2f} {unit}" if value < 10 else f"{value:,.0f} {unit}"


def table(micro_figures: dict, live_figures: dict) -> str:
    columns = list(COLUMNS)
    lines = [
        "| | " + " | ".join(columns) + " | MLflow / fasttrace |",
        "|---|" + "---:|" * (len(columns) + 1),
    ]

    def row(title: str, cells: dict[str, float | None], unit: str) -> None:
        ours, theirs = cells.get("fasttrace"), cells.get("MLflow")
        ratio = f"{theirs / ours:,.0f}x" if ours and theirs else ""
        texts = [show(cells.get(column), unit) for column in columns]
        lines.append(f"| {title} | " + " | ".join(texts) + f" | {ratio} |")

    for case, title in CASES.items():
        row(title, {c: f["caller_us"] for c, f in micro_figures[case].items()}, "µs")
    row(
        "no-op call, p99.9",
        {c: f.get("p999_us") for c, f in micro_figures["noop"].items()},
        "µs",
    )
    arrived = {
        column: min(f[column]["arrived"] for f in micro_figures.values() if column in f)
        for column in columns
        if column != "floor"
    }
    texts = [f"{arrived[c]:.0f} %" if c in arrived else "" for c in columns]
    lines.append("| spans that arrived | " + " | ".join(texts) + " | |")
    for key, title, unit in (
        ("caller_us", "live server: caller's time a span", "µs"),
        ("program_cpu_us", "live server: program's CPU a span", "µs"),
        ("sender_cpu_us", "live server: sender's CPU a span", "µs"),
        ("until_there_s", "live server: 100 traces of 11 spans until it has all", "s"),
    ):
        row(title, {c: f.get(key) for c, f in live_figures.items()}, unit)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", help="also write all figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build_floor(folder)
        micro_figures = micro(options.rounds, folder)
        live_figures = live(max(1, options.rounds // 2), folder)
    print(file=sys.stderr)
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {options.rounds} rounds\n")
    print(table(micro_figures, live_figures))
    if options.json:
        Path(options.json).write_text(
            json.dumps({"micro": micro_figures, "live": live_figures}, indent=1)
        )


if __name__ == "__main__":
    main()
