"""Delivery to a database: MLflow's own store, many traces a call."""

from __future__ import annotations

import json

from mlflow.entities import Span
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _get_store

from mlflow_fasttrace import _core
from mlflow_fasttrace.sender.delivery import (
    TRANSIENT_CODES,
    Artifacts,
    Away,
    Refused,
    upload_artifacts,
)
from mlflow_fasttrace.sender.finish import InfoDict, info_entity

#: What the code of a store raises for a value that it cannot use, never for a database.
_VALUE_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


class StoreDestination:
    """A tracking store that this process opens itself (``sqlite:///``, ``postgresql://``, ...)."""

    takes_spans = True
    infos_at_once = 1

    def __init__(self, uri: str):
        self.uri = uri
        self.store = _get_store(uri)

    def experiment_id(self, name: str) -> str:
        client = MlflowClient(tracking_uri=self.uri)
        found = self._call(client.get_experiment_by_name, name)
        return found.experiment_id if found else self._call(client.create_experiment, name)

    def send_info(self, info: InfoDict) -> None:
        self._call(self.store.start_trace, info_entity(info))

    def send_spans(self, experiment_id: str, records: list[bytes], *, exact: bool) -> None:
        spans = [Span.from_dict(json.loads(_core.span_json(record))) for record in records]
        self._call(self.store.log_spans, experiment_id, spans)

    def upload(self, trace_id: str, artifacts: Artifacts) -> None:
        upload_artifacts(self.uri, trace_id, artifacts)

    def _call(self, function, *args):
        try:
            return function(*args)
        except MlflowException as error:
            if error.error_code in TRANSIENT_CODES:
                raise Away(str(error)) from error
            raise Refused(str(error)) from error
        except NotImplementedError as error:
            raise Refused(
                "this store keeps no spans; use a tracking server or a database URI"
            ) from error
        except _VALUE_ERRORS as error:
            # The store adds up token usage and costs; a program may set anything as those.
            raise Refused(f"{type(error).__name__}: {error}") from error
        except Exception as error:
            raise Away(f"{type(error).__name__}: {error}") from error
