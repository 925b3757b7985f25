"""The files of a spool: their names, finding them, removing them."""

from __future__ import annotations

import logging
import os
import re
import time

logger = logging.getLogger("mlflow_fasttrace.sender")


def dead_letter_paths(folder: str) -> list[str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names if name.endswith(DEAD_LETTER_SUFFIX)]


def note_of(dead_letter: str) -> str:
    """The file with a dead letter's reason."""
    return dead_letter.removesuffix(DEAD_LETTER_SUFFIX) + ".txt"


COMPRESSION_LEVEL = 3  # of zstd
RING_NAME = re.compile(r"^(?P<stem>\d+-[0-9a-f]{8})\.ring$")
SPILL_NAME = re.compile(r"^spill-(?P<stem>\d+-[0-9a-f]{8})-(?P<sequence>\d+)\.seg$")
_PACKED_NAME = re.compile(r"^packed-(?P<time>[0-9]+)-[0-9]+\.seg$")
_OPEN_NAME = re.compile(r"^open-[0-9a-f]{32}\.seg$")
_LAST_TIME = 10**20 - 1  # that has a place in a name


def own_file(path: str, flags: int) -> int:
    """Opens for this user alone, follows no link, and does not wait for a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)


def remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.error("%s is delivered and cannot be removed: %s", path, error)


def folder_bytes(folder: str) -> int:
    """What the files of a folder hold."""
    total = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    total += entry.stat(follow_symlinks=False).st_size
                except FileNotFoundError:
                    continue
    except FileNotFoundError:
        pass
    return total


def ring_paths(*folders: str) -> list[str]:
    paths = []
    for folder in folders:
        try:
            names = os.listdir(folder)
        except FileNotFoundError:
            continue
        paths += [os.path.join(folder, name) for name in names if RING_NAME.match(name)]
    return paths


def segment_paths(state: str, rings: str | None = None) -> tuple[list[str], list[str]]:
    """The packed and the spilled segments of a spool, oldest first. Those that agents spilled to
    memory lie beside the rings; where one is in both folders it has just been moved to disk."""
    names = names_in(state)
    packed = [os.path.join(state, name) for name in names if _PACKED_NAME.match(name)]
    spilled = {name: state for name in names if SPILL_NAME.match(name)}
    if rings is not None and rings != state:
        for name in filter(SPILL_NAME.match, names_in(rings)):
            spilled.setdefault(name, rings)
    return packed, [os.path.join(spilled[name], name) for name in sorted(spilled)]


def remove_moved(state: str, rings: str) -> None:
    """What is on disk already: a sender was killed before it removed it from memory."""
    on_disk = set(names_in(state))
    if rings != state:
        for name in filter(SPILL_NAME.match, names_in(rings)):
            if name in on_disk:
                remove(os.path.join(rings, name))


def names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


def written_at(path: str) -> int:
    """When a segment was last written to (ns); 0 where it is gone."""
    try:
        return os.stat(path, follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0


def new_segment_path(folder: str) -> str:
    """For a packed segment. Its name comes after all others, also where the clock was set back."""
    now = time.time_ns()
    packed, _spilled = segment_paths(folder)
    names = map(_PACKED_NAME.match, map(os.path.basename, packed))
    before = [number for name in names if (number := int(name["time"])) < _LAST_TIME]
    now = max([now, *(number + 1 for number in before)])
    return os.path.join(folder, f"packed-{now:020d}-{os.getpid():06d}.seg")


def open_trace_path(folder: str, trace_id: bytes) -> str:
    """Where the record of a trace is kept that is delivered as far as it is."""
    return os.path.join(folder, f"open-{trace_id.hex()}.seg")


def remove_open_traces(folder: str) -> None:
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in filter(_OPEN_NAME.match, names):
        remove(os.path.join(folder, name))


def spill_stem(path: str) -> str:
    return SPILL_NAME.match(os.path.basename(path))["stem"]


DEAD_LETTER_SUFFIX = ".seg.refused"
