"""Infos: what is said of each trace as a whole."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
from mlflow_fasttrace._internal.sender.dead_letters import DeadLetters
from mlflow_fasttrace._internal.sender.destinations import Destination, Experiments, Target
from mlflow_fasttrace._internal.sender.exceptions import (
    Forbidden,
    InAnotherExperiment,
    Rejected,
    TooLarge,
    TransientError,
)
from mlflow_fasttrace._internal.sender.verdicts import Verdicts, wait_for_memory

if TYPE_CHECKING:
    from mlflow_fasttrace._internal.sender.trace_infos import InfoDict

logger = logging.getLogger("mlflow_fasttrace.sender")

_QUICK_SECONDS = 0.002  # of a request

Result = TypeVar("Result")


def _summarize(trace: TraceBuffer) -> bool:
    trace.summarize()
    return True


def _raise(error: Exception) -> None:
    try:
        raise error
    finally:
        del error  # or its traceback and it would keep one another


class InfoRequests:
    """Sends infos, several at once where a server is slow.

    Args:
        verdicts: On what the server answers.
        dead_letters: Take the traces whose infos are refused.
        experiments: Whose ids are asked for again where an info fails.
        between_requests: Called before each request.
    """

    def __init__(
        self,
        verdicts: Verdicts,
        dead_letters: DeadLetters,
        experiments: Experiments,
        between_requests: Callable[[], None],
    ):
        self._verdicts = verdicts
        self._dead_letters = dead_letters
        self._experiments = experiments
        self._between_requests = between_requests
        self._at_once = 1
        self._seconds = 0.0  # that the last request took which waited for no other

    def send(self, target: Target, traces: list[TraceBuffer]) -> list[TraceBuffer]:
        """Sends the infos of traces. Where this ends early, what the server took of those that were on
        their way is remembered.

        Args:
            target: Where they go.
            traces: Their spans are summarized.

        Returns:
            The traces whose infos the server has now.

        Raises:
            Unavailable, Forbidden: the others wait.
        """
        accepted: list[TraceBuffer] = []
        under_way: deque[tuple[TraceBuffer, Callable[[], None]]] = deque()

        def arrived() -> None:
            trace, wait = under_way.popleft()
            if self._is_taken(target, trace, wait):
                accepted.append(trace)

        try:
            # All are made before one is sent: behind each answer the processor's caches are cold.
            infos = list(self._infos(traces, target.experiment_id))
            new, infos = self._send_new(target.destination, infos)
            accepted += new
            for trace, info in infos:
                self._between_requests()
                alone = not under_way
                under_way.append((trace, self._begin(target.destination, info, alone=alone)))
                while len(under_way) >= self._at_once:  # 1 where one cannot even be begun
                    arrived()
            while under_way:
                arrived()
            if accepted:
                self._quicken(target.destination)
        finally:
            for trace, wait in under_way:
                with contextlib.suppress(Exception):
                    wait()
                    self._took(trace)
        return accepted

    def _send_new(
        self, destination: Destination, infos: list[tuple[TraceBuffer, InfoDict]]
    ) -> tuple[list[TraceBuffer], list[tuple[TraceBuffer, InfoDict]]]:
        """Sends those of traces of which the server has nothing, all at once where it takes them so.

        Returns:
            The traces that it has taken, and what is left.
        """
        at_once = destination.new_infos_at_once
        new = [
            (trace, info)
            for trace, info in infos
            if trace.nothing_is_delivered() and not trace.may_be_there
        ]
        if at_once == 0 or len(new) < 2:
            return [], infos
        taken: dict[bytes, TraceBuffer] = {}
        for start in range(0, len(new), at_once):
            some = new[start : start + at_once]
            self._between_requests()
            try:
                if not destination.send_new_infos([info for _trace, info in some]):
                    break
            except MemoryError:  # one needs less
                break
            for trace, _info in some:
                self._took(trace)
                taken[trace.trace_id] = trace
        left = [(trace, info) for trace, info in infos if trace.trace_id not in taken]
        return list(taken.values()), left

    def slow_down(self) -> None:
        """Sends one info at a time again: the server has trouble."""
        self._at_once = 1

    def _quicken(self, destination: Destination) -> None:
        """Sends more at once, slowly, until a request fails: many senders may have one server, which
        has few connections to its database. A server that is quick is sent one at a time."""
        most = destination.infos_at_once
        quick = self._seconds < _QUICK_SECONDS
        self._at_once = 1 if quick else min(self._at_once + 1, most)

    def summarized(self, traces: list[TraceBuffer]) -> list[TraceBuffer]:
        """Takes from the traces' spans what their infos need. A trace whose spans cannot be read is set
        aside.

        Returns:
            The others.
        """
        return [trace for trace in traces if self._attempt(trace, _summarize, trace)]

    def _infos(
        self, traces: list[TraceBuffer], experiment_id: str
    ) -> Iterator[tuple[TraceBuffer, InfoDict]]:
        """The info of each trace. One that cannot be finished is set aside, and the others go on."""
        from mlflow_fasttrace._internal.sender.trace_infos import trace_info

        for trace in traces:
            info = self._attempt(trace, trace_info, trace, experiment_id)
            if info is not None:
                yield trace, info

    def _attempt(
        self, trace: TraceBuffer, function: Callable[..., Result], *args: Any
    ) -> Result | None:
        """What a function returns for whose failure a trace is to blame; None where it fails."""
        try:
            return function(*args)
        except MemoryError:
            wait_for_memory(trace)
        except Exception as error:
            logger.exception("trace %s cannot be finished", trace.mlflow_id)
            self._dead_letters.set_aside(trace, error)
        return None

    def _begin(
        self, destination: Destination, info: InfoDict, *, alone: bool
    ) -> Callable[[], None]:
        """Sends an info; what is returned waits until the server has it, and raises what that raises.

        Args:
            alone: Nothing that was sent before waits for its answer.
        """
        began = time.monotonic()
        try:
            arrives = destination.send_info(info)
        except Exception as error:
            self.slow_down()
            return functools.partial(_raise, error)

        def wait() -> None:
            arrives()
            if alone:
                self._seconds = time.monotonic() - began

        return wait

    def _is_taken(self, target: Target, trace: TraceBuffer, wait: Callable[[], None]) -> bool:
        """Whether the server took an info."""
        try:
            try:
                wait()
            except InAnotherExperiment:
                if (place := target.that_has(trace)) == target:
                    raise
                of_place = list(self._infos([trace], place.experiment_id))
                if not of_place:
                    return False  # it waits for memory, or is set aside
                self._between_requests()
                place.destination.send_info(of_place[0][1])()
        except TransientError as reason:
            self._experiments.forget(trace.experiment)
            self._verdicts.failed(trace, reason)
            return False
        except Forbidden as reason:
            self._verdicts.forbade(trace, reason)
            return False
        except (Rejected, TooLarge) as reason:
            self._dead_letters.set_aside(trace, reason)
            return False
        except MemoryError:
            wait_for_memory(trace)
            return False
        self._took(trace)
        return True

    def _took(self, trace: TraceBuffer) -> None:
        """The server took an info."""
        self._verdicts.took()
        self._verdicts.is_let_in()
        for info in trace.infos:
            info.info_sent = True
