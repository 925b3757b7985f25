"""The command mlflow-fasttrace: what it shows, what it sends, and that it gives nothing away."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender import foreground, life
from mlflow_fasttrace._internal.spool import overview
from mlflow_fasttrace._internal.spool.folder import Spool
from mlflow_fasttrace._internal.spool.reading import ring_items
from mlflow_fasttrace._internal.spool.status_file import read_status
from support.fault_proxy import FaultProxy, Reply, Request
from support.otlp_receiver import Receiver
from support.terminals import piped
from support.texts import wait_for_file
from support.traces import traces_of
from support.waiting import refusing_port, wait_until

SECRET = "s3cr3t"

PROGRAM = """
import os, sys, time
import mlflow_fasttrace as mlflow

mlflow.set_tracking_uri({uri!r})

@mlflow.trace(span_type="TOOL")
def leaf(n):
    return {{"n": n, "text": "[bold]" + "long " * 100}}

@mlflow.trace(span_type="AGENT", name="root [red]\\x1b[31m")
def root(n):
    leaf(n)
    if n == {fails}:
        raise ValueError("no")
    return n

def roots(*numbers):
    for n in numbers:
        try:
            root(n)
        except ValueError:
            pass

roots(*range({traces}))
print("recorded", flush=True)
{then}
"""

UNTIL_GO = f"""{wait_for_file("go")}
roots(100)
print("more", flush=True)
sys.stdin.read()
"""


def code(uri: str, traces: int = 3, then: str = "", fails: int = -1) -> str:
    return PROGRAM.format(uri=uri, traces=traces, then=then, fails=fails)


@pytest.fixture
def cli(own_spool, tmp_path):
    """Runs the command; what it prints never has a traceback or the secret in it."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        result = subprocess.run(
            [sys.executable, "-m", "mlflow_fasttrace", *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
            cwd=tmp_path,
        )
        output = result.stdout + result.stderr
        assert "Traceback" not in result.stderr, output
        assert SECRET not in output
        assert "\x1b" not in output, "nothing of a trace reaches the terminal as it is"
        return result

    return run


def spools_of(cli, **environment: str) -> list[dict]:
    return json.loads(cli("status", "--json", **environment).stdout)["spools"]


def leave_traces(run_program, uri: str, **more) -> None:
    """Lets a program leave traces in its ring, with no sender to deliver them."""
    environment = {"MLFLOW_FASTTRACE_SENDER": "none", **more.pop("environment", {})}
    process = run_program(code(uri, **more), **environment)
    assert process.returncode == 0, process.err


def the_spool() -> Spool:
    (spool,) = overview.all_spools()
    return spool


def move_to_segment(folder: Path) -> Path:
    """Moves what waits in the only ring to a segment, as a sender does."""
    spool = the_spool()
    (ring,) = overview.rings_of(spool)
    items, _note = ring_items(ring)
    path = folder / "packed-00000000000000000001-000001.seg"
    _core.write_segment(str(path), [record for _, _, record in items], 3)
    os.unlink(ring)
    return path


# ---- status ----


def test_status_tells_of_a_program_and_of_a_server_that_is_away(own_spool, run_program, cli):
    uri = f"http://joe:{SECRET}@127.0.0.1:{refusing_port()}"
    process = run_program(code(uri, then=UNTIL_GO), wait=False, MLFLOW_FASTTRACE_EXIT_TIMEOUT="0")
    assert process.stdout.readline() == "recorded\n"

    def away():
        (spool,) = spools_of(cli)
        done = spool["waiting"]["segments"] and spool["server"] == "away"
        return spool if done else None

    spool = wait_until(away, 30, "the sender's word that the server is away")
    assert spool["destination"] == uri.replace(f"joe:{SECRET}@", "")
    assert spool["sender"]["running"]
    assert spool["sender"]["pid"] == int(
        (own_spool / spool["name"] / "sender.lock").read_text().split()[0]
    )
    assert spool["sender"]["since"]
    assert spool["sender"]["version"]
    assert spool["recorded"] == {"traces": 3, "spans": 6}
    assert (spool["waiting"]["traces"], spool["waiting"]["spans"]) == (3, 6)
    assert spool["waiting"]["lag_seconds"] > 0
    assert "does not answer" in spool["last_error"]["text"]
    (ring,) = spool["agents"]
    assert (ring["pid"], ring["alive"]) == (process.pid, True)
    result = cli("status")
    assert result.returncode == 0, "a sender is there and tries again"
    assert "away" in result.stdout
    assert f"pid {process.pid}, alive" in result.stdout
    for file in own_spool.rglob("*"):
        assert not file.is_file() or SECRET.encode() not in file.read_bytes(), file
        assert file.stat().st_mode & 0o077 == 0


