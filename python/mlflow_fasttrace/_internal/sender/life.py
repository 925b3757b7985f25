"""A sender's life: it gets the spool's lock, serves, and ends when nobody needs it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Executor

from mlflow_fasttrace._internal.config import otlp
from mlflow_fasttrace._internal.sender.loop import POLL_BUSY_SECONDS, POLL_IDLE_SECONDS, Sender
from mlflow_fasttrace._internal.sender.sources import RingSource
from mlflow_fasttrace._internal.spool.folder import remove_if_empty
from mlflow_fasttrace._internal.spool.lock import Lock

LINGER_SECONDS = 5.0  # without any agent, before the sender ends


def sender_for(
    state: str | None, rings: str | None, uri: str, executor: Executor | None = None
) -> Sender:
    if otlp.is_collector(uri):
        from mlflow_fasttrace._internal.sender.collectors import CollectorSender

        return CollectorSender(state, rings, uri)
    return Sender(state, rings, uri, executor)


def run_sender(
    state: str,
    rings: str,
    uri: str,
    should_stop: Callable[[], bool] | None = None,
    executor: Executor | None = None,
) -> None:
    """Serves a spool until no agent has needed it for a while.

    Args:
        state: The spool's folder of segments, lock and log.
        rings: The folder of its rings.
        uri: The tracking URI, with its credentials.
        should_stop: Asked between rounds; what is not delivered stays where it is. None: it does not
            end before its time.
        executor: For several requests at once. A thread of the agent has none: most of what it
            delivers it delivers while its interpreter ends, and starts no threads any more.
    """
    lock = Lock(os.path.join(state, "sender.lock"), stays=should_stop is None)
    should_stop = should_stop or (lambda: False)
    try:
        while lock.take():
            sender = sender_for(state, rings, uri, executor)
            try:
                _serve(sender, should_stop)
            finally:
                sender.status.end()
            # An agent that made its ring before this release relied on us; one that makes it
            # afterwards finds the lock free and starts another sender.
            lock.release()
            if should_stop():
                return
            sender.scan()
            if sender.idle():
                remove_if_empty(rings)
                return
    finally:
        lock.close()


def run_sender_in_memory(fd: int, uri: str) -> None:
    """Serves one ring that is memory of this process, as long as it is there."""
    sender = sender_for(None, None, uri)
    sender.adopt(RingSource(None, fd))
    _serve(sender, lambda: False)


def _serve(sender: Sender, should_stop: Callable[[], bool]) -> None:
    idle_since = time.monotonic()
    pause = POLL_BUSY_SECONDS
    while not should_stop():
        sender.let_burst_pass()
        if sender.step():
            pause = POLL_BUSY_SECONDS
        else:
            pause = min(pause * 1.25, POLL_IDLE_SECONDS)
        if sender.idle():
            if time.monotonic() - idle_since >= LINGER_SECONDS:
                sender.forget_open_traces()
                return
        else:
            idle_since = time.monotonic()
        time.sleep(pause)
