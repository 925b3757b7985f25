"""``traces --follow``: traces of real programs, while they are recorded, each printed once."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest
from support.spools import rings_of
from support.terminals import COMMAND, Terminal, piped
from support.texts import program_text, wait_for_file
from support.traces import traces_of
from support.waiting import wait_until

NOWHERE = "http://127.0.0.1:9"
#: For a command that may begin to look only when the first traces have ended.
ALL = ("-n", "100000")
NO_SENDER = {"MLFLOW_FASTTRACE_SENDER": "none"}

#: Two spans of a trace end, the rest when there is a file `go`.
GROWS = """
import os, sys, time
import mlflow_fasttrace as mlflow

mlflow.set_tracking_uri({uri!r})
with mlflow.start_span("grows"):
    with mlflow.start_span("step"):
        with mlflow.start_span("inner"):
            pass
    print("step", flush=True)
    while not os.path.exists("go"): time.sleep(0.01)
    with mlflow.start_span("last"):
        pass
print("ended", flush=True)
sys.stdin.read()
"""


class Lines:
    """The lines that a command prints, as they come."""

    def __init__(self, process: subprocess.Popen):
        self.process = process
        self.found: list[str] = []
        self._come: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self._come.put(line)

    def take(self) -> list[str]:
        while not self._come.empty():
            self.found.append(self._come.get())
        return self.found

    def traces(self) -> list[dict]:
        return [json.loads(line) for line in self.take()]

    def wait_for(self, count: int, seconds: float = 60) -> list[str]:
        wait_until(lambda: len(self.take()) >= count, seconds, f"{count} lines")
        return self.found


@pytest.fixture
def follow(own_spool, tmp_path):
    """Follows, into a pipe. The command may begin to look only when a program has ended already."""
    started = []

    def begin(*arguments: str) -> Lines:
        process = piped("traces", "--follow", *arguments, folder=tmp_path)
        started.append(process)
        return Lines(process)

    yield begin
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def terminal(own_spool):
    started = []

    def begin(*arguments: str, **options) -> Terminal:
        terminal = Terminal(*arguments, **options).__enter__()
        started.append(terminal)
        return terminal

    yield begin
    for terminal in started:
        terminal.__exit__()


def test_a_trace_grows_and_is_printed_once_when_it_has_ended(terminal, run_program, tmp_path):
    """The command is there before anything was ever recorded."""
    screen = terminal("traces", "--follow", columns=90)
    process = run_program(GROWS.format(uri=NOWHERE), wait=False, **NO_SENDER)
    assert process.stdout.readline() == "step\n"
    text = screen.waits_for("inner")
    assert "IN_PROGRESS  2 spans" in text
    assert "…  running" in text, "the root has not ended, and has no name yet"
    assert text.index("running") < text.index("step") < text.index("inner")
    (tmp_path / "go").touch()
    screen.waits_for("  OK  4 spans")
    assert screen.ends(signal.SIGINT) == 0
    lines = screen.text.splitlines()
    assert len(lines) == 5, screen.text
    assert lines[0].split()[1] == "grows"
    assert [next(word for word in line.split() if word.isalpha()) for line in lines[1:]] == [
        "grows",
        "step",
        "inner",
        "last",
    ]
    assert "█" in lines[1]
    assert not screen.hides_the_cursor
    assert screen.text.count("tr-") == 1


def test_ctrl_c_prints_what_goes_on(terminal, run_program):
    screen = terminal("traces", "--follow")
    process = run_program(GROWS.format(uri=NOWHERE), wait=False, **NO_SENDER)
    assert process.stdout.readline() == "step\n"
    screen.waits_for("inner")
    assert screen.ends(signal.SIGINT) == 0
    assert "goes on" in screen.text
    assert screen.text.count("tr-") == 1


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(terminal, run_program, by):
    screen = terminal("traces", "--follow")
    process = run_program(GROWS.format(uri=NOWHERE), wait=False, **NO_SENDER)
    assert process.stdout.readline() == "step\n"
    screen.waits_for("inner")
    assert screen.hides_the_cursor
    assert screen.ends(by) == 128 + by
    assert not screen.hides_the_cursor


def test_what_goes_on_fits_a_small_terminal(terminal, run_program, tmp_path):
    screen = terminal("traces", "--follow", columns=20, lines=6)
    process = run_program(GROWS.format(uri=NOWHERE), wait=False, **NO_SENDER)
    assert process.stdout.readline() == "step\n"
    screen.waits_for(lambda text: "inner" in text and "above" in text)
    (tmp_path / "go").touch()
    screen.waits_for("last")
    assert screen.ends(signal.SIGINT) == 0
    whole = "".join(line.strip() for line in screen.rows)
    assert whole.count("tr-") == 1
    assert len(whole.partition("tr-")[2]) > 32, "the id is broken, and all there"


def test_a_trace_whose_program_is_killed_is_printed(terminal, run_program):
    screen = terminal("traces", "--follow")
    process = run_program(GROWS.format(uri=NOWHERE), wait=False, **NO_SENDER)
    assert process.stdout.readline() == "step\n"
    screen.waits_for("inner")
    process.kill()
    text = screen.waits_for("its program has ended")
    assert "IN_PROGRESS  2 spans" in text
    assert screen.ends(signal.SIGINT) == 0
    assert screen.text.count("tr-") == 1


def test_nothing_is_missed_or_shown_twice_while_a_sender_delivers(
    follow, server, run_program, experiment
):
    lines = follow("--json", *ALL)
    for part in range(2):  # a sender that is started, and one that is there
        process = run_program(program_text(server.uri, experiment, 30))
        assert process.returncode == 0, process.err
        lines.wait_for(30 * (part + 1))
    found = lines.traces()
    delivered = {trace.info.trace_id for trace in traces_of(server.uri, experiment)}
    assert len(delivered) == 60
    assert Counter(trace["trace_id"] for trace in found) == Counter(delivered)
    assert {len(trace["spans"]) for trace in found} == {2}
    assert {(trace["where"], trace["state"]) for trace in found} == {("recorded", "OK")}
    late = follow("--json", "-n", "60")
    assert {trace["trace_id"] for trace in map(json.loads, late.wait_for(50))} <= delivered


def test_thousands_of_traces_are_each_shown_once(follow, run_program):
    """More than the ring holds: most go to segments beside it, and on disk."""
    lines = follow("--json", *ALL)
    process = run_program(
        program_text(NOWHERE, None, 4000), MLFLOW_FASTTRACE_RING_BYTES="65536", **NO_SENDER
    )
    assert process.returncode == 0, process.err
    lines.wait_for(4000)
    ids = Counter(trace["trace_id"] for trace in lines.traces())
    assert (len(ids), set(ids.values())) == (4000, {1})
    assert all(len(trace["spans"]) == 2 for trace in lines.traces())


TWO_PROCESSES = """
import json, subprocess, sys
import mlflow_fasttrace as mlflow

