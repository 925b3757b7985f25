"""A trace's info, which the sender makes without MLflow's TraceInfo, is equal to MLflow's."""

from __future__ import annotations

import json
import random
import subprocess

import mlflow_fasttrace.fluent as mlflow
import pytest
from mlflow.entities import Trace, TraceData, TraceInfo
from mlflow.protos.service_pb2 import StartTraceV3
from mlflow.tracing import constant
from mlflow.tracing.utils import (
    SpanAggregationNode,
    _calculate_percentile,
    aggregate_usage_from_span_nodes,
)
from mlflow.tracing.utils.truncation import _get_truncated_preview
from mlflow.utils.git_utils import get_git_branch, get_git_commit, get_git_repo_url
from mlflow.utils.mlflow_tags import IMMUTABLE_TAGS
from mlflow.utils.proto_json_utils import message_to_json
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender import figures, trace_infos
from mlflow_fasttrace._internal.sender.assemble import Assembler, TraceBuffer, ready_traces
from mlflow_fasttrace._internal.sender.commits import git_metadata
from mlflow_fasttrace._internal.sender.figures import _percentile, token_usage
from mlflow_fasttrace._internal.sender.previews import preview_of
from mlflow_fasttrace._internal.sender.sources import Entry
from mlflow_fasttrace._internal.sender.trace_infos import (
    _duration,
    _shortened,
    _timestamp,
    start_trace_body,
    trace_info,
)
from support import made_records
from support.lengths import long_but
from support.records import NoSource, Recorded


@pytest.fixture
def finished(tmp_path):
    """Runs a function that records a trace; gives the info that the sender would send for it."""
    origin = {"user": "u", "source": "s.py", "cwd": str(tmp_path), "uri": "x"}
    recorded = Recorded(tmp_path, **origin, experiment={"id": "7"})

    def run(program) -> dict:
        program()
        assembler = Assembler()
        assembler.add([Entry(NoSource(), *item) for item in recorded.reader.drain(1 << 20)])
        (trace,) = ready_traces(assembler, everything=True)
        trace.summarize()
        return trace_info(trace, "7")

    yield run
    recorded.end()


def simple():
    with mlflow.start_span("simple") as span:
        span.set_inputs({"q": "é" * 300})


def full():
    with mlflow.start_span("full") as span:
        span.set_outputs("x" * 3000)
        mlflow.update_current_trace(
            tags={"long": "t" * 9000, "": "empty", "surrogate\ud800": "\udfff"},
            metadata={"m" * 400: "v" * 400, "number": 5},
            client_request_id="c",
            request_preview="given \ud800",
            state="ERROR",
        )


@pytest.mark.parametrize("program", [simple, full])
def test_the_info_is_as_mlflow_would_send_it(finished, program):
    info = finished(program)
    entity = TraceInfo.from_dict(info)
    assert entity.to_dict() == info
    trace = Trace(info=entity, data=TraceData(spans=[]))
    assert json.loads(start_trace_body(info)) == json.loads(
        message_to_json(StartTraceV3(trace=trace.to_proto()))
    )


def test_the_size_counts_what_mlflow_counts(finished):
    info = finished(simple)
    total = int(info["trace_metadata"].pop("mlflow.trace.sizeBytes"))
    stats = json.loads(info["trace_metadata"].pop("mlflow.trace.sizeStats"))
    empty = Trace(info=TraceInfo.from_dict(info), data=TraceData(spans=[])).to_json()
    assert total == stats["total_size_bytes"] == stats["max"] + len(empty.encode())


@pytest.mark.parametrize("milliseconds", [0, 1, 999, 1000, 1_795_472_402_820, 1_795_472_402_000])
def test_times_are_as_protobuf_prints_them(milliseconds):
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

    timestamp, duration = Timestamp(), Duration()
    timestamp.FromMilliseconds(milliseconds)
    duration.FromMilliseconds(milliseconds)
    assert _timestamp(milliseconds) == timestamp.ToJsonString()
    assert _duration(milliseconds) == duration.ToJsonString()


# ---- what MLflow's own functions give ----

