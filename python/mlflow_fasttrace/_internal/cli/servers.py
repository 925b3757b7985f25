"""Traces as the servers have them that they were delivered to, read by MLflow's client with what the
environment signs in with."""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from mlflow_fasttrace._internal.base.imports import imported
from mlflow_fasttrace._internal.base.texts import one_line
from mlflow_fasttrace._internal.config import environment, otlp
from mlflow_fasttrace._internal.config.uris import (
    absolute_uri,
    without_credentials,
    without_secrets,
)
from mlflow_fasttrace._internal.spool.traces import SpanView, TraceView, figures_in

_ANSWER_SECONDS = "10"  # that a server has, unless the environment says otherwise
_STATUS_NAMES = {"STATUS_CODE_OK": "OK", "STATUS_CODE_ERROR": "ERROR"}
_USAGE, _COST = "mlflow.chat.tokenUsage", "mlflow.llm.cost"
_FILES = "sqlite:///"


class Unanswered(Exception):
    """A server does not give a trace; the message says why, in one line."""


def with_credentials(destination: str) -> str:
    """The destination that a record names, with the user and password of the environment's URI where
    that is the same one."""
    given = environment.tracking_uri()
    uris = [absolute_uri(given) if given else None, otlp.collector_uri()]
    matching = (uri for uri in uris if uri and without_credentials(uri) == destination)
    return next(matching, destination)


def can_be_asked(destination: str) -> bool:
    """Whether a destination is one that traces can be read from, and that this does not make."""
    if destination.startswith(_FILES):
        return os.path.isfile(destination[len(_FILES) :].partition("?")[0])
    return not otlp.is_collector(destination)


def link_to(destination: str, experiment_id: str | None, trace_id: str) -> str | None:
    """The address of a trace in MLflow's UI; None where the destination has none."""
    if not destination.startswith(("http://", "https://")) or experiment_id is None:
        return None
    place = f"#/experiments/{quote(experiment_id, safe='')}/traces"
    return f"{destination.rstrip('/')}/{place}?selectedEvaluationId={quote(trace_id, safe='')}"


class Servers:
    """Asks servers, each for as long as it answers."""

    def __init__(self) -> None:
        self._silent: dict[str, str] = {}  # the reasons, by destination
        self._experiments: dict[tuple[str, str], str | None] = {}

    def trace(self, destination: str, trace_id: str) -> TraceView | None:
        """A trace that a server has.

        Args:
            destination: Its tracking URI, without credentials.
            trace_id: As MLflow writes it.

        Returns:
            None where the server answers and has no such trace.

        Raises:
            Unanswered: It does not answer, or refuses.
        """
        found = self._ask(destination, lambda client: _get_trace(client, trace_id))
        try:
            return None if found is None else _view_of(found, destination)
        except (ValueError, TypeError, AttributeError) as error:
            raise Unanswered(f"{trace_id} cannot be shown: {one_line(error)}") from None

    def experiment_name(self, destination: str, experiment_id: str) -> str | None:
        """The name of an experiment; None where nobody says it."""
        key = destination, experiment_id
        if key not in self._experiments:
            try:
                found = self._ask(destination, lambda client: _get_experiment(client, key[1]))
            except Unanswered:
                found = None
            self._experiments[key] = found
        return self._experiments[key]

    def _ask(self, destination: str, question: Any) -> Any:
        if destination in self._silent:
            raise Unanswered(self._silent[destination])
        if not can_be_asked(destination):
            raise Unanswered(f"{destination} is not a server that traces can be read from")
        try:
            with _mlflow_at(destination) as client:
                return question(client)
        except Exception as error:  # MLflow's client may raise anything of a library below it
            reason = one_line(without_secrets(str(error))) or type(error).__name__
            self._silent[destination] = f"{destination} does not give it: {reason}"
            raise Unanswered(self._silent[destination]) from None


@contextmanager
def _mlflow_at(destination: str) -> Iterator[Any]:
    """MLflow's client for a destination; None where only MLflow's tracing package is installed. It is
    never traced, asks once, and says nothing."""
    environment.disable()
    environment.stop_retries_of_mlflow()
    uri = with_credentials(destination)
    variables = {"MLFLOW_TRACKING_URI": uri}
    if environment.request_seconds() is None:
        variables["MLFLOW_HTTP_REQUEST_TIMEOUT"] = _ANSWER_SECONDS
    with warnings.catch_warnings(), environment.changed(**variables):
        warnings.simplefilter("ignore")
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        import mlflow

        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        tracking = imported("mlflow.tracking")
        make = getattr(tracking, "MlflowClient", None)
        if make is None:
            mlflow.set_tracking_uri(uri)
        yield make(tracking_uri=uri) if make is not None else None


def _get_trace(client: Any, trace_id: str) -> Any:
    import mlflow
    from mlflow.exceptions import MlflowException

    if client is None:
        return mlflow.get_trace(trace_id, silent=True)
    try:
        return client.get_trace(trace_id, display=False)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND"):
            return None
        raise


def _get_experiment(client: Any, experiment_id: str) -> str | None:
    if client is None:
        return None
    return str(client.get_experiment(experiment_id).name)


def _view_of(trace: Any, destination: str) -> TraceView:
    """What MLflow's client has read, as what is read here."""
    info = trace.info
    view = TraceView(bytes.fromhex(info.trace_id.removeprefix("tr-")), "delivered")
    view.destination = destination
    view.state = str(getattr(info.state, "value", info.state))
    view.start_ns = info.request_time * 1_000_000
    duration = info.execution_duration
    view.duration_ns = None if duration is None else duration * 1_000_000
    experiment_id = info.experiment_id
    view.experiment = {} if experiment_id is None else {"id": str(experiment_id)}
    view.info = {
        "tags": dict(sorted(info.tags.items())),
        "metadata": dict(sorted(info.trace_metadata.items())),
        "request_preview": info.request_preview,
        "response_preview": info.response_preview,
        "client_request_id": info.client_request_id,
        "assessments": [assessment.to_dictionary() for assessment in info.assessments or ()],
    }
    for span in trace.data.spans:
        view.add_span(_span_view(span))
    view.name = info.tags.get("mlflow.traceName") or _name_of_root(view)
    ends = [span.end_ns for span in view.spans.values()]
    starts = [span.start_ns for span in view.spans.values()]
    if starts and duration is not None:  # the server keeps milliseconds
        view.start_ns = min(starts)
        roots = [span for span in view.spans.values() if span.parent_id is None]
        if len(roots) == 1:
            view.duration_ns = roots[0].end_ns - roots[0].start_ns
    view.last_ns = max([*ends, view.begun_ns() + (view.duration_ns or 0)])
    return view


def _name_of_root(view: TraceView) -> str:
    return next((span.name for span in view.spans.values() if span.parent_id is None), "")


def _span_view(span: Any) -> SpanView:
    status = span.status.status_code.to_otel_proto_status_code_name()
    return SpanView(
        span_id=bytes.fromhex(span.span_id),
        parent_id=bytes.fromhex(span.parent_id) if span.parent_id else None,
        name=str(span.name),
        type=str(span.span_type or ""),
        start_ns=span.start_time_ns,
        end_ns=span.end_time_ns or span.start_time_ns,
        status=_STATUS_NAMES.get(status, "UNSET"),
        message=str(span.status.description or ""),
        usage=figures_in(span.get_attribute(_USAGE)),
        cost=figures_in(span.get_attribute(_COST)),
        text=json.dumps(span.to_dict()),
    )
