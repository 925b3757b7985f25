"""Programs that lack what others have: a working folder, arguments, a home, descriptors, threads, processes.
What can be recorded is, what cannot costs a line, and nothing is raised into the program."""

from __future__ import annotations

import json
import os
import shutil
import tempfile

import pytest
from support.otlp_receiver import Receiver, spans_of
from support.spools import sender_pids
from support.texts import without_origin

BEGINNING = """
import faulthandler, json, os, sys, time
import mlflow_fasttrace as mlflow
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from mlflow_fasttrace._internal.recording.flush import flush
from mlflow_fasttrace._internal.recording.rings import rings
faulthandler.dump_traceback_later(100, exit=True)
mlflow.start_span  # imports what the function needs

def records():
    with mlflow.start_span("span") as span:
        return type(span) is _core.LiveSpan
"""


@pytest.fixture
def collector():
    with Receiver() as receiver:
        yield receiver


@pytest.fixture
def run(run_program, collector, own_spool):
    def run(code: str, **environment: str):
        program = run_program(
            BEGINNING + code,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{collector.uri}/v1/traces",
            OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
            **environment,
        )
        assert program.returncode == 0, program.err
        return json.loads(program.out.splitlines()[-1]), without_origin(program.err).splitlines()

    return run


@pytest.mark.parametrize(
    "lack",
    [
        "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
        "del sys.argv",
        "sys.argv = []",
        "sys.argv = [None]",
        "sys.argv = None",
        "os.close(0)",
        "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    ],
)
def test_a_program_that_lacks_something_is_recorded(lack, run, collector):
    result, lines = run(f"{lack}\nprint(json.dumps([records(), flush(60)]))")
    assert result == [True, True]
    assert lines == []
    assert len(collector.requests) == 1


def test_a_sender_keeps_no_descriptor_of_its_program(run, own_spool):
    """One that C code opened is not closed by an exec."""
    code = """
reader, writer = os.pipe()
os.set_inheritable(writer, True)
result = [records(), flush(60)]
(lock,) = [f for f in os.scandir(rings.in_use[next(iter(rings.in_use))].spool.folder) if "lock" in f.name]
pid = open(lock.path).read().split()[0]
session = int(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[3])
links = [os.readlink(fd.path) for fd in os.scandir(f"/proc/{pid}/fd")]
kept = os.readlink(f"/proc/self/fd/{writer}") in links
print(json.dumps([*result, kept, session != os.getsid(0)]))
"""
    result, _ = run(code)
    assert result == [True, True, False, True]


@pytest.fixture
def folder_of_all():
    """A folder that every user may write to."""
    folder = tempfile.mkdtemp(dir="/tmp")
    os.chmod(folder, 0o777)
    yield folder
    shutil.rmtree(folder)


def test_a_user_without_a_home_has_a_spool_folder(run, folder_of_all):
    """Its id has no entry in the password database, and no variable names a home."""
    code = """
records()
first = flush(60)
import copy, getpass, platformdirs, pwd, tempfile, zipimport
for name in ("HOME", "LOGNAME", "USER", "LNAME", "USERNAME", "XDG_STATE_HOME"):
    os.environ.pop(name, None)
del os.environ["MLFLOW_FASTTRACE_SPOOL_DIR"]
os.environ["OTEL_EXPORTER_OTLP_HEADERS"] = "x-other=1"  # credentials: another spool
os.environ["MLFLOW_FASTTRACE_SENDER"] = "none"
tempfile.tempdir = None
os.setgid(54321)
os.setuid(54321)
destination.reset()
recorded = records()
(ring,) = [ring for ring in rings if "54321" in ring.spool.folder]
mode = os.stat(os.path.dirname(ring.spool.folder)).st_mode & 0o777
import shutil
shutil.rmtree(os.path.dirname(ring.spool.rings))
print(json.dumps([first, recorded, mode, ring.spool.folder]))
"""
    (first, recorded, mode, folder), lines = run(code, TMPDIR=folder_of_all)
    assert [first, recorded, mode] == [True, True, 0o700]
    assert folder.startswith(f"{folder_of_all}/mlflow-fasttrace-54321/")
    assert lines == []


def test_without_descriptors_memory_takes_what_is_recorded(run, collector):
    code = """
import resource
before = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))
recorded = [records() for _ in range(100)]
resource.setrlimit(resource.RLIMIT_NOFILE, before)
print(json.dumps([all(recorded), records(), flush(60)]))
"""
    result, lines = run(code)
    assert result == [True, True, True]
    assert len([line for line in lines if "is kept in memory" in line]) == 1
    assert all("Too many open files" in line for line in lines)
    assert sum(len(spans_of(request)) for request in collector.requests) == 101


#: Nothing can be recorded until ``destination.describe`` is as it was.
FAILS = """
describe = destination.describe
def fails(*args):
    raise OSError(24, "Too many open files")
destination.describe = fails
"""


def test_recording_begins_once_the_cause_is_gone(run, collector):
    code = """
began = time.process_time()
recorded = [records() for _ in range(2000)]
spent = time.process_time() - began
destination.describe = describe
deadline = time.monotonic() + 600
while not records() and time.monotonic() < deadline:
    pass
print(json.dumps([any(recorded), records(), flush(60), spent < 2000 * 100e-6]))
"""
    result, lines = run(FAILS + code)
    assert result == [False, True, True, True]
    assert len([line for line in lines if "not recorded" in line]) == 1
    assert "Too many open files" in lines[0]
    assert collector.requests


def test_a_first_failure_is_tried_again_at_the_next_root(run):
    code = """
failed = records()
destination.describe = describe
print(json.dumps([failed, records()]))
"""
    assert run(FAILS + code)[0] == [False, True]


#: No thread's stack finds room from here on.
NO_THREADS = """
import resource, threading, concurrent.futures.thread
from mlflow_fasttrace._internal.sender import life
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (6 << 20), resource.RLIM_INFINITY))
try:
    threading.Thread(target=int).start()
    raise SystemExit("a thread was started")
except RuntimeError:
    pass
"""


@pytest.mark.parametrize(
    ("sender", "executable"), [("thread", "sys.executable"), ("process", "None")]
)
def test_a_flush_without_any_sender_is_false_at_once_and_says_so(
    sender, executable, run, collector, own_spool
):
    code = f"""
import mlflow_fasttrace.otel
sys.executable = {executable}
{NO_THREADS}
recorded = records()
began = time.monotonic()
results = [flush(60), flush(60)]
print(json.dumps([recorded, results, time.monotonic() - began < 50]))
"""
    result, lines = run(code, MLFLOW_FASTTRACE_SENDER=sender, MLFLOW_FASTTRACE_RING_BYTES="65536")
    assert result == [True, [False, False], True]
    said = [line for line in lines if "no sender can be started" in line]
    assert len(said) == 1
    assert "can't start new thread" in said[0]
    assert collector.requests == []
    assert sender_pids(own_spool) == []


def test_a_python_that_is_gone_is_not_started(run, collector):
    code = """
sys.executable = "/no/such/python"
print(json.dumps([records(), flush(60)]))
"""
    result, lines = run(code)
    assert result == [True, True]
    assert "/no/such/python cannot be run: a thread of this program delivers." in lines
    assert len(collector.requests) == 1


def test_an_error_of_a_flush_is_a_line(run):
    """A broken finder stands for all that may be wrong with a program."""
    code = """
records()
os.environ["MLFLOW_FASTTRACE_SENDER"] = "thread"
rings.in_use.clear()
rings.in_use[0] = None
print(json.dumps(flush(1)))
os._exit(0)
"""
    code = code.replace("print(json.dumps(flush(1)))", "print(json.dumps(flush(1)), flush=True)")
    result, lines = run(code)
    assert result is False
    assert any("Delivery cannot be waited for (AttributeError" in line for line in lines)
