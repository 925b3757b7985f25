"""A sender's life: it gets the spool's lock, serves, and ends when nobody needs it."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import time
from collections.abc import Callable

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.config import otlp
from mlflow_fasttrace._internal.sender.acknowledge import Acknowledgements
from mlflow_fasttrace._internal.sender.assemble import Assembler
from mlflow_fasttrace._internal.sender.availability import Availability
from mlflow_fasttrace._internal.sender.bursts import Bursts
from mlflow_fasttrace._internal.sender.changes import Changes
from mlflow_fasttrace._internal.sender.dead_letters import DeadLetters
from mlflow_fasttrace._internal.sender.destinations import Destination
from mlflow_fasttrace._internal.sender.intake import Intake
from mlflow_fasttrace._internal.sender.loop import Delivery, Sender
from mlflow_fasttrace._internal.sender.open_traces import OpenTraces
from mlflow_fasttrace._internal.sender.other_places import OtherPlaces
from mlflow_fasttrace._internal.sender.packing import Packing
from mlflow_fasttrace._internal.sender.server_delivery import ServerDelivery
from mlflow_fasttrace._internal.sender.sources import RingSource
from mlflow_fasttrace._internal.sender.spool_writer import SpoolWriter
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool.folder import remove_if_empty, spool_named
from mlflow_fasttrace._internal.spool.lock import Lock

logger = logging.getLogger("mlflow_fasttrace.sender")

POLL_BUSY_SECONDS = 0.003
POLL_IDLE_SECONDS = 0.05
_WITHOUT_MEMORY_SECONDS = 1.0  # before a sender that had no memory begins again
_REST_SECONDS = 1.0  # without anything to do
_REST_AT_LEAST_SECONDS = 60.0  # however little there is to do between
_LINGER_SECONDS = 5.0  # without any program, before the sender ends
_GIVE_UP_SECONDS = 600.0  # without a program and with an unavailable server: until the next start


def sender_for(
    folder: str | None,
    rings_folder: str | None,
    uri: str,
    *,
    instead_of: str | None = None,
) -> Sender:
    """Puts a sender together.

    Args:
        folder: The spool's folder of segments; None: there are no folders, and rings are adopted.
        rings_folder: The folder of the spool's rings.
        uri: The tracking URI, or a collector's, with its credentials.
        instead_of: The destination that the records name, where ``uri`` is another one.
    """
    collector = otlp.is_collector(uri)
    status = Status(folder, uri, instead_of)
    # Another server than the one that acknowledged infos needs all of them.
    assembler = Assembler(infos_again=instead_of is not None and not collector)
    intake = Intake(folder, rings_folder, assembler, status)
    bursts = Bursts(intake.rings)
    availability = Availability(status, intake.report_server_state)
    writer = SpoolWriter(folder, status) if folder is not None else None
    # A collector knows spans only, and needs no record of their trace.
    open_traces = OpenTraces(None if collector else writer)
    acknowledgements = Acknowledgements(assembler, status, open_traces)
    dead_letters = DeadLetters(writer, acknowledgements, status)

    def between_requests() -> None:
        intake.beat()
        bursts.let_pass()

    delivery: Delivery
    open_server: Callable[[], Destination] | None = None
    if collector:
        from mlflow_fasttrace._internal.sender.collector_delivery import CollectorDelivery

        delivery = CollectorDelivery(uri, assembler, acknowledgements, dead_letters)
    else:
        delivery = server = ServerDelivery(
            uri,
            acknowledgements,
            dead_letters,
            availability,
            between_requests,
            intake.is_abandoned,
            intake.is_whole,
        )
        open_server = server.open
    return Sender(
        folder=folder,
        assembler=assembler,
        intake=intake,
        bursts=bursts,
        packing=Packing(folder, rings_folder, intake) if folder is not None else None,
        other_places=_other_places(folder, rings_folder, status),
        delivery=delivery,
        availability=availability,
        acknowledgements=acknowledgements,
        dead_letters=dead_letters,
        open_traces=open_traces,
        changes=Changes(folder, open_server, status),
        status=status,
    )


def _other_places(
    folder: str | None, rings_folder: str | None, status: Status
) -> OtherPlaces | None:
    """Those that may leave something of a spool; None where that is in memory, or is no folder of spools' own."""
    if folder is None or rings_folder is None or folder == rings_folder:
        return None
    spool = spool_named(*os.path.split(folder))
    return OtherPlaces(spool, status) if spool.place else None


