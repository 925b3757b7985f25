"""Delivery to an MLflow tracking server: OTLP for spans, StartTraceV3 for a trace's info.

access.py says who the server is and how one signs in, connection.py makes the requests.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any
from urllib.parse import quote

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base.texts import one_line
from mlflow_fasttrace._internal.base.version import release_of
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.config.uris import without_credentials
from mlflow_fasttrace._internal.sender.access import Access, EnvironmentAccess
from mlflow_fasttrace._internal.sender.answers import Answer, check, reason_of
from mlflow_fasttrace._internal.sender.artifacts import Artifacts, upload_artifacts
from mlflow_fasttrace._internal.sender.connection import Connection
from mlflow_fasttrace._internal.sender.destinations import INFOS_AT_ONCE
from mlflow_fasttrace._internal.sender.exceptions import (
    Inexact,
    Rejected,
    Unavailable,
    Unsupported,
)
from mlflow_fasttrace._internal.sender.trace_infos import InfoDict, start_trace_body
from mlflow_fasttrace._internal.sender.transport import Body, compressed, size_of
from mlflow_fasttrace._internal.spool.changes import Change

logger = logging.getLogger("mlflow_fasttrace.sender")

_SPANS_PATH = "/v1/traces"
_EXPERIMENT_HEADER = "x-mlflow-experiment-id"
_TRACES_PATH = "/api/3.0/mlflow/traces"
_TAGS_PATH = "/api/2.0/mlflow/traces/{}/tags"
_EXPERIMENTS_PATH = "/api/2.0/mlflow/experiments"
_LOOK_UP_PATH = f"{_EXPERIMENTS_PATH}/get-by-name"
_COMPRESS_FROM = 64 << 10  # bytes, on a network; on loopback compression costs more than it saves
_FILES_SECONDS = 600.0  # for which a server counts as one without OTLP before it is asked again
_NO_OTLP_STATUS = frozenset({404, 405, 501})
_VERSION = re.compile(rb"\d+\.\d+[\w.+-]{0,40}\s*")


class HttpDestination:
    """An MLflow tracking server.

    Args:
        uri: Its URI, with credentials if it holds any.

    Raises:
        Exception: of any kind; the settings for it cannot be used.
    """

    infos_at_once = INFOS_AT_ONCE
    new_infos_at_once = 0

    def __init__(self, uri: str):
        self._uri = uri
        access = _access_to(uri)
        self._connection = Connection(access, self.infos_at_once)
        self._name = without_credentials(access.host.uri)  # for log lines
        self._loopback = bool(re.match(r"https?://(127\.0\.0\.1|localhost|\[::1\])", self._name))
        self._files_until = float("-inf")
        self._adds_up_usage: bool | None = None

    @property
    def takes_spans(self) -> bool:
        """False for a while after the server has shown that it has no OTLP."""
        return time.monotonic() >= self._files_until

    def _request(
        self, path: str, body: Body | None, headers: dict[str, str], method: str = "POST"
    ) -> Answer:
        return self._begin(path, body, headers, method)()

    def _begin(
        self, path: str, body: Body | None, headers: dict[str, str], method: str = "POST"
    ) -> Callable[[], Answer]:
        """Makes a request; what is returned waits for the answer."""
        if body and not self._loopback and size_of(body) >= _COMPRESS_FROM:
            body = compressed(body)
            headers = {**headers, "Content-Encoding": "gzip"}
        return self._connection.begin(method, path, body, headers)

    def _checked(self, path: str, answer: Answer) -> Answer:
        """Gives an answer back whose status is 200.

        Raises:
            Unavailable, Forbidden, Rejected, TransientError, TooLarge: See ``answers.check``.
            Unsupported: The server has no OTLP.
        """
        if answer.status in (401, 403):
            self._connection.sign_in_anew()
        if path == _SPANS_PATH and answer.status in _NO_OTLP_STATUS:
            self._check_for_otlp(answer)
        check(answer, self._name + path)
        return answer

    def _check_for_otlp(self, answer: Answer) -> None:
        """Finds out who says that nothing takes spans: MLflow, which has no OTLP then, or a proxy."""
        if answer.error_code():
            return
        reason = reason_of(answer, self._name + _SPANS_PATH)
        if not answer.is_of_mlflow() and not self._is_mlflow():
            raise Unavailable(reason, answer.retry_after(), kind=answer.status)
        self._files_until = time.monotonic() + _FILES_SECONDS
        logger.info("traces go as files, whole, since %s", reason)
        raise Unsupported(reason)

    def _is_mlflow(self) -> bool:
        """Whether MLflow is there now, and not only the proxy before it."""
        return self._version() is not None

    def _version(self) -> str | None:
        """The server's version; None where what answers is not MLflow."""
        answer = self._request("/version", None, {}, "GET")
        if answer.status != 200 or _VERSION.fullmatch(answer.body) is None:
            return None
        return answer.body.decode().strip()

    def adds_up_usage(self) -> bool:
        if self._adds_up_usage is None and (version := self._version()) is not None:
            self._adds_up_usage = (release_of(version) or (3, 12)) < (3, 12)
        return bool(self._adds_up_usage)

    def _not_of_mlflow(self, path: str, answer: Answer) -> Unavailable:
        text = one_line(answer.body[:100].decode("utf-8", "replace"))
        return Unavailable(f"{self._name}{path} answered what is not MLflow's: {text}", kind=path)

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, which is made where it is missing. The requests are our own, since
        MLflow's client would ask for more, and read less of an answer."""
        answer = self._look_up(name)
        if answer.status == 404 and answer.error_code():
            path = f"{_EXPERIMENTS_PATH}/create"
            body = json.dumps({"name": name}).encode()
            answer = self._request(path, body, {"Content-Type": "application/json"})
            if answer.error_code() != "RESOURCE_ALREADY_EXISTS":
                return self._id_in(path, answer, self._checked(path, answer).json())
            answer = self._look_up(name)  # somebody else has made it meanwhile
        found = self._checked(_LOOK_UP_PATH, answer).json()
        found = found.get("experiment") if isinstance(found, dict) else None
        return self._id_in(_LOOK_UP_PATH, answer, found)

    def experiment(self, *, name: str | None, experiment_id: str | None) -> dict[str, Any]:
        """The fields of an experiment that is there, found by its name or its id.

        Raises:
            DeliveryError: it is not, or the server does not say.
            KeyError, TypeError: the answer is not MLflow's.
        """
        if name is not None:
            answer = self._look_up(name)
        else:
            path = f"{_EXPERIMENTS_PATH}/get?experiment_id={quote(str(experiment_id), safe='')}"
            answer = self._request(path, None, {}, "GET")
        return self._checked(_EXPERIMENTS_PATH, answer).json()["experiment"]

    def _look_up(self, name: str) -> Answer:
        path = f"{_LOOK_UP_PATH}?experiment_name={quote(name, safe='')}"
        return self._request(path, None, {}, "GET")

    def _id_in(self, path: str, answer: Answer, experiment: Any) -> str:
        found = experiment.get("experiment_id") if isinstance(experiment, dict) else None
        if not isinstance(found, str):
            raise self._not_of_mlflow(path, answer)
        return found

    # ---- what is sent ----

    def send_info(self, info: InfoDict) -> Callable[[], None]:
        body = start_trace_body(info)
        answer_of_server = self._begin(_TRACES_PATH, body, {"Content-Type": "application/json"})

        def wait() -> None:
            answer = answer_of_server()
            try:
                found = self._checked(_TRACES_PATH, answer).json()["trace"]["trace_info"][
                    "trace_id"
                ]
            except (TypeError, LookupError):
                found = None
            if found != info["trace_id"]:
                raise self._not_of_mlflow(_TRACES_PATH, answer)

        return wait

    def send_new_infos(self, infos: list[InfoDict]) -> bool:
        raise NotImplementedError("a request has one")

    def send_spans(self, experiment_id: str, records: list[bytes], *, exact: bool) -> None:
        body, refused, inexact = _core.otlp_request(records)
        if exact and inexact:
            raise Inexact(inexact)
        if refused:
            raise Rejected(f"{len(refused)} span records cannot be encoded")
        answer = self._request(
            _SPANS_PATH,
            body,
            {
                "Content-Type": "application/x-protobuf",
                _EXPERIMENT_HEADER: experiment_id,
            },
        )
        del body  # or the traceback of a refusal would keep it, while the spans go in another way
        partial = self._checked(_SPANS_PATH, answer).partial_success()
        if partial is None:
            raise self._not_of_mlflow(_SPANS_PATH, answer)
        if partial.rejected:
            raise Rejected(
                f"{self._name}{_SPANS_PATH} rejected {partial.rejected} spans: "
                f"{one_line(partial.message)}"
            )

    def upload(self, trace_id: str, artifacts: Artifacts) -> None:
        upload_artifacts(self._uri, trace_id, artifacts)

    def make_change(self, change: Change) -> None:
        body: dict[str, Any]
        if change.assessment is not None:
            method, path = "POST", f"{_path_of(change.trace_id)}/assessments"
            body = {"assessment": change.assessment}
        else:
            assert change.tag is not None
            method, path = "PATCH", _TAGS_PATH.format(quote(change.trace_id, safe=""))
            body = dict(zip(("key", "value"), change.tag, strict=True))
        content = json.dumps(body).encode()
        answer = self._request(path, content, {"Content-Type": "application/json"}, method)
        self._checked(path, answer)

    def experiment_of(self, trace_id: str) -> str | None:
        path = _path_of(trace_id)
        if (answer := self._found(path)) is None:
            return None
        try:
            location = answer.json()["trace"]["trace_info"]["trace_location"]
            return self._id_in(path, answer, location["mlflow_experiment"])
        except (TypeError, LookupError):
            raise self._not_of_mlflow(path, answer) from None

    def has_trace(self, trace_id: str) -> bool:
        return self._found(_path_of(trace_id)) is not None

    def has_assessment(self, trace_id: str, assessment_id: str) -> bool:
        path = f"{_path_of(trace_id)}/assessments/{quote(assessment_id, safe='')}"
        return self._found(path) is not None

    def _found(self, path: str) -> Answer | None:
        """The server's answer on what a path names; None where it is not there."""
        answer = self._request(path, None, {}, "GET")
        if answer.error_code() == "RESOURCE_DOES_NOT_EXIST":
            return None
        return self._checked(path, answer)


def _path_of(trace_id: str) -> str:
    return f"{_TRACES_PATH}/{quote(trace_id, safe='')}"


def _access_to(uri: str) -> Access:
    """The access to a tracking server.

    Args:
        uri: Its URI, with credentials if it holds any.

    Raises:
        Exception: of any kind; the settings cannot be used.
    """
    if needs_mlflow():
        from mlflow_fasttrace._internal.sender.mlflow_access import MlflowAccess

        return MlflowAccess(uri)
    return EnvironmentAccess(uri)


def needs_mlflow() -> bool:
    """Whether only MLflow's own client knows how servers are reached."""
    return environment.signs_by_mlflow() or _has_plugins()


def _has_plugins() -> bool:
    """Whether a package is installed that has MLflow's client reach servers in another way."""
    installed = entry_points()  # which reads a file of every package
    return bool(installed.select(group="mlflow.request_header_provider")) or any(
        plugin.name in ("http", "https")
        for plugin in installed.select(group="mlflow.tracking_store")
    )
