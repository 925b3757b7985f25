"""The mechanism by which something follows a module that is not loaded yet."""

from __future__ import annotations

import sys

import pytest
from mlflow_fasttrace._internal.base import patching


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Two modules that can be imported, and are not yet."""
    names = ["awaited_for_now", "awaited_for_good"]
    for name in names:
        (tmp_path / f"{name}.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield names
    for name in names:
        sys.modules.pop(name, None)


def test_what_is_awaited_for_good_outlives_an_uninstall(modules):
    loaded = []
    for_now, for_good = modules
    patching.when_loaded(for_now, lambda: loaded.append(for_now))
    patching.when_loaded(for_good, lambda: loaded.append(for_good), for_good=True)
    patching.forget_awaited()
    assert not patching.is_awaited(for_now)
    assert patching.is_awaited(for_good)
    for module in modules:
        __import__(module)
    assert loaded == [for_good]
    patching.forget_awaited()
    waits = any(isinstance(finder, patching._Finder) for finder in sys.meta_path)
    assert waits == bool(patching._patches.awaited)  # what other tests of the process await
