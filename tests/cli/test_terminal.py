"""How traces look: in wide and narrow terminals, in pipes, without colors; and which are shown."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time

import pytest
from mlflow_fasttrace._internal.cli.filters import moment_of
from rich.cells import cell_len
from support.terminals import COMMAND, Terminal, piped
from support.waiting import wait_until

NO_SENDER = {"MLFLOW_FASTTRACE_SENDER": "none"}
LONG = "long " * 80

PROGRAM = f"""
import time
import mlflow_fasttrace as mlflow

mlflow.set_tracking_uri("http://127.0.0.1:9")

@mlflow.trace(span_type="TOOL")
def leaf(n):
    return n

@mlflow.trace(name="検索する", span_type="RETRIEVER")
def search():
    for n in range(5):
        leaf(n)
    time.sleep(0.02)

@mlflow.trace(span_type="CHAT_MODEL")
def chat():
    span = mlflow.get_current_active_span()
    span.set_attribute("mlflow.chat.tokenUsage", {{"input_tokens": 1000, "output_tokens": 234, "total_tokens": 1234}})
    span.set_attribute("mlflow.llm.cost", {{"input_cost": 0.001, "output_cost": 0.0025, "total_cost": 0.0035}})
    time.sleep(0.02)

@mlflow.trace(span_type="AGENT")
def answer(fails):
    mlflow.update_current_trace(tags={{"team": "blue", "fails": str(fails)}})
    search()
    for n in range(198):
        leaf(n)
    chat()
    if fails:
        raise ValueError("no {LONG}")

answer(False)
try:
    answer(True)
except ValueError:
    pass
with mlflow.start_span("名前" * 30 + "end"):
    pass
