"""A spool folder on a network that hangs does not stop the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from support.processes import module_path
from support.shims import build_shim

#: Records more than the ring holds while the folder hangs, and goes on when it answers.
PROGRAM = """
import json, os, sys, threading, time
from pathlib import Path
from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.recording import destination
from support.records import numbers_in, record_number
from support.waiting import wait_until

folder, sign, forks = Path(sys.argv[1]), Path(os.environ["HANGS_WHILE"]), sys.argv[2] == "forks"
path = folder / "1-00000000.ring"
spool = folder / "hangs"
writer = _core.RingWriter(path, 64 << 10, spool / "spill-1-00000000")
reader = _core.RingReader(path)
_core.set_destination(writer, {"uri": "test", "experiment": {"id": "0"}})
sign.touch()
for n in range(1000):
    record_number(n, size=500)
refused, refused_traces = writer.progress()[6:]
threads = len(os.listdir("/proc/self/task"))
if forks:
    pid = os.fork()
    if pid == 0:
        destination.reset()
        del writer
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
sign.unlink()

found = numbers_in(reader)
reader.release(reader.cursor)

def has_answered():
    record_number(1000, size=500)
    return list(spool.glob("spill-*-000001.seg"))

wait_until(has_answered, 20, "a segment")
found += numbers_in(reader)
for segment in sorted(spool.glob("spill-*.seg")):
    found += numbers_in(_core.SegmentReader(segment))
destination.reset()
print(json.dumps({
    "refused": refused,
    "refused_traces": refused_traces,
    "threads": threads,
    "found": found,
    "segments": sorted(path.name for path in spool.iterdir()),
}))
"""


@pytest.mark.parametrize("forks", ["forks", "does not fork"])
def test_a_folder_that_hangs_does_not_stop_the_program(tmp_path, forks):
    """The program waits a moment, once, and refuses what finds no place; what it has accepted is in
    the ring, and when the folder answers it is written to again."""
    (tmp_path / "hangs").mkdir()
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path), forks],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": module_path(),
            "LD_PRELOAD": build_shim("hanging_folder", tmp_path),
            "HANGS_WHILE": str(tmp_path / "sign"),
        },
    )
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout)
    assert said["refused_traces"] > 0
    accepted = [n for n in said["found"] if n < 1000]
    assert accepted == list(range(len(accepted))), "the first ones, each of them once"
    assert len(accepted) == 1000 - said["refused_traces"]
    assert said["found"].count(1000) > 50, "what comes afterwards"
    assert said["segments"] == ["spill-1-00000000-000001.seg"], "the number given up is not used"
    assert said["threads"] <= 2, "one hangs, and no other is started"