def run_sender(
    folder: str,
    rings: str,
    uri: str,
    should_stop: Callable[[], bool] | None = None,
    at_rest: Callable[[bool], None] | None = None,
    patience_seconds: float = 0.0,
) -> None:
    """Serves a spool until no program has needed it for a while.

    Args:
        folder: The spool folder: segments, lock and log.
        rings: The folder of its rings.
        uri: The tracking URI, with its credentials.
        should_stop: Asked between rounds; what is not delivered stays where it is. None: it does not
            end before its time.
        at_rest: Called when nothing has been left to do for a moment after something was, and from time to time; with
            whether a delivery has failed since.
        patience_seconds: That another sender has at least to give the lock back.
    """
    path = os.path.join(folder, "sender.lock")
    lock = Lock(path, stays=should_stop is None, patience_seconds=patience_seconds)
    should_stop = should_stop or (lambda: False)
    try:
        while lock.take():
            sender = _serve(lambda: sender_for(folder, rings, uri), should_stop, at_rest)
            if sender is None:
                return
            # A program that made its ring before this release relied on this sender; one that makes
            # it afterwards finds the lock free and starts another sender.
            lock.release()
            if should_stop():
                return
            sender.scan()
            if idle(sender):
                remove_if_empty(rings)
                return
    finally:
        lock.close()


def run_sender_in_memory(ring: _core.RingWriter, uri: str) -> None:
    """Serves one ring that is memory of this process, as long as it is there.

    Args:
        ring: The program's end of it.
        uri: The tracking URI, with its credentials.
    """

    def make() -> Sender:
        sender = sender_for(None, None, uri)
        sender.intake.adopt(RingSource(ring))
        return sender

    _serve(make, lambda: False)


def _serve(
    make: Callable[[], Sender],
    should_stop: Callable[[], bool],
    at_rest: Callable[[bool], None] | None = None,
) -> Sender | None:
    """Serves until nobody needs it, or until it is to stop.

    A sender that runs out of memory in the middle of its books (where a single record, or request,
    finds no memory, that waits by itself) is given up, and another one begins with what rings and
    segments hold, as after a kill: nothing that was not delivered is lost.

    Args:
        make: Makes a sender.
        should_stop: Asked between rounds.
        at_rest: As run_sender has it.

    Returns:
        The sender that has ended; None where it was to stop before there was memory for one.
    """
    while not should_stop():
        try:
            return _serve_once(make(), should_stop, at_rest or (lambda failed: None))
        except MemoryError:
            pass
        # Here the frames are gone that held what the sender had read, which is memory, too. Its parts refer to
        # one another.
        gc.collect()
        with contextlib.suppress(MemoryError):
            logger.error("no memory: the sender begins again with what is not delivered")
        time.sleep(_WITHOUT_MEMORY_SECONDS)
    return None


def _serve_once(
    sender: Sender, should_stop: Callable[[], bool], at_rest: Callable[[bool], None]
) -> Sender:
    try:
        _rounds(sender, should_stop, at_rest)
    finally:
        sender.status.end()
    return sender


def _rounds(
    sender: Sender, should_stop: Callable[[], bool], at_rest: Callable[[bool], None]
) -> None:
    idle_since = worked_at = rested_at = time.monotonic()
    rests, failed = True, False
    pause = POLL_BUSY_SECONDS
    while not should_stop():
        sender.bursts.let_pass()
        worked = sender.step()
        pause = POLL_BUSY_SECONDS if worked else min(pause * 1.25, POLL_IDLE_SECONDS)
        now = time.monotonic()
        if worked or sender.has_failed:
            failed |= sender.has_failed
            sender.has_failed = False
            rests, worked_at = False, now
        if not rests and (
            now - worked_at >= _REST_SECONDS or now - rested_at >= _REST_AT_LEAST_SECONDS
        ):
            rests, rested_at = True, now
            at_rest(failed)
            failed = False
        if idle(sender):
            if time.monotonic() - idle_since >= _LINGER_SECONDS:
                sender.forget_open_traces()
                sender.changes.end()
                return
        else:
            idle_since = time.monotonic()
        time.sleep(pause)


def idle(sender: Sender) -> bool:
    """Whether nobody needs a sender: there is no ring and no segment, or somebody removed the spool's
    folder. While anything waits for a server that is unavailable the sender stays and tries again,
    for a while."""
    if sender.intake.is_empty():
        return sender.other_places is None or not sender.other_places.waits()
    if sender.intake.has_live_program():
        return False
    if sender.folder is None or not os.path.isdir(sender.folder):
        return True
    return sender.availability.unavailable_seconds() >= _GIVE_UP_SECONDS
