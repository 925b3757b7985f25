"""Which cases of a test ``make test`` runs; the others are left to ``make test-long``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def long_but(short: Iterable[Any], cases: Iterable[Any]) -> list[Any]:
    """Cases for ``pytest.mark.parametrize``.

    Args:
        short: Those that are no long tests.
        cases: All of them.
    """
    short = list(short)
    return [pytest.param(case, marks=() if case in short else pytest.mark.long) for case in cases]


def every(step: int, cases: Iterable[Any]) -> list[Any]:
    """Cases of which one in ``step`` is no long test: the first, and every ``step``-th behind it."""
    cases = list(cases)
    return long_but(cases[::step], cases)
