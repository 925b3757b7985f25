"""Several interruptions while one function of the core is at work, and in many threads at once: none is lost, and
the span is as it would be. One alone is the subject of tests/programs/soundness/interruptions.py."""

from __future__ import annotations

import sys
import threading

import mlflow_fasttrace as mlflow
import pytest
from mlflow_fasttrace import _core


class Interruption(BaseException):
    """What belongs to the program, like a KeyboardInterrupt."""


class Interrupts:
    """A value whose text interrupts the program."""

    def __str__(self) -> str:
        raise Interruption("first")


class InterruptingStatus:
    """A status that is read once a value has interrupted already."""

    def __init__(self, act):
        self.act = act

    @property
    def status_code(self) -> str:
        return self.act()


def end_span(status) -> None:
    mlflow.start_span_no_context("span").end(attributes={"k": Interrupts()}, status=status)


def raise_second() -> str:
    raise Interruption("second")


def raise_second_in_a_handler() -> str:
    try:
        raise ValueError("handled")
    except ValueError:
        raise Interruption("second")  # noqa: B904 (its context is what is looked at)


def test_the_last_of_two_interruptions_leaves_and_knows_of_the_first(recorded):
    with pytest.raises(Interruption, match="second") as caught:
        end_span(InterruptingStatus(raise_second))
    assert repr(caught.value.__context__) == "Interruption('first')"
    (record,) = recorded.spans()
    assert record.attributes["k"] == "<unprintable Interrupts object>"


def test_an_interruption_keeps_the_context_that_it_has(recorded):
    with pytest.raises(Interruption, match="second") as caught:
        end_span(InterruptingStatus(raise_second_in_a_handler))
    assert repr(caught.value.__context__) == "ValueError('handled')"
    assert len(recorded.spans()) == 1


def test_more_threads_than_the_core_remembers_are_interrupted_or_seen(recorded, monkeypatch):
    """Each waits, interrupted already, until all are."""
    threads_at_once, remembered = 20, 16
    unraisable: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(str(args.exc_value)))
    barrier = threading.Barrier(threads_at_once, timeout=600)
    interrupted: list[str] = []

    def wait_for_all() -> str:
        barrier.wait()
        return "OK"

    def run() -> None:
        try:
            end_span(InterruptingStatus(wait_for_all))
        except Interruption as error:
            interrupted.append(str(error))

    threads = [threading.Thread(target=run) for _ in range(threads_at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not barrier.broken
    assert interrupted == ["first"] * remembered
    assert unraisable == ["first"] * (threads_at_once - remembered)
    assert [record.status for record in recorded.spans()] == [1] * threads_at_once
    assert _core.current() is None