MESSAGES = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "first"},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "last"}]},
    {"role": "assistant", "content": ["spoken", "more"]},
    {"role": "tool", "content": None},
    {"content": "no role"},
    "no message",
]
PREVIEWED = [
    *([message] for message in MESSAGES),
    MESSAGES,
    [],
    [{"role": "assistant", "content": [{"type": "output_text", "text": ""}]}],
    [{"role": "assistant", "content": "x" * 3000}],
]
VALUES = [
    None,
    "",
    "text",
    5,
    [1, 2],
    "x" * 3000,
    {"q": "x" * 999},
    *({key: found} for found in PREVIEWED for key in ("messages", "input", "output")),
    {"messages": "text", "input": MESSAGES},
    {"messages": {}, "choices": [{"message": MESSAGES[1]}]},
    {
        "choices": [
            {"message": {"role": "assistant", "content": "answer"}},
            {"message": MESSAGES[1]},
        ]
    },
    {"choices": [{"message": {}}], "output": MESSAGES},
    {"choices": [5], "request": {"input": MESSAGES}},
    {"request": {"request": {"messages": MESSAGES}}},
    {"request": "text"},
    {"request": None, "output": []},
]


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_previews_are_mlflows(role):
    texts = [json.dumps(value) for value in VALUES] + ["no JSON", "{", "\ud800", "y" * 1001]
    for text in texts:
        assert preview_of(text, role) == _get_truncated_preview(text, role=role), text
    assert preview_of(None, role) is None


#: Inputs or outputs that are small; what makes them large comes first, or last.
SMALL = [
    *(value if isinstance(value, dict) else {"value": value} for value in VALUES),
    {"messages": [{"role": "user", "content": "x" * 2000 + "é"}]},
    {"messages": [{"role": "user", "content": "😀" * 1001}, {"role": "user", "content": "\udfff"}]},
    {"input": [{"role": "user", "content": [{"type": "text", "text": 5}, "later"]}]},
    {"choices": [{"message": MESSAGES[1]}, {"message": MESSAGES[0]}]},
]
FILLERS = {"text": "ü" * 600_000, "words": ["word"] * 220_000}


@pytest.mark.parametrize("role", long_but(["user"], ["user", "assistant"]))
@pytest.mark.parametrize("filler", FILLERS)
def test_what_is_shown_of_large_values_is_what_their_text_would_show(role, filler):
    name = "mlflow.spanInputs" if role == "user" else "mlflow.spanOutputs"
    more = {"filler": FILLERS[filler]}
    for small in SMALL if filler == "text" else SMALL[::4]:
        for large in ({**small, **more}, {**more, **small}):
            text = json.dumps(large, ensure_ascii=False)
            record = made_records.span_record(attributes={name: large})
            shown = _core.span_summary(record)[5 if role == "user" else 6]
            assert isinstance(shown, tuple)
            assert len(shown[0]) < 5000
            assert preview_of(shown, role) == preview_of(text, role), small
            assert _shortened(shown) == _shortened(text)


@pytest.mark.parametrize("content", ["aé😀", '"\\\n\x7f', "\ud800x\udfff", "\x00ü"])
def test_the_size_of_a_large_span_is_that_of_its_json(content, tmp_path):
    for at in range(8):
        value = {"text": "x" * at + content * 40_000, content: [content] * 10_000}
        record = made_records.span_record(attributes={"large": value})
        text = _core.span_json(record)
        assert json.loads(json.loads(text)["attributes"]["large"]) == value
        assert _core.span_summary(record)[2] == len(text.encode())
        with open(tmp_path / "span.json", "w+b", buffering=0) as file:
            _core.write_span_json(file.fileno(), record)
            file.seek(0)
            assert file.read() == text.encode()


def test_what_python_cannot_read_is_previewed_as_it_is():
    for text in ("[" * 100_000, "9" * 5000):
        assert preview_of(text, "user") == text[:997] + "..."


class Buffer(TraceBuffer):
    """A trace of which only its spans' usage is known."""

    def __init__(self, usage):
        super().__init__(b"t" * 16)
        self.summaries = {
            id_: (parent, 100, used, None) for id_, (parent, used, _) in usage.items()
        }

    def all_spans_were_seen(self):
        return True


