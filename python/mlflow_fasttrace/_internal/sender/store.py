"""Delivery to a database: MLflow's own store, many traces a call."""

from __future__ import annotations

import copy
import functools
import json
import logging
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import sqlalchemy
from mlflow.entities import Assessment, Span, TraceInfo
from mlflow.exceptions import MlflowException
from mlflow.store.db.db_types import DATABASE_ENGINES, SQLITE
from mlflow.store.db.utils import create_sqlalchemy_engine
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store
from mlflow.utils.uri import get_uri_scheme

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base.version import is_mlflow
from mlflow_fasttrace._internal.sender.artifacts import Artifacts, upload_artifacts
from mlflow_fasttrace._internal.sender.exceptions import (
    DeliveryError,
    InAnotherExperiment,
    Rejected,
    TransientError,
    Unavailable,
)
from mlflow_fasttrace._internal.sender.trace_infos import InfoDict
from mlflow_fasttrace._internal.spool import database
from mlflow_fasttrace._internal.spool.changes import Change

logger = logging.getLogger("mlflow_fasttrace.sender")

#: MLflow's error codes that another try may not see.
_TRANSIENT_CODES = frozenset({"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR"})

#: What of a store every trace needs.
_METHODS = ("start_trace", "log_spans", "get_trace_info")

#: What the code of a store raises for a value that it cannot use, never for a database.
_VALUE_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


#: How a store's session is asked for that writes.
_WRITES: dict[str, Any] = {"read_only": False} if is_mlflow(3, 13) else {}


class _Joined:
    """A session that several calls of a store share. What one of them rolls back would be the others', too.

    Args:
        session: SQLAlchemy's.
    """

    def __init__(self, session: Any):
        self._session = session

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def rollback(self) -> None:
        raise RuntimeError("a trace is there already, or cannot be written")


class StoreDestination:
    """A tracking store that this process opens itself (``sqlite:///``, ``postgresql://``, ...).

    Args:
        uri: Its URI.

    Raises:
        AttributeError: MLflow's store lacks what is called here.
        Exception: whatever the store's libraries raise where it cannot be opened.
    """

    takes_spans = True
    infos_at_once = 1

    def __init__(self, uri: str):
        self.uri = uri
        is_database = get_uri_scheme(uri) in DATABASE_ENGINES
        if is_database and not uri.startswith(SQLITE):
            _connect_once(uri)
        with database.turn(sqlalchemy.make_url(uri)) if is_database else nullcontext():
            self.store = _get_store(uri)
        for method in _METHODS:
            getattr(self.store, method)
        #: Others wait meanwhile who want to write to a SQLite file.
        self.new_infos_at_once = 25 if hasattr(self.store, "ManagedSessionMaker") else 0

    def adds_up_usage(self) -> bool:
        return False  # this MLflow is none of those

    def experiment_id(self, name: str) -> str:
        client = MlflowClient(tracking_uri=self.uri)
        if (found := self._call(client.get_experiment_by_name, name)) is None:
            try:
                return self._call(client.create_experiment, name)
            except Rejected:
                # Somebody else has made it meanwhile, if that is the reason.
                if (found := self._call(client.get_experiment_by_name, name)) is None:
                    raise
        return found.experiment_id

    def send_info(self, info: InfoDict) -> Callable[[], None]:
        self._call(self.store.start_trace, TraceInfo.from_dict(info))
        return lambda: None

    def send_new_infos(self, infos: list[InfoDict]) -> bool:
        try:
            with self.store.ManagedSessionMaker(**_WRITES) as session:
                joined = copy.copy(self.store)
                joined.ManagedSessionMaker = lambda **_: nullcontext(_Joined(session))
                joined.get_experiment = functools.cache(joined.get_experiment)
                # In the order in which others lock what belongs to a day.
                for info in sorted(infos, key=lambda info: info["request_time"]):
                    joined.start_trace(TraceInfo.from_dict(info))
        except Exception as error:  # what is to be said of it, one of them will say
            logger.debug("traces are sent one by one: %s: %s", type(error).__name__, error)
            return False
        return True

    def send_spans(self, experiment_id: str, records: list[bytes], *, exact: bool) -> None:
        spans = [Span.from_dict(json.loads(_core.span_json(record))) for record in records]
        self._call(self.store.log_spans, experiment_id, spans)

    def upload(self, trace_id: str, artifacts: Artifacts) -> None:
        upload_artifacts(self.uri, trace_id, artifacts)

    def make_change(self, change: Change) -> None:
        if change.assessment is not None:
            assessment = Assessment.from_dictionary(change.assessment)
            assessment.trace_id = change.trace_id
            self._call(self.store.create_assessment, assessment)
        else:
            assert change.tag is not None
            self._call(self.store.set_trace_tag, change.trace_id, *change.tag)

    def experiment_of(self, trace_id: str) -> str | None:
        info = self._found(self.store.get_trace_info, trace_id)
        return None if info is None else info.experiment_id

    def has_trace(self, trace_id: str) -> bool:
        return self._found(self.store.get_trace_info, trace_id) is not None

    def has_assessment(self, trace_id: str, assessment_id: str) -> bool:
        return self._found(self.store.get_assessment, trace_id, assessment_id) is not None

    def _found(self, function: Callable[..., Any], *ids: str) -> Any | None:
        """What a function of the store finds by ids; None where it is not there."""
        try:
            return self._call(function, *ids)
        except Rejected as reason:
            if getattr(reason.__cause__, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise

    def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        try:
            return function(*args)
        except MlflowException as error:
            raise _judged(error) from error
        except NotImplementedError as error:
            raise Rejected(
                "this store keeps no spans; use a tracking server or a database URI"
            ) from error
        except _VALUE_ERRORS as error:
            # The store adds up token usage and costs; a program may set anything as those.
            raise Rejected(f"{type(error).__name__}: {error}") from error
        except Exception as error:
            raise Unavailable(f"{type(error).__name__}: {error}", kind=type(error)) from error


def _connect_once(uri: str) -> None:
    """Finds out whether a database is there. MLflow's store would try for minutes, and the sender has
    more to do meanwhile.

    Raises:
        Exception: it cannot be reached.
    """
    engine = create_sqlalchemy_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _judged(error: MlflowException) -> DeliveryError:
    """What an error of the store means for the trace. MLflow has a few codes for all that a database
    may say: the database's own error is the cause of MLflow's."""
    cause = error.__cause__
    if isinstance(cause, MemoryError):
        return Unavailable(f"no memory: {error}", kind=MemoryError)
    if isinstance(cause, (*_VALUE_ERRORS, sqlalchemy.exc.DataError)):
        return Rejected(str(error))
    if isinstance(cause, sqlalchemy.exc.DBAPIError) and (
        cause.connection_invalidated or isinstance(cause, sqlalchemy.exc.InterfaceError)
    ):
        return Unavailable(str(error), kind=type(cause))
    if isinstance(cause, sqlalchemy.exc.SQLAlchemyError) and not isinstance(
        cause, sqlalchemy.exc.OperationalError
    ):
        # The database only reads after a failover, say, or a right or a table is missing: one trace
        # does not show which.
        return TransientError(str(error))
    if InAnotherExperiment.WORDS in str(error):
        return InAnotherExperiment(str(error))
    if error.error_code in _TRANSIENT_CODES:
        return Unavailable(str(error), kind=(error.error_code, type(cause)))
    return Rejected(str(error))
