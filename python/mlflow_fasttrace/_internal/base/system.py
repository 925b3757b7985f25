"""``os`` and ``fcntl`` as they were when this package was imported.

Tests of the program put functions of their own in the place of ``os.open`` or ``os.listdir``
(unittest.mock), or a file system in the place of ``os`` in every module that has it (pyfakefs). The rings
and the sender of the program are real all the same: modules of its side import ``os`` from here. The
objects are no modules, so that what looks for modules passes them over.
"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import fcntl as fcntl
    import os as os
else:

    def _as_it_is(module: types.ModuleType) -> types.SimpleNamespace:
        return types.SimpleNamespace(
            **{name: value for name, value in vars(module).items() if not name.startswith("__")}
        )

    def _os() -> types.SimpleNamespace:
        import os

        real = _as_it_is(os)
        real.path = _as_it_is(os.path)
        return real

    def _fcntl() -> types.SimpleNamespace:
        try:
            import fcntl
        except ImportError:  # Windows, where MLflow itself records
            return types.SimpleNamespace()
        return _as_it_is(fcntl)

    os, fcntl = _os(), _fcntl()