def test_status_and_traces_tell_what_was_delivered(server, own_spool, run_program, cli):
    process = run_program(code(server.uri, fails=2), MLFLOW_EXPERIMENT_NAME="cli delivered")
    assert process.returncode == 0, process.err
    # The sender writes its word about once a second.
    delivered = {"traces": 3, "spans": 6}
    spool = wait_until(
        lambda: next((s for s in spools_of(cli) if s["delivered"]["spans"] == 6), None), 30
    )
    assert {key: spool["delivered"][key] for key in delivered} == delivered
    assert spool["recorded"] == delivered
    assert spool["server"] == "answers"
    assert spool["waiting"]["lag_seconds"] is None
    result = cli("status")
    assert result.returncode == 0
    assert "6 spans of 3 traces" in result.stdout

    traces = json.loads(cli("traces", "--json").stdout)
    assert [trace["state"] for trace in traces] == ["ERROR", "OK", "OK"]
    assert {(trace["where"], trace["destination"]) for trace in traces} == {
        ("delivered", server.uri)
    }
    on_server = {trace.info.trace_id for trace in traces_of(server.uri, "cli delivered")}
    assert {trace["trace_id"] for trace in traces} == on_server
    lines = cli("traces", "-n", "2").stdout.splitlines()
    assert len(lines) == 2
    assert all(f"delivered to {server.uri}" in line for line in lines)
    result = cli("show", traces[0]["trace_id"])
    assert (result.returncode, result.stderr) == (0, ""), "it is read from the server"
    assert traces[0]["trace_id"] in result.stdout


def test_where_nothing_was_recorded_the_commands_say_so(cli):
    result = cli("status")
    assert result.returncode == 0
    assert "Nothing has been recorded" in result.stdout
    assert cli("send").stdout == "Nothing waits.\n"
    assert cli("traces").stdout == "No traces are known here.\n"


def test_a_backlog_without_a_sender_needs_attention(own_spool, run_program, cli):
    leave_traces(run_program, "http://127.0.0.1:9")
    result = cli("status")
    assert result.returncode == 3
    assert "mlflow-fasttrace send" in result.stdout
    (spool,) = spools_of(cli)
    (ring,) = spool["agents"]
    assert (ring["alive"], ring["waiting_spans"], ring["waiting_traces"]) == (False, 6, 3)
    assert spool["waiting"]["spans"] == 6


def test_looking_moves_nothing(own_spool, run_program, cli):
    leave_traces(run_program, "http://127.0.0.1:9")
    (ring,) = overview.rings_of(the_spool())

    def files() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in own_spool.rglob("*") if path.is_file()}

    before = Path(ring).read_bytes(), files()
    for command in (["status"], ["traces"], ["show", ring], ["show", ring, "--json"]):
        assert cli(*command).stdout
    assert (Path(ring).read_bytes(), files()) == before


# ---- dead letters ----


def test_a_dead_letter_is_told_of_and_shown(server, own_spool, run_program, cli):
    said = b'{"error_code": "INVALID_PARAMETER_VALUE", "message": "no 987654321 here"}'
    refusal = Reply(400, said, {"Content-Type": "application/json"})

    def fault(request: Request) -> Reply | None:
        return refusal if request.path == "/api/3.0/mlflow/traces" else None

    with FaultProxy(server.uri, fault) as proxy:
        process = run_program(code(proxy.uri, traces=1))
        assert process.returncode == 0, process.err
        _check_the_dead_letter(own_spool, cli)


