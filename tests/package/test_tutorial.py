"""Every chapter of examples/tutorial runs, prints what it promises, and records what it records under MLflow."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import notebooks
from support.processes import ROOT, module_path
from support.pythons import OWN_VERSION, pip_install, venv_of
from support.spools import clean_up
from support.traces import described, in_any_order, traces_of

TUTORIAL = ROOT / "examples/tutorial"
CHAPTERS = sorted(path.stem for path in TUTORIAL.glob("[0-9][0-9]_*.py"))

#: The chapter whose SDKs are in an environment of their own, which tests/seams/test_integrations.py has, too.
WITH_ANTHROPIC = "02_autolog"
INTEGRATIONS = ROOT / ".venv-integrations/bin/python"
#: The chapter about what MLflow does not have.
ONLY_HERE = "19_tail_sampling"

#: Lines that a chapter prints, in this order, without durations.
PROMISES = {
    "01_install": """
This is the full installation.
  greet [UNKNOWN] OK
      inputs: {'name': 'world'}
      outputs: Hello, world!
""",
    "02_autolog": """
  Completions [CHAT_MODEL] OK
  14 tokens
  Messages.create [CHAT_MODEL] OK
  14 tokens
""",
    "03_disable": """
all on:
  ask [UNKNOWN] OK
    Completions [CHAT_MODEL] OK
openai.autolog(disable=True):
  ask [UNKNOWN] OK
tracing.disable():
  no trace
tracing.enable():
  ask [UNKNOWN] OK
    Completions [CHAT_MODEL] OK
tracing.context(enabled=False):
  no trace
""",
    "04_span_fields": """
checkout
  inputs      {'basket': ['tea', 'sugar'], 'pay_by': 'card'}
  outputs     {'order': 4711, 'paid': False}
  attributes  {'shop': 'Lisbon', 'items': 2, 'discount': 0.1}
  event       stock reserved
  status      OK
pay
  inputs      {'amount': 7.2}
  event       exception the bank does not answer
  status      ERROR
""",
    "05_span_types": """
  answer [AGENT] OK
    redact [REDACTION] OK
    parse [PARSER] OK
    count [UNKNOWN] OK
    find [RETRIEVER] OK
of type RETRIEVER: ['find']
of type REDACTION: ['redact']
""",
    "06_ui": """
  look [UNKNOWN] OK
""",
    "08_decorator": """
raised: no word of 10 letters
  read [CHAIN] OK
      inputs: {'text': 'a span for every call'}
      outputs: every
    split [UNKNOWN] OK
    longest word [TOOL] OK
        attributes: {'language': 'en'}
  read [CHAIN] ERROR
      events: ['exception']
    split [UNKNOWN] OK
    longest word [TOOL] ERROR
""",
    "09_current_span": """
outside: None
  handle [UNKNOWN] OK
      attributes: {'version': '1.4.0', 'plan': 'free'}
    load [UNKNOWN] OK
        inputs: {'user': 'ada'}
        attributes: {'cache': 'miss'}
""",
    "10_foreign_functions": """
  report [UNKNOWN] OK
      outputs: 3.0
    parse_qsl [UNKNOWN] OK
    average [TOOL] OK
        outputs: 9
    sqrt [UNKNOWN] OK
        inputs: {'x': 9}
        outputs: 3.0
""",
    "11_start_span": """
  add up [CHAIN] OK
      outputs: {'total': 430}
      attributes: {'unit': 'cents'}
    price of tea [PARSER] OK
    price of sugar [PARSER] OK
    price of salt [PARSER] ERROR
        inputs: a pinch
        events: ['exception']
""",
    "12_mixing": """
  advise [AGENT] OK
    collect [CHAIN] OK
      weather [TOOL] OK
      weather [TOOL] OK
    Completions [CHAT_MODEL] OK
""",
    "13_tags_and_previews": """
  reply [UNKNOWN] OK
request:  Are you there?
response: I have read 2 messages.
tags:     {'channel': 'mail', 'reviewed': 'yes'}
metadata: build = 1.4.0
metadata: mlflow.trace.user = ada
metadata: mlflow.trace.session = session-1
""",
    "14_async": """
  compare [AGENT] OK
    fetch [TOOL] OK
        outputs: {'city': 'Rome', 'degrees': 4}
      wait for the service [UNKNOWN] OK
          inputs: Rome
    fetch [TOOL] OK
      wait for the service [UNKNOWN] OK
          inputs: Madrid
    fetch [TOOL] OK
      wait for the service [UNKNOWN] OK
          inputs: Stockholm
""",
    "15_generators": """