mlflow.set_tracking_uri({uri!r})
tracing = mlflow.tracing
if len(sys.argv) > 1:
    with tracing.set_tracing_context_from_http_request_headers(json.loads(sys.argv[1])):
        with mlflow.start_span("there"):
            pass
else:
    with mlflow.start_span("here"):
        headers = tracing.get_tracing_context_headers_for_http_request()
        subprocess.run([sys.executable, __file__, json.dumps(headers)], check=True)
"""


def test_a_trace_of_two_processes_is_one_tree(follow, run_program):
    lines = follow()
    process = run_program(TWO_PROCESSES.format(uri=NOWHERE), **NO_SENDER)
    assert process.returncode == 0, process.err
    head, here, there = lines.wait_for(3)
    assert " here " in head
    assert "2 spans" in head
    assert here.startswith("└── here")
    assert there.startswith("    └── there")


def test_what_is_there_already_is_shown_as_far_as_it_is_asked_for(follow, run_program, tmp_path):
    then = f'print("recorded", flush=True)\n{wait_for_file("go")}\nroot(12)'
    process = run_program(program_text(NOWHERE, None, 12, then), wait=False, **NO_SENDER)
    assert process.stdout.readline() == "recorded\n"
    wanted = {(): 10, ("-n", "0"): 0, ("-n", "3"): 3, ("--since", "1h"): 12}
    found = {arguments: follow("--json", *arguments) for arguments in wanted}
    for arguments, lines in found.items():
        maps = Path(f"/proc/{lines.process.pid}/maps")
        wait_until(lambda maps=maps: ".ring" in maps.read_text(), 60, "the first look")
        lines.wait_for(wanted[arguments])
    (tmp_path / "go").touch()
    for arguments, lines in found.items():
        lines.wait_for(wanted[arguments] + 1)
    assert {arguments: len(lines.take()) - 1 for arguments, lines in found.items()} == wanted


def test_filters_hold_for_what_is_to_come(follow, run_program):
    lines = follow("--json", *ALL, "--status", "error", "--name", "ro*t", "--tag", "kind=odd")
    code = program_text(NOWHERE, None, 0) + (
        "\nfor n in range(6):\n"
        "    try:\n"
        "        with mlflow.start_span('root' if n < 4 else 'other'):\n"
        "            mlflow.update_current_trace(tags={'kind': 'odd' if n % 2 else 'even'})\n"
        "            if n != 1: raise ValueError(n)\n"
        "    except ValueError: pass\n"
    )
    process = run_program(code, **NO_SENDER)
    assert process.returncode == 0, process.err
    (trace,) = [json.loads(line) for line in lines.wait_for(1)]
    assert (trace["name"], trace["state"], trace["tags"]["kind"]) == ("root", "ERROR", "odd")
    assert trace["spans"][0]["message"] == "ValueError: 3"


@pytest.mark.parametrize("follows", [False, True])
def test_a_closed_pipe_ends_the_command_without_a_word(own_spool, run_program, tmp_path, follows):
    process = run_program(program_text(NOWHERE, None, 2000), **NO_SENDER)
    assert process.returncode == 0, process.err
    command = [*COMMAND, "traces", "-n", "2000", *(["--follow"] if follows else [])]
    shell = 'set -o pipefail; "$@" | head -n 1'
    result = subprocess.run(
        ["bash", "-c", shell, "bash", *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""
    assert result.returncode == 141, "as of any command that a closed pipe ends"


def test_a_pipe_that_is_closed_while_nothing_comes_ends_the_command(own_spool, tmp_path):
    process = piped("traces", "--follow", folder=tmp_path)
    process.stdout.close()
    assert process.wait() == 141
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_trace_that_came_and_went_between_two_looks_is_told_of(
    own_spool, server, run_program, experiment, tmp_path
):
    """A command that is stopped looks as one that has no time to look."""
    process = piped("traces", "--follow", "--json", "-n", "1", folder=tmp_path)
    lines = Lines(process)
    try:
        first = run_program(program_text(server.uri, experiment, 1))
        assert first.returncode == 0, first.err
        lines.wait_for(1)
        os.kill(process.pid, signal.SIGSTOP)
        second = run_program(program_text(server.uri, experiment, 1))
        assert second.returncode == 0, second.err
        spool = next(own_spool.glob("*/status.json"))
        wait_until(lambda: json.loads(spool.read_text())["delivered"]["traces"] == 2, 30)
        wait_until(lambda: not rings_of_programs(own_spool), 30, "the rings' end")
        os.kill(process.pid, signal.SIGCONT)
        lines.wait_for(2)
        first, second = lines.traces()
        assert second["where"] == "delivered"
        assert second["trace_id"] != first["trace_id"]
    finally:
        process.kill()
        process.wait()


def test_what_went_by_too_quickly_is_told_of(
    own_spool, server, run_program, experiment, tmp_path, follow
):
    """The program has written over what was not read yet; what a sender tells of is told of."""
    go_on = (
        f'print("recorded", flush=True)\n{wait_for_file("go")}\n'
        "for n in range(8):\n    root('x' * 5000)\n    mlflow.flush_trace_async_logging()\n"
    )
    code = program_text(server.uri, experiment, 1, go_on)
    process = run_program(code, wait=False, MLFLOW_FASTTRACE_RING_BYTES="65536")
    assert process.stdout.readline() == "recorded\n"
    lines = follow("--json", "-n", "1")
    lines.wait_for(1)
    os.kill(lines.process.pid, signal.SIGSTOP)
    (tmp_path / "go").touch()
    process.succeeds()
    wait_until(lambda: len(traces_of(server.uri, experiment)) == 9, 60)
    status = next(own_spool.glob("*/status.json"))
    wait_until(lambda: json.loads(status.read_text())["delivered"]["traces"] == 9, 30)
    os.kill(lines.process.pid, signal.SIGCONT)
    lines.wait_for(5)
    lines.process.send_signal(signal.SIGINT)
    lines.process.wait()
    ids = [trace["trace_id"] for trace in lines.traces()]
    assert len(ids) == len(set(ids))
    assert "went by unread" in lines.process.stderr.read()


def rings_of_programs(spool: Path) -> list[Path]:
    return [ring for folder in rings_of(spool) for ring in folder.glob("*.ring")]
