"""One wheel for every Python: tagged cp310-abi3, nothing outside the Limited API, run on each. And those for other
platforms that `make wheels` builds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import platformdirs
import pytest
from support.processes import ROOT, TESTS
from support.pythons import (
    EACH_VERSION,
    OWN_VERSION,
    VERSIONS,
    interpreter,
    new_venv,
    pip_install,
    venv_of,
)
from support.servers import OTHER_RELEASES


def test_the_wheel_is_tagged_for_every_python(wheel):
    assert "-cp310-abi3-" in wheel.name


def test_the_wheel_keeps_to_the_limited_api(wheel):
    audit = [sys.executable, "-m", "abi3audit", "--strict", wheel]
    result = subprocess.run(audit, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_wheel_has_stubs_for_type_checkers(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for module in ("", "entities/", "genai/scorers/", "tracing/fluent/"):
        assert f"mlflow_fasttrace-stubs/{module}__init__.pyi" in names


def test_the_core_compiles_for_a_python_without_the_gil():
    """With the headers of an ordinary one: they are the same but for one macro."""
    python = interpreter("3.13")
    if python is None:
        pytest.skip("Python 3.13 is not installed here")
    ask = "import sysconfig; print(sysconfig.get_path('include'))"
    headers = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    compiler = ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-Iext"]
    result = subprocess.run(
        [
            *(*compiler, "-DPy_GIL_DISABLED=1", f"-I{headers.stdout.strip()}"),
            *sorted(ROOT.glob("ext/**/*.c")),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("version", EACH_VERSION)
def test_the_wheel_runs_on_this_python(wheel, own_spool, tmp_path, version):
    installed_runs(wheel, version, tmp_path)


def installed_runs(wheel: Path, version: str, folder: Path) -> None:
    """Installs a wheel for a Python, and runs a program with nothing else."""
    python = venv_of(version, folder / "venv")
    pip_install(python, "platformdirs>=4")
    pip_install(python, "--no-deps", wheel)
    runs([python], folder, "")


def runs(python: list[str | Path], folder: Path, modules: str) -> str:
    """Runs a program that records every kind of span; what it wrote to its standard error.

    Args:
        python: The command.
        folder: Where it runs.
        modules: Its PYTHONPATH.
    """
    result = subprocess.run(
        [*python, "-X", "dev", TESTS / "programs/wheel_smoke.py"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": modules, "MLFLOW_FASTTRACE_SENDER": "none"},
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("ran on")
    return result.stderr


# ---- what `make wheels` has built ----


def built(ending: str) -> Path:
    """A file in dist/; the test is skipped where `make wheels` has not been called."""
    found = list((ROOT / "dist").glob(f"*{ending}"))
    if not found:
        pytest.skip("make wheels has not been called")
    assert len(found) == 1
    return found[0]


def core_of(wheel: Path) -> bytes:
    return zipfile.ZipFile(wheel).read("mlflow_fasttrace/_core.abi3.so")


@pytest.mark.long
@pytest.mark.parametrize("version", VERSIONS)
def test_the_manylinux_wheel_runs_on_this_python(own_spool, tmp_path, version):
    installed_runs(built("manylinux_2_28_x86_64.whl"), version, tmp_path)


@pytest.mark.long
def test_the_wheel_leaves_an_older_mlflow_as_it_is(own_spool, tmp_path):
    """pip changes nothing of it, and what then arrives is what arrives without this package."""
    python = venv_of(OWN_VERSION, tmp_path / "venv")
    (oldest, *_) = OTHER_RELEASES
    pip_install(python, f"mlflow=={oldest}")
    before = [
        in_venv(python, tmp_path, VERSIONS_OF_MLFLOW),
        in_venv(python, tmp_path, TRACES, "mlflow"),
    ]
    pip_install(python, built("manylinux_2_28_x86_64.whl"))
    assert [
        in_venv(python, tmp_path, VERSIONS_OF_MLFLOW),
        in_venv(python, tmp_path, TRACES, "mlflow_fasttrace"),
    ] == before
    assert f'"mlflow-tracing": "{oldest}"' in before[0]
    assert '"ERROR"' in before[1]


VERSIONS_OF_MLFLOW = """
import json, mlflow
from importlib.metadata import version
print(json.dumps({name: version(name) for name in ("mlflow", "mlflow-tracing", "mlflow-skinny")}))
"""

TRACES = """
import importlib, json, sys
mlflow = importlib.import_module(sys.argv[1])
mlflow.set_tracking_uri(f"sqlite:///{sys.argv[1]}.db")

@mlflow.trace(span_type="TOOL")
def search(question, *, limit=3):
    with mlflow.start_span("rank", attributes={"k": [1]}) as span:
        span.set_outputs({"best": question})
    if limit is None:
        raise ValueError("no limit")
    return [question] * limit