['one', 'two']
Streams come in pieces.
  lines [UNKNOWN] OK
      outputs: ['one', 'two']
      events: ['mlflow.chunk.item.0', 'mlflow.chunk.item.1']
    clean [UNKNOWN] OK
    clean [UNKNOWN] OK
  speak [UNKNOWN] OK
    stream [LLM] OK
        outputs: Streams come in pieces.
""",
    "16_threads": """
  with_copies [UNKNOWN] OK
    work [UNKNOWN] OK
      multiply [UNKNOWN] OK
    work [UNKNOWN] OK
      multiply [UNKNOWN] OK
    work [UNKNOWN] OK
      multiply [UNKNOWN] OK
  the calls of work() are in the same trace
  without_copies [UNKNOWN] OK
  the calls of work() are in 3 traces of their own
""",
    "17_rag_pipeline": """
  RAG [AGENT] OK
    retrieve [RETRIEVER] OK
    build_prompt [CHAIN] OK
    Completions [CHAT_MODEL] OK
request: Who gnawed the rope and set the lion free?
tokens:  235
""",
    "18_distributed": """
sent
  order [AGENT] OK
    ask_warehouse [TOOL] OK
      warehouse [UNKNOWN] OK
        look_up [TOOL] OK
            outputs: 12
""",
    "19_tail_sampling": """
10 traces were recorded, 2 are kept:
  handle [UNKNOWN] OK
      inputs: {'number': 3}
    step [UNKNOWN] ERROR
  handle [UNKNOWN] OK
      inputs: {'number': 7}
    step [UNKNOWN] OK
""",
}

_DURATION = re.compile(r" +\d+\.\d+ ms +")


def assert_prints(chapter: str, output: str) -> None:
    """Asserts that a chapter's output has what it promises, and no word of trouble."""
    lines = (_DURATION.sub(" ", line) for line in output.splitlines())
    missing = [line for line in PROMISES[chapter].strip("\n").split("\n") if line not in lines]
    assert missing == [], output
    assert "Traceback" not in output
    assert "WARNING" not in output


def environment(**variables: str) -> dict[str, str]:
    """That of a chapter, which asks no model but its own."""
    left = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OPENAI_", "ANTHROPIC_", "MLFLOW_RUN_ID"))
    }
    return {**left, **variables}


