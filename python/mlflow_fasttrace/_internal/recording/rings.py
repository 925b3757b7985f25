"""The rings of this process: one for each destination that it records for. A ring is where ended
spans wait until a sender takes them: shared memory, or memory of this process alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import NamedTuple

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.base import log, paths
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.config import environment
from mlflow_fasttrace._internal.spool import places
from mlflow_fasttrace._internal.spool.files import is_spilled, ring_stem, spill_stem
from mlflow_fasttrace._internal.spool.folder import (
    Spool,
    remove_if_empty,
    spool_for,
    spool_max_bytes,
    spools_root,
)
from mlflow_fasttrace._internal.spool.lock import sender_of
from mlflow_fasttrace._internal.spool.reading import READ_BYTES
from mlflow_fasttrace._internal.spool.ring_states import ServerState

#: To a ring's writer: the ring's own, and that of the call which counts them.
_REFERENCES_OF_UNUSED = 2
_BYTES_WITHOUT_SPOOL = 16 << 20  # of a ring from which nothing can be spilled, at least


class Progress(NamedTuple):
    """How far a ring's records have come. Positions are bytes since the ring was made; the other
    numbers count records and traces."""

    head: int  # recorded up to here
    tail: int  # taken by the sender, which keeps it on disk at least, up to here
    delivered: int  # acknowledged by the server up to here
    spilled: int  # records that went to segments since the ring was full
    spill_delivered: int  # those of them that are delivered
    server_state: int  # a ServerState, which the sender writes
    refused_records: int  # found no room
    refused_traces: int

    @property
    def is_delivered(self) -> bool:
        return self.delivered >= self.head and self.spill_delivered >= self.spilled


class Ring:
    """A ring of this process, and what its sender needs to know.

    Args:
        spool: Its spool; None: the ring is memory of this process alone.
        uri: Its destination.
        writer: The core's end.
        path: Its file.
        credentials: Stands for the credentials it was made with (``Spool.credentials``).
    """

    def __init__(
        self,
        spool: Spool | None,
        uri: str,
        writer: _core.RingWriter,
        path: str | None,
        credentials: str,
    ):
        self.spool = spool
        self.uri = uri
        self.writer = writer
        self.path = path
        self.credentials = credentials
        #: Those that the sender got last, named in the same way.
        self.credentials_of_sender = credentials

    def progress(self) -> Progress | None:
        """None when the ring is closed or a parent process's."""
        numbers = self.writer.progress()
        return None if numbers is None else Progress(*numbers)

    def server_forbids(self) -> bool:
        """Whether the sender has said that the server does not let it in."""
        progress = self.progress()
        return progress is not None and progress.server_state == ServerState.FORBIDS

    def is_unused(self) -> bool:
        """Whether neither new traces nor open ones go there."""
        return sys.getrefcount(self.writer) <= _REFERENCES_OF_UNUSED

    def close(self) -> None:
        """Lets go of a ring that holds nothing. Its sender removes the file, where it has one."""
        self.writer.close()
        if self.spool is None or self.path is None or sender_of(self.spool) is not None:
            return
        try:
            os.unlink(self.path)
        except OSError as error:
            let_pass(error)
        remove_if_empty(self.spool.rings)

    def move_to(self, other: Ring) -> None:
        """Moves what the ring holds into another one, as far as that has room. What it has spilled to the disk is
        found there by any sender.

        Args:
            other: Of the same destination.
        """
        reader = _core.RingReader(self.writer)
        try:
            while entries := reader.drain(READ_BYTES):
                moved = other.writer.append([record for _, _, _, record in entries])
                if moved < len(entries):
                    if moved:
                        reader.release(entries[moved - 1][0])
                    return
                reader.release(reader.cursor)
                reader.set_delivered(reader.cursor)
            reader.add_spill_delivered(reader.spilled - reader.spill_delivered)
        finally:
            reader.close()

    def let_spares_go(self) -> None:
        """Lets go of memory that is kept for bursts."""
        self.writer.let_spares_go()

    def spilled_to_memory(self) -> bool:
        """Whether segments of this process are where a reboot would find nothing."""
        if self.spool is None or self.path is None:
            return False
        stem = ring_stem(self.path)
        _, prefix = self.spool.spill_prefixes(stem)
        if prefix is None:
            return False
        try:
            found = filter(is_spilled, os.listdir(os.path.dirname(prefix)))
            return any(spill_stem(name) == stem for name in found)
        except OSError as error:
            let_pass(error)
            return False