def _check_the_dead_letter(own_spool, cli):
    def refused():
        (spool,) = spools_of(cli)
        return spool if spool["dead_letters"] and spool["refused"] else None

    spool = wait_until(refused, 30, "the refusal")
    (letter,) = spool["dead_letters"]
    assert "987654321" in letter["reason"]
    result = cli("status")
    assert result.returncode == 3
    assert letter["trace_id"] in result.stdout
    assert "987654321" in result.stdout
    assert "refused" in cli("traces").stdout
    for what in (letter["trace_id"], letter["path"], letter["trace_id"][3:13]):
        shown = cli("show", what)
        assert shown.returncode == 0
        assert "leaf  TOOL" in shown.stdout
    status = read_status(str(own_spool / spool["name"]))
    assert (status["refused"], status["dead_letters"]) == (1, 1)
    assert "is refused" in status["last_error"]["text"]


def test_refused_traces_are_sent_again(server, own_spool, run_program, cli):
    leave_traces(run_program, server.uri, environment={"MLFLOW_EXPERIMENT_NAME": "cli again"})
    folder = Path(the_spool().folder)
    os.rename(move_to_segment(folder), folder / f"refused-{'ab' * 16}.seg.refused")
    (folder / f"refused-{'ab' * 16}.txt").write_text(f"https://joe:{SECRET}@host said no")
    assert cli("status").returncode == 3
    assert cli("send").stdout == "Nothing waits.\n"
    result = cli("send", "--retry-refused")
    assert result.returncode == 0, result.stdout
    assert "1 refused trace back in line" in result.stdout
    assert len(traces_of(server.uri, "cli again")) == 3
    assert cli("status").returncode == 0


# ---- traces, show ----


def test_traces_are_printed_as_trees(own_spool, run_program, cli):
    leave_traces(run_program, "http://127.0.0.1:9", fails=1)
    lines = cli("traces", "-n", "2").stdout.splitlines()
    assert len(lines) == 6
    assert "ERROR" in lines[0]
    assert "waiting" in lines[0]
    assert lines[1].startswith("└── root [red]\\x1b[31m  AGENT")
    assert "ValueError: no" in lines[1]
    assert lines[2].startswith("    └── leaf  TOOL")
    assert "OK" in lines[3]
    traces = json.loads(cli("traces", "--json").stdout)
    assert [[span["name"] for span in trace["spans"]][1:] for trace in traces] == [["leaf"]] * 3
    assert [trace["state"] for trace in traces] == ["OK", "ERROR", "OK"]


def test_show_prints_a_file_or_a_trace(own_spool, run_program, cli):
    from mlflow.entities import Span

    leave_traces(run_program, "http://127.0.0.1:9")
    (ring,) = overview.rings_of(the_spool())
    (first, *_others) = (span for span in json.loads(cli("show", ring, "--json").stdout))
    spans = [Span.from_dict(span) for span in first["spans"]]
    assert [span.span_type for span in spans] == ["AGENT", "TOOL"]
    assert spans[1].inputs == {"n": 0}
    assert spans[1].outputs["text"].startswith("[bold]long")

    shown = cli("show", ring).stdout
    assert shown.count("leaf  TOOL") == 3
    assert 'inputs {"n": 2}' in shown
    assert 'outputs {"n": 2, "text": "[bold]long' in shown
    assert "[bold]" + "long " * 99 in shown, "off a terminal nothing is cut"
    full = cli("show", ring, "--full").stdout
    assert "[bold]" + "long " * 100 in " ".join(full.split()) + " "

    segment = move_to_segment(own_spool)
    assert cli("show", str(segment)).stdout.count("leaf  TOOL") == 3
    os.rename(segment, Path(the_spool().folder) / segment.name)
    for what in (first["trace_id"], first["trace_id"][3:].upper(), first["trace_id"][:12]):
        assert "  root [red]" in cli("show", what).stdout.partition("\n")[0]
    nothing = cli("show", "0" * 32)
    assert nothing.returncode == 1
    assert "no trace" in nothing.stderr


