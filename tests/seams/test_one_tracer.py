"""One process, one tracer: a program whose traces go to the core by this package's functions, and another module of it
that imports MLflow itself."""

from __future__ import annotations

import json

import pytest

PROGRAM = """
import json
{before}
import mlflow_fasttrace

@mlflow_fasttrace.trace
def outer():
    {inside}
    with mlflow.start_span("inner") as inner:
        return [mlflow_fasttrace.get_current_active_span() is inner, inner.parent_id, inner.trace_id]

is_current, parent_id, trace_id = outer()
one_trace = trace_id == mlflow_fasttrace.get_last_active_trace_id()
{after}
with mlflow_fasttrace.start_span("of this package"):
    pass
import mlflow
with mlflow.start_span("of MLflow") as span:
    pass
print(json.dumps([is_current, parent_id is not None, one_trace, type(span).__module__]))
"""


@pytest.mark.parametrize(
    ("before", "inside", "after", "expected"),
    [
        ("import mlflow", "pass", "", "mlflow_fasttrace._core"),
        ("", "import mlflow", "", "mlflow_fasttrace._core"),
        ("import mlflow", "pass", "mlflow_fasttrace.uninstall()", "mlflow.entities.span"),
    ],
    ids=["imported before", "imported in the middle", "given back"],
)
def test_a_module_that_imports_mlflow_shares_the_trace(
    run_program, tmp_path, before, inside, after, expected
):
    program = PROGRAM.format(before=before, inside=inside, after=after)
    result = run_program(program, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/mlflow.db")
    assert result.returncode == 0, result.err
    assert json.loads(result.out.splitlines()[-1]) == [True, True, True, expected]
