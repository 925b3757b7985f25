"""Calls that MLflow warns of, each on a line of its own: prints the line and the kind of each warning.

python -m programs.deprecated mlflow|mlflow_fasttrace
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from typing import Any

warnings.simplefilter("always")
mlflow: Any = importlib.import_module(sys.argv[1])


def show(message: Any, category: type, filename: str, lineno: int, *_rest: Any) -> None:
    if category is FutureWarning:
        place = lineno if filename == __file__ else filename
        print(place, str(message).partition(" is deprecated")[0].partition(" of ")[0])


warnings.showwarning = show

with mlflow.start_span("some") as span:
    pass
with contextlib.suppress(Exception):
    mlflow.get_trace(request_id=span.trace_id)
with contextlib.suppress(Exception):
    mlflow.search_traces(experiment_ids=["0"])
with contextlib.suppress(Exception):
    mlflow.set_trace_tag(request_id=span.trace_id, key="a", value="b")
with contextlib.suppress(Exception):
    mlflow.delete_trace_tag(request_id=span.trace_id, key="a")
mlflow.log_trace("old")