def test_a_beginning_that_fits_several_traces_shows_none(own_spool, run_program, cli):
    leave_traces(run_program, "http://127.0.0.1:9", traces=40)
    ids = [trace["trace_id"] for trace in json.loads(cli("traces", "-n", "40", "--json").stdout)]
    firsts = [trace_id[3] for trace_id in ids]
    digit = max(firsts, key=firsts.count)
    result = cli("show", digit)
    assert result.returncode == 1
    assert "several traces" in result.stderr


def test_damaged_and_hostile_files_are_named(own_spool, run_program, cli, tmp_path):
    leave_traces(run_program, "http://127.0.0.1:9")
    spool = the_spool()
    folder = Path(spool.folder)
    (ring,) = overview.rings_of(spool)
    with open(ring, "r+b") as file:
        file.seek(4096 + 1500)
        file.write(b"\xff" * 64)
    (Path(spool.rings) / "1-00000000.ring").write_bytes(b"MFTRING1" + b"\xff" * 9000)
    (folder / "packed-1-1.seg").write_bytes(b"MFTSEG1\0" + b"\xff" * 100)
    (folder / "packed-1-2.seg").write_bytes(b"")
    (folder / "spill-1-00000000-0.seg").write_bytes(b"nonsense" * 10)
    (folder / "status.json").write_text('{"version": "' + "9" * 5000)
    (folder / "refused-zz.seg.refused").write_bytes(b"\0" * 100)
    (folder / "packed-0-0.damaged").write_bytes(b"MFTSEG1\0\1\0\0\0\0\0\0\0")
    os.mkfifo(folder / "refused-zz.txt")
    os.mkfifo(folder / "refused-yy.seg.refused")
    os.mkfifo(folder / "packed-2-1.seg")
    (tmp_path / "link.ring").symlink_to(ring)
    result = cli("status")
    assert result.returncode == 3
    assert "damaged behind" in result.stdout
    assert "1-00000000.ring is not a ring" in result.stdout
    assert "packed-1-1.seg is" in result.stdout
    assert "status.json cannot be read" in result.stdout
    json.loads(cli("status", "--json").stdout)
    assert cli("traces").returncode == 0
    with piped("traces", "--follow", "--json", folder=tmp_path) as follower:
        assert json.loads(follower.stdout.readline())["where"] == "recorded", "what precedes damage"
        follower.send_signal(signal.SIGINT)
        _output, said = follower.communicate()
    assert follower.returncode == 0
    assert "1-00000000.ring is not a ring" in said
    assert "Traceback" not in said
    assert "damaged" in cli("show", ring).stderr
    for path, reason in (
        (tmp_path / "link.ring", "symbolic link"),
        (folder / "packed-1-2.seg", "neither a ring nor a segment"),
        (folder / "packed-1-1.seg", "damaged"),
        (folder / "status.json", "neither"),
        (folder / "refused-yy.seg.refused", "not a file"),
        (folder, "folder"),
    ):
        assert reason in cli("show", str(path)).stderr, path
    result = cli("show", "no such trace")
    assert result.returncode == 1
    assert "neither a file nor" in result.stderr


@pytest.mark.parametrize("wrong", [[], {}, {"version": 1}, {"recent": [1]}, "text", None])
def test_a_status_that_makes_no_sense_is_none(tmp_path, wrong):
    (tmp_path / "status.json").write_text(json.dumps(wrong))
    assert read_status(str(tmp_path)) is None


# ---- send ----


def test_send_delivers_what_a_running_program_holds(server, own_spool, run_program, cli, tmp_path):
    process = run_program(
        code(server.uri, then=UNTIL_GO),
        wait=False,
        MLFLOW_FASTTRACE_SENDER="none",
        MLFLOW_EXPERIMENT_NAME="cli live",
    )
    assert process.stdout.readline() == "recorded\n"
    result = cli("send")
    assert result.returncode == 0, result.stdout
    assert "6 spans of 3 traces delivered" in result.stdout
    assert len(traces_of(server.uri, "cli live")) == 3
    (spool,) = spools_of(cli)
    (ring,) = spool["agents"]
    assert (ring["alive"], ring["waiting_spans"]) == (True, 0), "its ring is still its own"
    (tmp_path / "go").touch()
    assert process.stdout.readline() == "more\n"
    assert cli("send", spool["name"][:6]).returncode == 0
    assert len(traces_of(server.uri, "cli live")) == 4
    assert cli("send", "zz").returncode == 1