"""


@pytest.fixture
def recorded(own_spool, run_program):
    process = run_program(PROGRAM, **NO_SENDER, MLFLOW_EXPERIMENT_NAME="terminal")
    assert process.returncode == 0, process.err


def shown(*arguments: str, **options) -> Terminal:
    with Terminal(*arguments, **options) as terminal:
        assert terminal.ends() == 0, terminal.text
        return terminal


def output(*arguments: str, **environment: str) -> str:
    result = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        env={**os.environ, **environment},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == b""
    return result.stdout.decode()


def names_of(*arguments: str) -> list[str]:
    return [trace["name"] for trace in json.loads(output("traces", "--json", *arguments))]


# ---- terminals ----


def test_a_wide_terminal_has_bars_in_one_column(recorded):
    rows = shown("traces", columns=120).rows  # a slow program has longer times
    first = next(n for n, row in enumerate(rows) if re.match(r"\d\d:\d\d:\d\d  answer", row))
    head, *tree = rows[first : first + 6]
    assert "  OK  206 spans  1,234 tokens, $0.0035  tr-" in head
    assert [re.split(" {2,}", row.lstrip("│├└─ "))[0] for row in tree] == [
        "answer",
        "検索する",
        "leaf x 5",
        "leaf x 198",
        "chat",
    ]
    assert "CHAT_MODEL  1,234 tokens, $0.0035" in tree[4]
    begins = [cell_len(re.split("[█▏▎▍▌▋▊▉▐▕]", row)[0]) for row in tree]
    root, search, leaves, _all_leaves, chat = begins
    # A slow program's span may begin a column later.
    assert root <= search <= leaves < chat, "bars begin where their spans do, whatever the text is"
    assert search - root < chat - search
    assert len({cell_len(row) for row in tree}) == 1, "times are in a column"


def test_equal_siblings_are_shown_one_by_one_where_that_is_wanted(recorded):
    rows = shown("traces", "--all-spans", "-n", "10", columns=110).rows
    assert sum("leaf  TOOL" in row for row in rows) == 2 * (198 + 5)


@pytest.mark.parametrize("columns", [20, 30, 59])
def test_a_narrow_terminal_breaks_what_does_not_fit(recorded, columns):
    text = "".join(shown("traces", columns=columns).rows)
    for part in ("leaf x 198", "検索する", "ValueError: no long"):
        assert re.sub(r"\s", "", part) in re.sub(r"[\s│]", "", text), part


def test_an_error_stands_where_it_began(recorded):
    rows = shown("traces", "--status", "error", columns=80).rows
    assert sum("ValueError" in row for row in rows) == 1
    assert any("`show` has all of it" in row for row in rows)


def test_colors_are_only_where_they_are_wanted(recorded):
    color = re.compile(rb"\x1b\[[0-9;]*3[1-7]")
    assert color.search(shown("traces").raw)
    plain = shown("traces", NO_COLOR="1")
    assert not color.search(plain.raw)
    assert "leaf x 198" in plain.text
    dumb = shown("traces", TERM="dumb")
    assert b"\x1b" not in dumb.raw


def test_a_pipe_gets_whole_lines_without_escapes(recorded):
    text = output("traces", "-n", "10", COLUMNS="20")
    assert "\x1b" not in text
    assert f"ValueError: no {LONG.strip()}" in text
    assert "名前" * 30 + "end  UNKNOWN" in text
    assert re.search(r"├── leaf x 198  TOOL  \+\d+(\.\d)? ms  \d+(\.\d)? [µm]s  OK\n", text)
    assert text == output("traces", "-n", "10", FORCE_COLOR="", LC_ALL="C.UTF-8")


def test_an_encoding_without_these_characters_costs_nothing_else(recorded):
    text = output("traces", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert "`-- answer" in text
    assert "\\u691c\\u7d22" in text


def test_a_deep_trace_is_shown_as_far_as_there_is_room(own_spool, run_program):
    process = run_program(
        "import mlflow_fasttrace as mlflow\n"
        "mlflow.set_tracking_uri('http://127.0.0.1:9')\n"
        "def down(n):\n"
        "    with mlflow.start_span(f'level {n}'):\n"
        "        if n < 400: down(n + 1)\n"
        "down(0)\n",
        **NO_SENDER,
    )
    assert process.returncode == 0, process.err
    for rows in (output("traces").splitlines(), shown("traces", columns=80, lines=500).rows):
        assert sum("level" in row for row in rows) >= 401
        (last,) = [row for row in rows if "level 400" in row]
        assert re.search(r"\(\d+\) ", last), "the number of the levels that are left out"


# ---- which traces ----


def test_filters(recorded):
    every = ["名前" * 30 + "end", "answer", "answer"]
    assert names_of() == every
    assert names_of("--status", "error") == ["answer"]
    assert names_of("--status", "OK") == [every[0], "answer"]
    assert names_of("--name", "ANSW") == ["answer"] * 2
    assert names_of("--name", "*end") == every[:1]
    assert names_of("--name", "nsw?r") == []
    assert names_of("--tag", "team", "--tag", "fails=True") == ["answer"]
    assert names_of("--tag", "team=red") == []
    assert names_of("--slower-than", "0.02") == ["answer"] * 2
    assert names_of("--experiment", "terminal") == every
    assert names_of("--experiment", "other") == []
    assert names_of("--since", "1h30m") == every
    soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 9))
    assert names_of("--since", soon) == []
    assert names_of("--since", "1d", "-n", "1") == every[:1]
    assert output("traces", "--name", "nobody") == "No such traces are known here.\n"


@pytest.mark.parametrize("wrong", ["soon", "10", "25:00", "10 minutes", "", "2025-13-01"])
def test_a_time_that_is_none_is_said_to_be_none(own_spool, wrong):
    result = subprocess.run([*COMMAND, "traces", "--since", wrong], capture_output=True, text=True)
    assert result.returncode == 2
    assert "neither a duration" in result.stderr


def test_times():
    now = 1_700_000_000.0
    assert moment_of("90s", now) == now - 90
    assert moment_of("1h30m", now) == now - 5400
    assert moment_of("0.5D", now) == now - 43200
    at = time.localtime(now)
    assert moment_of(time.strftime("%Y-%m-%dT%H:%M:%S", at), now) == now
    assert moment_of("2023-11-14T22:13:20Z", now) == now
    assert moment_of("2023-11-14T23:13:20+01:00", now) == now
    assert moment_of(time.strftime("%H:%M:%S", at), now) == now
    later = time.strftime("%H:%M", time.localtime(now + 3600))
    assert now - 86400 < moment_of(later, now) <= now, "of yesterday"


# ---- status --watch ----


def test_status_is_drawn_again_until_ctrl_c(own_spool, run_program):
    with Terminal("status", "--watch") as terminal:
        terminal.waits_for("Nothing has been recorded")
        process = run_program(PROGRAM, **NO_SENDER)
        assert process.returncode == 0, process.err
        terminal.waits_for("of 3 traces")
        assert terminal.ends(signal.SIGINT) == 3, "as of `status`: no sender is there"
        assert not terminal.hides_the_cursor
        assert "of 3 traces" in terminal.text, "what was seen last stays"


def test_status_is_cut_to_the_terminal(recorded):
    with Terminal("status", "--watch", columns=40, lines=6) as terminal:
        terminal.waits_for("below")
        assert terminal.ends(signal.SIGTERM) == 128 + signal.SIGTERM
        assert not terminal.hides_the_cursor


def test_status_is_watched_by_machines(own_spool, run_program, tmp_path):
    process = piped("status", "--watch", "--json", folder=tmp_path)
    try:
        assert json.loads(process.stdout.readline())["spools"] == []
        program = run_program(PROGRAM, **NO_SENDER)
        assert program.returncode == 0, program.err
        wait_until(lambda: json.loads(process.stdout.readline())["spools"], 30)
        process.send_signal(signal.SIGINT)
        process.communicate()
        assert process.returncode == 3
    finally:
        process.kill()
        process.communicate()
