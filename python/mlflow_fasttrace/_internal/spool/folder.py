"""The folders of a spool: one for a destination, a set of credentials and a place (places.py)."""

from __future__ import annotations

import stat
from typing import NamedTuple

from mlflow_fasttrace._internal.base import paths
from mlflow_fasttrace._internal.base.digests import digest
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.config import environment, otlp
from mlflow_fasttrace._internal.spool.file_locks import assert_locks_work, close_lock, open_lock
from mlflow_fasttrace._internal.spool.places import place_of

#: Bytes that a spool may hold that is not on a disk.
MEMORY_BYTES = 64 << 20
SHARED_MEMORY = "/dev/shm"
#: Ends the names of spools that are not on disk.
IN_MEMORY = "-memory"


def spool_max_bytes(folder: str) -> int:
    """Bytes that a spool folder may hold."""
    value = environment.spool_max_bytes()
    return min(value, MEMORY_BYTES) if folder.startswith(SHARED_MEMORY + "/") else value


class Spool(NamedTuple):
    """Where the programs of one sender leave what they recorded."""

    name: str  # of its destination and credentials, a hyphen, and that of its place
    folder: str  # segments, lock, log: survives a reboot
    rings: str  # rings, on tmpfs where there is one

    @property
    def credentials(self) -> str:
        """Stands for the destination and the credentials, wherever the spool lies."""
        return self.name.partition("-")[0]

    @property
    def place(self) -> str:
        """The place of its programs; empty for a spool of an earlier release."""
        return self.name.removesuffix(IN_MEMORY).partition("-")[2]

    def in_memory(self) -> Spool | None:
        """The spool with nothing on a disk that stands in for this one; None without tmpfs."""
        if not self.rings.startswith(SHARED_MEMORY):
            return None
        folder = self.rings + IN_MEMORY
        return Spool(name=self.name + IN_MEMORY, folder=folder, rings=folder)

    def spill_prefixes(self, stem: str) -> tuple[str, str | None]:
        """The paths, up to their numbers, of the segments that a program spills.

        Args:
            stem: Of the name of the program's ring.

        Returns:
            Those on disk, and those in memory, which come first; None where the rings do not lie in
            memory, or the segments do too.
        """
        name = f"spill-{stem}"
        in_memory = self.rings.startswith(SHARED_MEMORY + "/") and self.rings != self.folder
        memory = os.path.join(self.rings, name) if in_memory else None
        return os.path.join(self.folder, name), memory

    @property
    def lock(self) -> str:
        return os.path.join(self.folder, "sender.lock")

    @property
    def log(self) -> str:
        return os.path.join(self.folder, "sender.log")

    def make_folder(self) -> None:
        """Creates the spool folder, 0700.

        Raises:
            OSError: it cannot be made, is another user's, or lies on a file system without locks.
        """
        _make_private(self.folder)
        # A link or a pipe in place of them would stop every sender to come.
        for path in (self.lock, self.log):
            _refuse_other_than_own_file(path)
        lock = open_lock(self.lock)
        try:
            assert_locks_work(lock, self.lock)
        finally:
            close_lock(lock)

    def make_rings(self) -> None:
        """Creates the folder of the rings, 0700.

        Raises:
            OSError: it cannot be made, or is another user's.
        """
        _make_private(self.rings)


def _refuse_other_than_own_file(path: str) -> None:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a file of this user; remove it")


def _make_private(folder: str) -> None:
    """Creates a folder that only this user may enter, and those above it.

    Raises:
        OSError: it cannot be made, or is a link or another user's.
    """
    parent = os.path.dirname(folder)
    if os.path.dirname(parent) == SHARED_MEMORY or os.path.basename(parent) == _name_among_users():
        # Everybody may make folders there, and the owner of a folder may swap what lies in it.
        _make_private(parent)
    paths.make_folders(parent)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    info = os.lstat(folder)
    if stat.S_ISLNK(info.st_mode) or info.st_uid != os.geteuid():
        raise PermissionError(
            f"{folder} is not a folder of this user; remove it"
            + ("" if folder.startswith(SHARED_MEMORY) else " or set MLFLOW_FASTTRACE_SPOOL_DIR")
        )
    if info.st_mode & 0o077:
        os.chmod(folder, 0o700)


def spools_root() -> str:
    """The folder that all spool folders lie in."""
    if folder := environment.spool_dir():
        return folder
    import platformdirs

    try:
        folder = platformdirs.user_state_dir("mlflow-fasttrace", appauthor=False)
    except RuntimeError as error:  # of a platformdirs that looks for the home itself
        let_pass(error)
        folder = ""
    if os.path.isabs(folder):
        return folder
    import tempfile

    # This user has no home: neither HOME nor an entry in the password database.
    return os.path.join(tempfile.gettempdir(), _name_among_users())


def _name_among_users() -> str:
    """The name of this user's folder where everybody may make some."""
    return f"mlflow-fasttrace-{os.geteuid()}"


def rings_prefix(root: str) -> str:
    """The part of rings' folders that stands for a folder of spools: those of two must not mix."""
    return digest(root, 4)


def spool_for(uri: str) -> Spool:
    """The spool of a destination and of the credentials that this process has for it."""
    credentials = otlp.credentials() if otlp.is_collector(uri) else environment.credentials()
    secret = "\0".join([uri, *credentials])
    root = os.path.abspath(spools_root())
    destination = digest(secret, 8, b"mlflow-fasttrace")
    place = place_of(root, SHARED_MEMORY if _has_shared_memory() else root)
    return spool_named(root, f"{destination}-{place}")


def spool_named(root: str, name: str) -> Spool:
    """The folders of a spool below an absolute folder of spools."""
    folder = os.path.join(root, name)
    rings = (
        os.path.join(SHARED_MEMORY, _name_among_users(), f"{rings_prefix(root)}-{name}")
        if _has_shared_memory()
        else os.path.join(folder, "rings")
    )
    return Spool(name=name, folder=folder, rings=rings)


def _has_shared_memory() -> bool:
    return paths.is_folder(SHARED_MEMORY) and paths.is_allowed(SHARED_MEMORY, os.W_OK)


def remove_if_empty(folder: str) -> None:
    """Removes a folder of rings unless a program has just come, or it is gone."""
    try:
        os.rmdir(folder)
    except OSError as error:
        let_pass(error)
