"""Infos: what is said of each trace as a whole, before its spans are sent."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING

from mlflow_fasttrace._internal.sender.assemble import TraceBuffer
from mlflow_fasttrace._internal.sender.dead_letters import DeadLetters
from mlflow_fasttrace._internal.sender.destinations import Destination, Experiments, Target
from mlflow_fasttrace._internal.sender.exceptions import (
    Forbidden,
    Rejected,
    TooLarge,
    TransientError,
)
from mlflow_fasttrace._internal.sender.verdicts import Verdicts, wait_for_memory

if TYPE_CHECKING:
    from mlflow_fasttrace._internal.sender.trace_infos import InfoDict

logger = logging.getLogger("mlflow_fasttrace.sender")

_QUICK_SECONDS = 0.002  # of a request


class InfoRequests:
    """Sends infos, several at once where a server is slow.

    Args:
        verdicts: On what the server answers.
        dead_letters: Take the traces whose infos are refused.
        experiments: Whose ids are asked for again where an info fails.
        let_burst_pass: Called before each request.
        executor: For several requests at once; None: one after another.
    """

    def __init__(
        self,
        verdicts: Verdicts,
        dead_letters: DeadLetters,
        experiments: Experiments,
        let_burst_pass: Callable[[], None],
        executor: Executor | None = None,
    ):
        self._verdicts = verdicts
        self._dead_letters = dead_letters
        self._experiments = experiments
        self._let_burst_pass = let_burst_pass
        self._executor = executor
        self._at_once = 1
        self._seconds = 0.0  # that the last request took

    def send(self, target: Target, traces: list[TraceBuffer]) -> list[TraceBuffer]:
        """Sends the infos that the server does not know. Where this ends early, what the server took
        of those that were on their way is remembered.

        Returns:
            The traces whose infos the server has now.

        Raises:
            Unavailable, Forbidden: the others wait.
        """
        accepted: list[TraceBuffer] = []
        under_way: deque[tuple[TraceBuffer, Future[None]]] = deque()

        def arrived() -> None:
            trace, answer = under_way.popleft()
            if self._is_taken(trace, answer):
                accepted.append(trace)

        try:
            for trace, info in self._infos(traces, target.experiment_id):
                if info is None:
                    accepted.append(trace)
                    continue
                self._let_burst_pass()
                under_way.append((trace, self._start(target.destination, info)))
                if len(under_way) >= self._at_once:
                    arrived()
            while under_way:
                arrived()
            if accepted:
                self._quicken(target.destination)
        finally:
            for trace, answer in under_way:
                if answer.exception() is None:
                    self._is_taken(trace, answer)
        return accepted

    def slow_down(self) -> None:
        """Sends one info at a time again: the server has trouble."""
        self._at_once = 1

    def _quicken(self, destination: Destination) -> None:
        """Sends more at once, slowly, until a request fails: many senders may have one server, which
        has few connections to its database. A server that is quick is sent one at a time: threads
        would cost more than they gain."""
        most = destination.infos_at_once if self._executor is not None else 1
        quick = self._seconds < _QUICK_SECONDS
        self._at_once = 1 if quick else min(self._at_once + 1, most)

    def _infos(
        self, traces: list[TraceBuffer], experiment_id: str
    ) -> Iterator[tuple[TraceBuffer, InfoDict | None]]:
        """The info of each trace; None where the server knows it, or another process says it. A trace
        that cannot be finished is set aside, and the others go on."""
        from mlflow_fasttrace._internal.sender.trace_infos import trace_info

        for trace in traces:
            try:
                trace.summarize()
                known = trace.info_was_sent() or trace.remote
                info = None if known else trace_info(trace, experiment_id)
            except MemoryError:
                wait_for_memory(trace)
                continue
            except Exception as error:
                logger.exception("trace %s cannot be finished", trace.mlflow_id)
                self._dead_letters.set_aside(trace, error)
                continue
            yield trace, info

    def _start(self, destination: Destination, info: InfoDict) -> Future[None]:
        if self._executor is not None and self._at_once > 1:
            return self._executor.submit(self._send_one, destination, info)
        done: Future[None] = Future()
        try:
            self._send_one(destination, info)
        except Exception as error:
            done.set_exception(error)
        else:
            done.set_result(None)
        return done

    def _send_one(self, destination: Destination, info: InfoDict) -> None:
        began = time.monotonic()
        destination.send_info(info)
        self._seconds = time.monotonic() - began

    def _is_taken(self, trace: TraceBuffer, answer: Future[None]) -> bool:
        """Whether the server took an info; waits for its answer."""
        try:
            answer.result()
        except TransientError as reason:
            self._experiments.forget(trace.destination["experiment"])
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
        self._verdicts.took()
        self._verdicts.is_let_in()
        for info in trace.infos:
            info.info_sent = True
        return True
