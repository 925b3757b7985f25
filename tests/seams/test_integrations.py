"""The SDKs that people call models with, real ones, under MLflow's autologging: the same programs in
two ways of coming by ``mlflow``, and what the server then holds is equal.

The programs are in tests/programs/integrations, their SDKs in a virtual environment of their own
(``make .stamps/integrations``), the models in tests/support/llm_stub.py.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support import llm_stub
from support.processes import ONE_REQUEST_AT_A_TIME
from support.traces import described, in_any_order, traces_of

ROOT = Path(__file__).parents[2]
PROGRAMS = ROOT / "tests/programs/integrations"

#: Frameworks in .venv-integrations.
CORE = {
    "agents",
    "anthropic",
    "autogen",
    "dspy",
    "langchain",
    "langchain_inline",
    "langgraph",
    "llama_index",
    "openai",
}
#: Of them, those that are run by ``make test-long`` only.
CORE_LONG = CORE - {"anthropic", "openai"}
#: Frameworks in .venv-integrations-more, or in a venv of their own; run by ``make test-long`` only.
MORE = {
    "ag2",
    "agno",
    "bedrock",
    "crewai",
    "gemini",
    "groq",
    "haystack",
    "litellm",
    "mistral",
    "pydantic_ai",
    "semantic_kernel",
    "smolagents",
    "strands",
}
#: Frameworks whose dependencies do not go with those of any other.
ALONE = {"crewai"}
#: Frameworks whose spans are OpenTelemetry's, which MLflow sees as they end.
OPENTELEMETRY = {"agno", "haystack", "semantic_kernel", "strands"}

FRAMEWORKS = sorted(CORE) + sorted(MORE)

#: The second run's way, one of run.py's WAYS; the first run is pure MLflow's. Two runs of pure MLflow
#: are equal, so a difference between two ways is not the programs' own doing.
HOWS = ["drop-in", "installed", "mlflow"]

#: Programs whose parts run in threads side by side, and so start in any order.
SIDE_BY_SIDE = {
    ("langchain", "batch_async"),
    ("langchain", "parallel"),
    ("langchain", "retrieval"),
    ("langgraph", "fan_out"),
    ("dspy", "parallel"),
}

#: Programs whose spans in what asyncio runs do not nest under their node in MLflow: docs/compatibility.md. How they nest
#: here is told by tests/seams/test_langchain_context.py.
NESTED_HERE = {
    ("langchain", "nested_async"),
    ("langgraph", "async_nodes"),
    ("langgraph", "loop_async"),
    ("langgraph", "loop_stream_async"),
}


def one_by_one(descriptions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The spans of all traces, wherever they stand."""

    def spans(span: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield {**span, "children": None}
        for child in span["children"]:
            yield from spans(child)

    found = [span for trace in descriptions for root in trace["roots"] for span in spans(root)]
    return sorted(found, key=repr)


#: Settings by which nothing leaves the machine: no telemetry, no price lists, no hubs, and a proxy that
#: is not there for all other requests.
OFFLINE = {
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "all_proxy": "",
    "no_proxy": "127.0.0.1,localhost",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_API_KEY": "stub",
    "ANTHROPIC_API_KEY": "stub",
    "AWS_EC2_METADATA_DISABLED": "true",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
}


def programs_of(framework: str) -> list[str]:
    """The names of a framework's programs, whose SDK is not installed here."""
    tree = ast.parse((PROGRAMS / f"{framework}_programs.py").read_text())
    functions = [
        node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    return [name for name in functions if not name.startswith("_") and name != "enable"]


def _is_long(framework: str, how: str) -> bool:
    return framework in MORE | CORE_LONG or how != HOWS[0]


CASES = [
    pytest.param(framework, name, how, marks=[pytest.mark.long] if _is_long(framework, how) else [])
    for framework in FRAMEWORKS
    for name in programs_of(framework)
    for how in HOWS
]


#: What a process logs, without the time.
_WARNING = re.compile(r"^[\d/]+ [\d:]+ ((?:WARNING|ERROR) .*)")


@pytest.fixture(scope="module")
def stub():
    with llm_stub.running() as address:
        yield address


@pytest.fixture(scope="module")
def runs(server, stub, tmp_path_factory, request):
    """(way, framework) -> the run of that framework's programs, and the warnings that it logged; two at a time."""
    folder = tmp_path_factory.mktemp("integrations")

    def run(how: str, framework: str, prefix: str) -> set[str]:
        more = f"-{framework}" if framework in ALONE else "-more" if framework in MORE else ""
        sdks = f"integrations{more}"
        python = ROOT / f".venv-{sdks}/bin/python"
        assert python.exists(), f"make .stamps/{sdks} installs {framework}"
        result = subprocess.run(
            [python, PROGRAMS / "run.py", how, framework, server.uri, prefix, stub],
            capture_output=True,
            text=True,
            cwd=folder,
            env={
                **os.environ,
                **OFFLINE,
                **ONE_REQUEST_AT_A_TIME,
                "DSPY_CACHEDIR": str(folder / "dspy"),
            },
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return {found[1] for line in result.stderr.splitlines() if (found := _WARNING.search(line))}

    started: dict[tuple[str, str], Future[set[str]]] = {}
    asked_for = {
        (item.callspec.params["framework"], item.callspec.params["how"])
        for item in request.session.items
        if item.parent is request.node
    }
    with ThreadPoolExecutor(2) as pool:
        for framework in FRAMEWORKS:
            hows = [how for asked, how in sorted(asked_for) if asked == framework]
            for way, how in (("pure", "mlflow"), *((f"as-{how}", how) for how in hows)):
                if hows:
                    started[way, framework] = pool.submit(run, how, framework, way)
        yield started
        for future in started.values():
            future.cancel()


#: What SDKs make anew in every run: ids, times, addresses as numbers.
_ANEW = [
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<uuid>"),
    (re.compile(r"\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?"), "<time>"),
    (re.compile(r"datetime\.datetime\([^)]*(\)|\.\.\.$)"), "<time>"),
    (re.compile(r"(?<=_monotonic=)[\d.]+"), "<time>"),
    (re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])"), "<hex>"),
    (re.compile(r"(?<=00-<hex>-)[0-9a-f]{16}(?=-0\d)"), "<hex>"),  # another trace's span
    (re.compile(r"\b\d{10,}\b"), "<number>"),
]
_ANEW_KEYS = {
    "duration",
    "gen_ai.server.time_to_first_token",
    "graph.node.id",
    "validator",  # the repr of a hash table
}
_MARK = re.compile("<(?:uuid|time|hex|number)>")


def steady(value: Any) -> Any:
    """A value without what SDKs make anew."""
    if isinstance(value, dict):
        return {
            steady(key): "<anew>" if key in _ANEW_KEYS else steady(item)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [steady(item) for item in value]
    if isinstance(value, int) and abs(value) >= 10**9:
        return "<number>"
    if isinstance(value, str):
        for pattern, name in _ANEW:
            value = pattern.sub(name, value)
        if value.endswith("...") and (mark := _MARK.search(value)):
            # Cut off at a number of characters, and what comes before differs in length.
            value = value[: mark.start()] + "<cut>"
    return value


#: Programs with a span whose name is None, which MLflow's server does not take: MLflow's client writes
#: their traces to files (docs/compatibility.md).
NAMELESS = {
    (framework, name)
    for framework in ("langgraph", "langchain_inline")
    for name in ("loop_async", "loop_stream_async")
}


def with_names(description: dict[str, Any]) -> dict[str, Any]:
    children = [with_names(child) for child in description["children"]]
    return {**description, "name": str(description["name"]), "children": children}


#: Programs that log feedback on what has just ended, which MLflow's server may not have yet:
#: docs/compatibility.md.
LOGS_FEEDBACK = {("dspy", "evaluate")}


#: Frameworks whose spans have None for a number of tokens, which MLflow reads as no number:
#: docs/compatibility.md.
COUNTS_NONE = {"strands"}


def with_zeros(span: dict[str, Any]) -> dict[str, Any]:
    counts = {
        key: 0 if value is None and key.startswith("gen_ai.usage.") else value
        for key, value in span["attributes"].items()
    }
    usage = "mlflow.chat.tokenUsage"
    if "gen_ai.usage.cache_creation.input_tokens" in counts and usage in counts:
        counts[usage] = {"cache_creation_input_tokens": 0, **counts[usage]}
    return {**span, "attributes": counts, "children": list(map(with_zeros, span["children"]))}


def compared(trace: Any, framework: str, name: str) -> dict[str, Any]:
    description = steady(described(trace))
    if framework in COUNTS_NONE:
        description["roots"] = list(map(with_zeros, description["roots"]))
    if framework in OPENTELEMETRY:
        # Tags in MLflow where spans arrive before the trace's info: docs/compatibility.md.
        for tag in ("service.name", "service.instance.id"):
            description["tags"].pop(tag, None)
    if (framework, name) in NAMELESS:
        description["roots"] = [with_names(root) for root in description["roots"]]
        description["tags"].pop("mlflow.trace.spansLocation", None)
    if (framework, name) in LOGS_FEEDBACK:
        del description["assessments"]
    # The server adds these up, and loses some where two requests of a trace meet.
    for sums in (
        "mlflow.trace.cost",
        *(("mlflow.trace.tokenUsage",) if framework in OPENTELEMETRY else ()),
    ):
        if sums in description["metadata"]:
            description["metadata"][sums] = "<sum>"
    return description


#: Parameters that OpenAI's SDK is told not to send, as MLflow records them; here they are left out:
#: docs/compatibility.md.
_OMITTED = re.compile(r"^(<openai\.[\w.]*(Omit|NotGiven) object at 0x0>|NOT_GIVEN)$")


def without_omitted(pure: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """Takes such parameters, and what is said of their span's inputs in few characters, out of descriptions."""

    def is_sent(item: tuple[str, Any]) -> bool:
        return not (isinstance(item[1], str) and _OMITTED.match(item[1]))

    def sent(span: dict[str, Any]) -> dict[str, Any]:
        fields = {
            key: dict(filter(is_sent, span[key].items()))
            if isinstance(span[key], dict)
            else span[key]
            for key in ("inputs", "attributes")
        }
        if isinstance(inputs := fields["attributes"].get("mlflow.spanInputs"), dict):
            fields["attributes"]["mlflow.spanInputs"] = dict(filter(is_sent, inputs.items()))
        return {**span, **fields, "children": list(map(sent, span["children"]))}

    for mlflows, ours in zip(pure, other, strict=False):
        roots = list(map(sent, mlflows["roots"]))
        if roots != mlflows["roots"]:
            mlflows["roots"] = roots
            for description in (mlflows, ours):
                description["metadata"].pop("mlflow.traceInputs", None)
                description["request_preview"] = None


#: What MLflow records of an answer of OpenAI's SDK that the caller reads by itself; here its body is: docs/compatibility.md.
_UNREAD = re.compile(r"^<(Async)?APIResponse \[")


def without_bodies(pure: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    """Takes such answers, and what is made of them, out of descriptions."""

    def take_out(mlflows: dict[str, Any], ours: dict[str, Any]) -> bool:
        unread = isinstance(mlflows["outputs"], str) and _UNREAD.match(mlflows["outputs"])
        found = bool(unread) and isinstance(ours["outputs"], dict)
        if found:
            for span in (mlflows, ours):
                span.update(outputs=None, events=[])
                for key in ("mlflow.spanOutputs", "mlflow.chat.tokenUsage", "mlflow.llm.cost"):
                    span["attributes"].pop(key, None)
        below = [
            take_out(*pair) for pair in zip(mlflows["children"], ours["children"], strict=False)
        ]
        return found or any(below)

    for mlflows, ours in zip(pure, other, strict=False):
        if any([take_out(*pair) for pair in zip(mlflows["roots"], ours["roots"], strict=False)]):
            for description in (mlflows, ours):
                for key in ("tokenUsage", "cost"):
                    description["metadata"].pop(f"mlflow.trace.{key}", None)


@pytest.mark.parametrize(("framework", "name", "how"), CASES)
def test_an_integrations_traces_are_mlflows(server, runs, framework, name, how):
    def traces(way: str) -> list:
        runs[way, framework].result()
        found = traces_of(server.uri, f"{way}-{framework}-{name}")
        descriptions = [compared(trace, framework, name) for trace in found]
        if (framework, name) in SIDE_BY_SIDE:
            return sorted(map(in_any_order, descriptions), key=repr)
        return descriptions

    pure, other = traces("pure"), traces(f"as-{how}")
    assert pure, "MLflow itself recorded nothing"
    if how != "mlflow":
        without_omitted(pure, other)
        without_bodies(pure, other)
        if (framework, name) in NESTED_HERE:
            assert other != pure, "MLflow nests them, too"
            pure, other = one_by_one(pure), one_by_one(other)
    assert other == pure


@pytest.mark.parametrize(
    ("framework", "how"),
    [
        pytest.param(framework, how, marks=[pytest.mark.long] if _is_long(framework, how) else [])
        for framework in FRAMEWORKS
        for how in HOWS
        if how != "mlflow"
    ],
)
def test_an_integration_warns_of_nothing_more(runs, framework, how):
    assert runs[f"as-{how}", framework].result() <= runs["pure", framework].result()