def test_send_delivers_to_another_server(server, own_spool, run_program, cli):
    leave_traces(
        run_program, "http://127.0.0.1:9", environment={"MLFLOW_EXPERIMENT_NAME": "cli elsewhere"}
    )
    move_to_segment(Path(the_spool().folder))
    to = server.uri.replace("://", f"://joe:{SECRET}@")
    result = cli("send", "--timeout", "1")
    assert result.returncode == 1
    assert "http://127.0.0.1:9" in result.stdout
    assert "Nothing is lost" in result.stdout
    result = cli("send", "--to", to)
    assert result.returncode == 0, result.stdout
    assert f"{server.uri}: 6 spans of 3 traces delivered" in result.stdout
    assert len(traces_of(server.uri, "cli elsewhere")) == 3
    (spool,) = spools_of(cli)
    assert spool["destination"] == "http://127.0.0.1:9"
    assert not list(own_spool.rglob("*.seg"))
    assert f"delivered to {server.uri}" in cli("traces", "-n", "1").stdout


def test_send_tells_machines_what_came_of_it(server, own_spool, run_program, cli):
    leave_traces(
        run_program, "http://127.0.0.1:9", environment={"MLFLOW_EXPERIMENT_NAME": "cli machines"}
    )
    name = the_spool().name
    result = cli("send", "--json", "--timeout", "1")
    assert result.returncode == 1
    (spool,) = json.loads(result.stdout)["spools"]
    assert (spool["name"], spool["complete"], spool["delivered"]["spans"]) == (name, False, 0)
    assert "does not answer" in spool["reason"]
    result = cli("send", "--json", "--to", server.uri)
    assert result.returncode == 0
    (spool,) = json.loads(result.stdout)["spools"]
    assert (spool["destination"], spool["complete"], spool["reason"]) == (server.uri, True, None)
    assert (spool["delivered"]["traces"], spool["delivered"]["spans"]) == (3, 6)
    assert "6 spans of 3 traces delivered" in result.stderr
    assert json.loads(cli("send", "--json").stdout)["spools"] == []


