"""Importing a module by its name."""

from __future__ import annotations

import sys
from typing import Any


def imported(name: str) -> Any:
    """A module, imported where it is not loaded; where another thread imports it, it is waited for.

    ``importlib.import_module()`` takes the module's lock on Python 3.10 also where the module is loaded: a signal
    handler that came in the middle of that and asked for the same module would wait for itself.

    Raises:
        ImportError: there is no such module, or what it needs is missing.
    """
    __import__(name)
    return sys.modules[name]
