"""Imported by every Python that starts with this folder in PYTHONPATH, which ``mlflow-fasttrace run``
puts there: with ``MLFLOW_FASTTRACE=1`` MLflow runs on the core as soon as it is imported.

Nothing of the package is imported before that: a child may be another environment's Python, which
does not have it, and most children never import MLflow.
"""

import importlib
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _is_here(folder):
    return bool(folder) and os.path.abspath(folder) == _HERE


def _give_others_their_turn():
    """Imports the sitecustomize that this one hides: that of the distribution, or of another tool."""
    sys.path[:] = [folder for folder in sys.path if not _is_here(folder)]
    own = sys.modules.pop("sitecustomize", None)
    try:
        importlib.import_module("sitecustomize")
    except ImportError:
        if own is not None:
            sys.modules["sitecustomize"] = own


class _Finder:
    """Waits for ``import mlflow``. It imports nothing: Python before 3.12 holds the lock of all imports
    while it asks a finder, and this package's import may wait for another thread's."""

    def find_spec(self, name, path, target=None):
        if name != "mlflow" or self not in sys.meta_path:
            return None
        sys.meta_path.remove(self)
        for finder in list(sys.meta_path):
            spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader:
    """MLflow's own loader, before whose work MLflow is made to follow this package."""

    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        _install()
        self._loader.exec_module(module)

    def __getattr__(self, name):
        return getattr(self._loader, name)


def _install():
    try:
        import mlflow_fasttrace

        mlflow_fasttrace.install()
    except ModuleNotFoundError as error:
        if error.name != "mlflow_fasttrace":  # else another environment's Python, without it
            sys.stderr.write(
                f"mlflow-fasttrace: not installed ({error}); MLflow runs by itself. "
                "`mlflow-fasttrace doctor` shows more.\n"
            )
    except Exception as error:
        sys.stderr.write(f"mlflow-fasttrace: not installed ({error}); MLflow runs by itself.\n")


def _installs():
    """``installs()`` of the package's ``config/environment.py``, without the package."""

    def is_true(name):
        return os.environ.get(name, "").strip().lower() in ("1", "true")

    return is_true("MLFLOW_FASTTRACE") and not is_true("MLFLOW_FASTTRACE_DISABLE")


_give_others_their_turn()
if _installs():
    sys.meta_path.insert(0, _Finder())
