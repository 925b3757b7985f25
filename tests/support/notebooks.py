"""Notebooks, made, read and executed. nbclient and nbformat are imported where they are used: that takes seconds, which
every process that collects the tests would spend."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def made_of(codes: list[str]) -> Any:
    """A notebook with these cells."""
    import nbformat

    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in codes])


def read(path: Path) -> Any:
    import nbformat

    return nbformat.read(path, as_version=4)


def execute(notebook: Any, folder: Path, *, allow_errors: bool = False) -> None:
    """Runs all cells in a kernel of their own, which puts their outputs into the notebook.

    Args:
        folder: The kernel's working directory.
        allow_errors: Whether to go on where a cell raises.
    """
    import nbclient

    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(
        notebook, timeout=600, allow_errors=allow_errors, resources=resources
    ).execute()
