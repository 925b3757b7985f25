"""The commit that a program runs from, as MLflow notes it of every trace where GitPython is installed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import urlsplit, urlunsplit


@lru_cache(maxsize=256)
def git_metadata(folder: str) -> dict[str, str]:
    """Commit, branch and the first remote of a folder's repository; nothing without GitPython, and empty
    texts for what cannot be found out.

    Args:
        folder: The program's working folder.
    """
    try:
        from git import Repo  # slow to import; it fails where git itself is missing
    except ImportError:
        return {}
    found = {
        "mlflow.source.git.commit": "",
        "mlflow.source.git.repoURL": "",
        "mlflow.source.git.branch": "",
    }
    with _whatever_git_says():
        repository = Repo(folder, search_parent_directories=True)
        with _whatever_git_says():
            if folder not in repository.ignored(folder):
                found["mlflow.source.git.commit"] = repository.head.commit.hexsha
        with _whatever_git_says():
            url = next((remote.url for remote in repository.remotes), "")
            found["mlflow.source.git.repoURL"] = _without_user(url)
        with _whatever_git_says():
            found["mlflow.source.git.branch"] = repository.active_branch.name
    return found


@contextlib.contextmanager
def _whatever_git_says() -> Iterator[None]:
    """Goes on without what cannot be found out: there is no repository, no commit, or no right to look."""
    try:
        yield
    except MemoryError:
        raise
    except Exception:
        pass


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    if not parts.scheme or "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