COUNTS = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


def test_usage_is_summed_up_as_by_mlflow():
    choose = random.Random(5)
    for _ in range(300):
        ids = [bytes([n]) * 8 for n in range(choose.randint(1, 12))]
        usage = {}
        for place, span_id in enumerate(ids):
            parent = choose.choice([None, b"elsewher", *ids[:place]])
            own = choose.choice([None, None, {}, COUNTS, {"cache_read_input_tokens": 2, **COUNTS}])
            usage[span_id] = (parent, own, None)
        nodes = [
            SpanAggregationNode(
                span_id=span_id.hex(), parent_id=parent.hex() if parent else None, data=own
            )
            for span_id, (parent, own, _cost) in usage.items()
        ]
        theirs = aggregate_usage_from_span_nodes(nodes)
        ours = token_usage(Buffer(usage))
        assert ours == ({"mlflow.trace.tokenUsage": json.dumps(theirs)} if theirs else {})


def test_usage_that_is_none_is_left_out(caplog):
    for odd in ("words", [1], {"input_tokens": "many"}, {"input_tokens": None}):
        assert token_usage(Buffer({b"a" * 8: (None, odd, None)})) == {}
    assert caplog.text.count("cannot be summed up") == 4


def test_usage_of_spans_that_are_each_others_parents_ends():
    usage = {b"a" * 8: (b"b" * 8, None, None), b"b" * 8: (b"a" * 8, COUNTS, None)}
    token_usage(Buffer(usage))


def test_percentiles_are_mlflows():
    choose = random.Random(6)
    for count in range(1, 40):
        numbers = sorted(choose.randint(0, 10**6) for _ in range(count))
        for share in (0.25, 0.5, 0.75):
            assert _percentile(numbers, share) == int(_calculate_percentile(numbers, share))


def test_what_the_server_keeps_is_what_mlflow_knows():
    assert IMMUTABLE_TAGS - {"mlflow.user"} == trace_infos._SERVER_TAGS
    assert str(constant.TRACE_SCHEMA_VERSION) == trace_infos._SCHEMA_VERSION
    assert constant.MAX_CHARS_IN_TRACE_INFO_METADATA == trace_infos._METADATA_CHARACTERS
    assert constant.MAX_CHARS_IN_TRACE_INFO_TAGS_KEY == trace_infos._TAG_KEY_CHARACTERS
    assert constant.MAX_CHARS_IN_TRACE_INFO_TAGS_VALUE == trace_infos._TAG_CHARACTERS
    assert set(figures._TOKENS) | set(figures._CACHED_TOKENS) == set(
        constant.TokenUsageKey.all_keys()
    )


def test_the_commit_is_mlflows(tmp_path):
    pytest.importorskip("git", reason="GitPython is not installed")

    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True)

    def theirs(folder):
        return {
            "mlflow.source.git.commit": get_git_commit(folder) or "",
            "mlflow.source.git.repoURL": get_git_repo_url(folder) or "",
            "mlflow.source.git.branch": get_git_branch(folder) or "",
        }

    git_metadata.cache_clear()
    assert git_metadata(str(tmp_path)) == theirs(str(tmp_path))
    git_metadata.cache_clear()
    git("init", "-q", "-b", "trunk")
    assert git_metadata(str(tmp_path)) == theirs(str(tmp_path))  # no commit yet
    git_metadata.cache_clear()
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("remote", "add", "origin", "https://me:secret@example.org/repository.git")
    found = git_metadata(str(tmp_path))
    assert found == theirs(str(tmp_path))
    assert found["mlflow.source.git.repoURL"] == "https://example.org/repository.git"
    ignored = tmp_path / "ignored"
    ignored.mkdir()
    (tmp_path / ".gitignore").write_text("ignored\n")
    assert git_metadata(str(ignored)) == theirs(str(ignored))
    git("checkout", "-q", "--detach")
    git_metadata.cache_clear()
    assert git_metadata(str(tmp_path)) == theirs(str(tmp_path))