@pytest.fixture(scope="module")
def printed(server):
    """By chapter: its exit code and what it printed."""

    def with_anthropic() -> tuple[int, str]:
        assert INTEGRATIONS.exists(), "make .stamps/integrations installs Anthropic's client"
        result = subprocess.run(
            [INTEGRATIONS, TUTORIAL / f"{WITH_ANTHROPIC}.py"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(MLFLOW_TRACKING_URI=server.uri),
        )
        return result.returncode, result.stdout

    paths = {str(TUTORIAL / f"{name}.py"): name for name in CHAPTERS if name != WITH_ANTHROPIC}
    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(with_anthropic)
        result = subprocess.run(
            [sys.executable, "-m", "programs.chapters", *paths],
            capture_output=True,
            text=True,
            env=environment(MLFLOW_TRACKING_URI=server.uri, PYTHONPATH=module_path()),
        )
        assert result.returncode == 0, result.stderr
        others = {paths[path]: found for path, found in json.loads(result.stdout).items()}
        return {**others, WITH_ANTHROPIC: one.result()}


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_prints_what_it_promises(printed, server, chapter):
    code, output = printed[chapter]
    assert code == 0, output
    assert_prints(chapter, output)
    if chapter == "06_ui":
        assert f"{server.uri}/#/experiments/" in output


def test_the_table_of_contents_has_every_chapter():
    listed = re.findall(
        r"^\| \[(\w+)\.(?:py|ipynb)\]", (TUTORIAL / "README.md").read_text(), re.MULTILINE
    )
    assert [name[:2] for name in listed] == [f"{number:02}" for number in range(1, 20)]
    assert set(CHAPTERS) == set(listed) - {"07_notebook"}


def test_the_notebooks_cells_show_what_it_holds(server, tmp_path, monkeypatch):
    for name in "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR":
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_FASTTRACE_SPOOL_DIR", str(tmp_path / "spool"))
    kept = notebooks.read(TUTORIAL / "07_notebook.ipynb")
    ran = copy.deepcopy(kept)
    try:
        notebooks.execute(ran, TUTORIAL)
    finally:
        clean_up(tmp_path / "spool")

    def outputs(notebook):
        """What each cell prints, returns and displays, as text, without ids, and what MLflow logs of a new experiment."""
        return [
            [
                re.sub("tr-[0-9a-f]{32}", "", o.text if "text" in o else o.data["text/plain"])
                for o in cell.outputs
                if o.get("name") != "stderr"
            ]
            for cell in notebook.cells
            if cell.cell_type == "code"
        ]

    assert outputs(ran) == outputs(kept)
    assert sum("notebook-trace-renderer" in json.dumps(cell) for cell in ran.cells) == 3


class Copy:
    """The examples in a folder of their own, with ``mlflow`` imported as one of two ways has it, and a
    database."""

    def __init__(self, folder: Path, pure: bool):
        self.folder = folder
        self.uri = f"sqlite:///{folder}/traces.db"
        shutil.copytree(
            ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__")
        )
        for chapter in CHAPTERS if pure else ():
            path = folder / f"examples/tutorial/{chapter}.py"
            text = path.read_text()
            text = text.replace("import mlflow_fasttrace as mlflow\n", "import mlflow\n")
            text = re.sub(r"^from mlflow_fasttrace\.", "from mlflow.", text, flags=re.MULTILINE)
            assert "import mlflow_fasttrace" not in text
            assert "from mlflow_fasttrace" not in text
            path.write_text(text)

    def command(self, chapter: str) -> dict[str, Any]:
        python = INTEGRATIONS if chapter == WITH_ANTHROPIC else sys.executable
        return {
            "args": [python, f"examples/tutorial/{chapter}.py"],
            "cwd": self.folder,
            "env": environment(
                MLFLOW_TRACKING_URI=self.uri, MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"
            ),
        }

    def run(self, chapter: str) -> str:
        result = subprocess.run(
            **self.command(chapter),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def traces(self, chapter: str) -> list[dict[str, Any]]:
        """What a chapter recorded, in any order of what runs side by side, without the folder's name."""
        traces = [described(trace) for trace in traces_of(self.uri, f"Tutorial {chapter[:2]}")]
        text = json.dumps(traces).replace(str(self.folder), "<folder>")
        return sorted(map(in_any_order, json.loads(text)), key=repr)


@pytest.fixture(scope="module")
def ways(tmp_path_factory):
    return [Copy(tmp_path_factory.mktemp(way), way == "pure") for way in ("pure", "core")]


@pytest.mark.long
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapters_traces_are_mlflows(ways, chapter):
    with ThreadPoolExecutor(2) as pool:
        _, printed = pool.map(lambda way: way.run(chapter), ways)
    assert_prints(chapter, printed)
    pure, core = (way.traces(chapter) for way in ways)
    if chapter == ONLY_HERE:
        kept = [trace for trace in pure if trace["roots"][0]["inputs"]["number"] in (3, 7)]
        assert (len(pure), len(kept)) == (10, 2)
        pure = kept
    assert pure, "MLflow itself recorded nothing"
    assert core == pure


@pytest.mark.long
def test_the_ui_is_there_until_enter(ways):
    process = subprocess.Popen(
        **ways[1].command("06_ui"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        try:
            before = list(iter(process.stdout.readline, "Enter, or Ctrl-C, ends the server.\n"))
            link = next(line.split()[-1] for line in before if line.startswith("this trace"))
            page, _, query = link.partition("/#/experiments/")
            trace_id = query.rpartition("=")[2]
            with urllib.request.urlopen(page) as answer:
                assert "<title>MLflow</title>" in answer.read().decode()
            api = f"{page}/ajax-api/3.0/mlflow/traces/{trace_id}"
            with urllib.request.urlopen(api) as answer:
                assert json.load(answer)["trace"]["trace_info"]["trace_id"] == trace_id
            process.communicate("\n")
            assert process.returncode == 0
        finally:
            process.kill()
    with pytest.raises(OSError):
        urllib.request.urlopen(page, timeout=5)


@pytest.mark.long
def test_without_a_server_a_chapter_records_into_the_tutorials_database(tmp_path):
    copy = Copy(tmp_path, pure=False)
    copy.uri = ""
    copy.run("08_decorator")
    assert len(traces_of(f"sqlite:///{tmp_path}/tutorial.db", "Tutorial 08")) == 2


@pytest.mark.long
def test_the_light_installation_records_into_a_server(server, own_spool, wheel, tmp_path):
    python = venv_of(OWN_VERSION, tmp_path / "venv")
    pip_install(python, wheel)

    def run(uri: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [python, TUTORIAL / "01_install.py"],
            capture_output=True,
            text=True,
            env=environment(MLFLOW_TRACKING_URI=uri, PYTHONPATH=""),
        )

    light = run(server.uri)
    assert light.returncode == 0, light.stderr
    assert re.search("^mlflow +not installed$", light.stdout, re.MULTILINE)
    assert "This is the light installation.\n  greet [UNKNOWN] " in light.stdout
    without_server = run("")
    assert without_server.returncode == 1
    assert "name a server in MLFLOW_TRACKING_URI" in without_server.stderr