class Rings:
    """All rings of this process."""

    def __init__(self) -> None:
        #: The process that made them. Another one is a child that has forked without Python.
        self.pid = os.getpid()
        #: By the name of their spool.
        self.in_use: dict[str, Ring] = {}
        #: Rings whose files somebody has removed. What traces that have begun put there moves to others.
        self.retired: list[Ring] = []
        #: The URI of the destination that traces go to first, as it was when that was worked out: a relative one
        #: means another place once the program has changed its folder.
        self.first_uri: str | None = None

    def __iter__(self) -> Iterator[Ring]:
        return iter([*self.in_use.values(), *self.retired])

    def forget(self) -> None:
        """Begins anew in a forked child. The parent's rings are not touched."""
        self.pid = os.getpid()
        self.in_use.clear()
        self.retired.clear()

    def retire(self, name: str) -> None:
        """Takes a ring out of use whose file is gone.

        Args:
            name: By which it is in use.
        """
        self.retired.append(self.in_use.pop(name))

    def ring_for(self, uri: str) -> Ring:
        """The ring for a destination and the credentials of now; it is made where there is none. It
        lies in shared memory and its spool on disk, or as near to that as can be had.

        Raises:
            OSError: there is not even memory for it.
        """
        _make_root()
        spool = spool_for(uri)
        wanted = [spool] if environment.spool_on_disk() else []
        candidates = [*wanted, *filter(None, [spool.in_memory()])]
        for name in [*(candidate.name for candidate in candidates), spool.name]:
            if name in self.in_use:
                return self.in_use[name]
        reason = None
        for candidate in candidates:
            try:
                writer, path = _make(candidate)
            except OSError as error:
                let_pass(error)
                reason = reason or error
                continue
            ring = Ring(candidate, uri, writer, path, spool.credentials)
            break
        else:
            capacity = max(environment.ring_bytes(), _BYTES_WITHOUT_SPOOL)
            ring = Ring(None, uri, _core.RingWriter(None, capacity, "/"), None, spool.credentials)
        if reason is not None and wanted and ring.spool is not spool:
            log.warn(
                f"The spool folder cannot be used ({reason}): what cannot be delivered at once is "
                "kept in memory, up to a bound, and does not outlive the machine. Free space, or "
                "set MLFLOW_FASTTRACE_SPOOL_DIR to a folder that this user can write to."
            )
        self.in_use[ring.spool.name if ring.spool else spool.name] = ring
        return ring

    def let_go_of_idle(self) -> None:
        """Closes rings of former destinations that hold nothing and that no open trace goes to: a program may have
        any number of them, as tests with a database each do. Those of now are the core's."""
        for name, ring in list(self.in_use.items()):
            progress = ring.progress()
            if progress is not None and progress.is_delivered and ring.is_unused():
                del self.in_use[name]
                ring.close()


def _make_root() -> None:
    """Makes the folder of spools, by which a place is known, where it can be made: with the first spool in it
    the rest is found out."""
    try:
        paths.make_folders(os.path.abspath(spools_root()))
    except OSError as error:
        let_pass(error)


def _make(spool: Spool) -> tuple[_core.RingWriter, str]:
    """A ring in shared memory, or else in the spool folder, and its path."""
    stem = f"{os.getpid()}-{os.urandom(4).hex()}"
    spool.make_folder()
    if spool.folder != spool.rings:
        places.show_to_live(os.path.dirname(spool.folder), spool.place)
    try:
        spool.make_rings()
        return _make_in(spool.rings, spool, stem)
    except OSError as error:
        let_pass(error)
        if isinstance(error, PermissionError):
            log.warn(f"Rings lie in {spool.folder}, which is slower: {error}.")
    return _make_in(spool.folder, spool, stem)


def _make_in(folder: str, spool: Spool, stem: str) -> tuple[_core.RingWriter, str]:
    path = os.path.join(folder, f"{stem}.ring")
    on_disk, in_memory = spool.spill_prefixes(stem)
    ring = _core.RingWriter(
        path,
        environment.ring_bytes(),
        on_disk,
        spool_max_bytes(spool.folder),
        in_memory if folder == spool.rings else None,
    )
    return ring, path


rings = Rings()