search("why")
try:
    search("why", limit=None)
except ValueError:
    pass
mlflow.flush_trace_async_logging()
found = mlflow.search_traces(return_type="list")
print(json.dumps(sorted(
    [trace.info.state, trace.info.request_preview, trace.info.response_preview]
    + [[span.name, span.status.status_code.name, span.inputs, span.outputs, span.span_type]
       for span in sorted(trace.data.spans, key=lambda span: span.start_time_ns)]
    for trace in found
)))
"""


def in_venv(python: str, folder: Path, program: str, *arguments: str) -> str:
    """What a program prints."""
    result = subprocess.run(
        [python, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.long
def test_the_wheel_of_another_processor_runs_there(own_spool, tmp_path):
    wheel = built("manylinux_2_28_aarch64.whl")
    root = ROOT / ".pythons/aarch64"
    if not root.exists():
        pytest.skip("there is no Python for that processor here (.ci/other_pythons.py)")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "site/platformdirs").symlink_to(Path(platformdirs.__file__).parent)
    python = ["qemu-aarch64", "-L", root, root / "usr/bin/python3"]
    runs(python, tmp_path, str(tmp_path / "site"))


@pytest.mark.long
@pytest.mark.parametrize(
    ("ending", "begins"),
    [
        # ELF and its number for the processor, or Mach-O and its.
        ("manylinux_2_28_x86_64.whl", b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e"),
        ("manylinux_2_28_aarch64.whl", b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7"),
        ("musllinux_1_2_x86_64.whl", b"\x7fELF\x02\x01\x01" + bytes(11) + b"\x3e"),
        ("musllinux_1_2_aarch64.whl", b"\x7fELF\x02\x01\x01" + bytes(11) + b"\xb7"),
        ("macosx_11_0_x86_64.whl", b"\xcf\xfa\xed\xfe\x07\0\0\x01"),
        ("macosx_11_0_arm64.whl", b"\xcf\xfa\xed\xfe\x0c\0\0\x01"),
    ],
)
def test_a_wheel_has_the_core_of_its_platform(ending, begins):
    core = core_of(built(ending))
    of_processor = core[:16] + bytes(2) + core[18:19] if core[:4] == b"\x7fELF" else core[:8]
    assert of_processor == begins
    assert b"PyInit__core" in core
    assert b"libzstd" not in core
    assert (b"GLIBC_2." in core) == ("manylinux" in ending)


@pytest.mark.long
def test_a_wheel_says_what_is_compiled_in():
    archive = zipfile.ZipFile(built("manylinux_2_28_x86_64.whl"))
    (bill,) = [name for name in archive.namelist() if name.endswith(".cdx.json")]
    components = json.loads(archive.read(bill))["components"]
    assert [component["name"] for component in components] == ["zstd", "msgpack-c"]
    licenses = {name.rpartition("/")[2] for name in archive.namelist() if "/licenses/" in name}
    assert licenses >= {"LICENSE", "zstd.txt", "msgpack-c.txt"}


@pytest.mark.long
def test_a_python_without_the_gil_switches_it_on(own_spool, tmp_path):
    python = ROOT / ".pythons/free/bin/python3.13"
    if not python.exists():
        pytest.skip("there is no Python without the GIL here (.ci/other_pythons.py)")
    installed = new_venv(python, tmp_path / "venv")
    pip_install(installed, "platformdirs>=4")
    pip_install(installed, "--no-deps", built(".tar.gz"))
    assert "has been enabled to load module 'mlflow_fasttrace._core'" in runs(
        [installed], tmp_path, ""
    )


@pytest.mark.long
def test_the_wheel_for_every_platform_runs_on_mlflow_itself(own_spool, tmp_path):
    zipfile.ZipFile(built("-none-any.whl")).extractall(tmp_path / "site")
    program = """
import mlflow_fasttrace as mlflow
mlflow.set_tracking_uri("sqlite:///mlflow.db")
with mlflow.start_span("root", span_type=mlflow.SpanType.TOOL) as span:
    pass
mlflow.flush_trace_async_logging()
print(mlflow.__file__, mlflow.get_trace(span.trace_id).data.spans[0].name)
"""
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("this installation has no C core") == 1
    assert result.stdout.split() == [str(tmp_path / "site/mlflow_fasttrace/__init__.py"), "root"]


@pytest.mark.long
def test_the_source_distribution_is_whole_and_builds_by_itself(own_spool, tmp_path):
    sdist = built(".tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    assert set(kept.stdout.split()) - names == set()
    assert "ext/msgpack-c/msgpack/pack_template.h" in names
    # Without --no-build-isolation: with what pyproject.toml says that building needs.
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path]
    subprocess.run([*pip, sdist], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed_runs(wheel, OWN_VERSION, tmp_path)