def test_send_waits_for_the_sender_at_work(server, own_spool, run_program, cli, tmp_path):
    leave_traces(run_program, server.uri, environment={"MLFLOW_EXPERIMENT_NAME": "cli waits"})
    spool = the_spool()
    lock = life.Lock(spool.lock, stays=True)
    assert lock.take()
    command = [sys.executable, "-u", "-m", "mlflow_fasttrace", "send"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    try:
        assert "0/6 spans" in process.stdout.readline(), "it looks on"
        refused = cli("send", "--to", "http://127.0.0.1:9")
        assert refused.returncode == 1
        assert "stop it first" in refused.stdout
        sender = life.sender_for(spool.folder, spool.rings, server.uri)
        wait_until(lambda: sender.step() and sender.status.spans == 6)
        sender.status.end()
        output, _ = process.communicate()
        assert process.returncode == 0
        assert "6 spans of 3 traces delivered" in output
    finally:
        process.kill()
        lock.close()


@pytest.mark.parametrize("ends", [False, True], ids=["stays at work", "ends at once"])
def test_send_tells_all_that_the_sender_at_work_delivered(
    server, own_spool, run_program, monkeypatch, ends
):
    leave_traces(run_program, server.uri, environment={"MLFLOW_EXPERIMENT_NAME": "cli account"})
    spool = the_spool()
    lock = life.Lock(spool.lock, stays=True)
    assert lock.take()
    looks = []
    monkeypatch.setattr(foreground, "read_status", lambda f: looks.append(f) or read_status(f))
    with ThreadPoolExecutor() as executor:
        outcome = executor.submit(foreground.deliver, spool, server.uri, lambda progress: None)
        try:
            wait_until(lambda: len(looks) >= 2)
            sender = life.sender_for(spool.folder, spool.rings, server.uri)
            sender.status.tick = lambda figures: None  # it was written less than a second ago
            wait_until(lambda: sender.step() and not overview.something_waits(spool))
            if not ends:
                seen = len(looks)
                wait_until(lambda: len(looks) >= seen + 3)
            sender.status.end()
            if not ends:
                outcome.result(600)
        finally:
            lock.close()
        assert (outcome.result(600).complete, outcome.result().progress.spans) == (True, 6)


def test_send_leaves_a_trace_that_tail_sampling_has_to_decide_about(
    server, run_program, cli, tmp_path
):
    then = """
with mlflow.start_span("open"):
    leaf(1)
    print("open", flush=True)
    while not os.path.exists("go"): time.sleep(0.01)
print("closed", flush=True)
sys.stdin.read()
"""
    process = run_program(
        code(server.uri, traces=1, then=then, fails=0),
        wait=False,
        MLFLOW_FASTTRACE_SENDER="none",
        MLFLOW_FASTTRACE_KEEP="error,slow>1ms",
        MLFLOW_EXPERIMENT_NAME="cli kept",
    )
    assert [process.stdout.readline() for _ in range(2)] == ["recorded\n", "open\n"]
    result = cli("send")
    assert result.returncode == 0, result.stdout
    assert "2 spans of 1 trace delivered; 1 trace will be sent when finished" in result.stdout
    (tmp_path / "go").touch()
    assert process.stdout.readline() == "closed\n"
    assert cli("send").returncode == 0
    found = traces_of(server.uri, "cli kept")
    assert [len(trace.data.spans) for trace in found] == [2, 2]
    (spool,) = spools_of(cli)
    assert spool["delivered"]["spans"] == 4


def test_send_delivers_to_a_collector(own_spool, run_program, cli):
    variables = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={SECRET}",
    }
    with Receiver() as receiver:
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.uri, **variables}
        leave_traces(run_program, "http://127.0.0.1:9", environment=environment)
        assert cli("status").stdout.startswith(f"otlp+{receiver.uri}/v1/traces\n")
        result = cli("send", **variables)
        assert result.returncode == 0, result.stdout
        assert "6 spans of 3 traces delivered" in result.stdout
        assert len(receiver.spans()) == 6
        assert receiver.headers[0]["authorization"] == SECRET


def test_send_shows_progress_in_a_terminal(server, own_spool, run_program, tmp_path):
    leave_traces(run_program, server.uri, environment={"MLFLOW_EXPERIMENT_NAME": "cli terminal"})
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow_fasttrace", "send"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "120"},
    )
    os.close(theirs)
    output = b""
    try:
        while chunk := os.read(ours, 65536):
            output += chunk
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    assert "━".encode() in output
    assert b"/6 spans" in output
    assert b"6 spans of 3 traces delivered" in output


# ---- the sender's log ----


def test_the_log_is_bounded_and_keeps_secrets(tmp_path):
    program = f"""
import logging, sys
from mlflow_fasttrace._internal.sender import __main__ as sender
print("before logging", flush=True)
sender.LOG_BYTES = 2000
def work(*_, **__):
    for n in range(100):
        logging.getLogger("mlflow_fasttrace.sender").error("%d http://joe:{SECRET}@host/x", n)
    print("past logging", file=sys.stderr, flush=True)
sender.run_sender = work
sys.argv = ["sender", {str(tmp_path)!r}, "rings"]
sender.main()
"""
    with open(tmp_path / "sender.log", "ab") as log:
        subprocess.run(
            [sys.executable, "-c", program],
            stdout=log,
            stderr=log,
            check=True,
            env={**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"},
        )
    logs = sorted(tmp_path.glob("sender.log*"))
    assert [path.name for path in logs] == ["sender.log", "sender.log.1"]
    texts = [path.read_text() for path in logs]
    assert all(len(text) < 3000 and SECRET not in text for text in texts)
    assert "99 http://host/x" in texts[0]
    assert texts[0].endswith("past logging\n")
    assert logs[0].stat().st_mode & 0o777 == 0o600
