"""The files of a spool: their names, finding and removing them.

``docs/spool-format.md`` says what each of them is.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from typing import NamedTuple

from mlflow_fasttrace._internal.base.interruptions import let_pass

logger = logging.getLogger("mlflow_fasttrace.sender")

COMPRESSION_LEVEL = 3  # of zstd, for segments

_RING_NAME = re.compile(r"^(?P<stem>\d+-[0-9a-f]{8})\.ring$")
_SPILL_NAME = re.compile(r"^spill-(?P<stem>\d+-[0-9a-f]{8})-(?P<sequence>\d+)\.seg$")
_SPARE_SUFFIX = ".spare"
_SPARE_NAME = re.compile(
    r"^spill-(?P<stem>\d+-[0-9a-f]{8})-(\d+|next)\.seg\.(?P<state>spare|taken|freed)$"
)
DEAD_LETTER_SUFFIX = ".seg.refused"
_DEAD_LETTER_PREFIX = "refused-"
_NOTE_SUFFIX = ".txt"
_DAMAGED_SUFFIX = ".damaged"
_PACKED_NAME = re.compile(r"^packed-(?P<time>[0-9]+)-[0-9]+\.seg$")
_CHANGE_NAME = re.compile(r"^change-[0-9]{20}-[0-9]+-[0-9]+\.json$")
_REFUSED_CHANGE_SUFFIX = ".refused"
_OPEN_TRACE_NAME = re.compile(r"^open-[0-9a-f]{32}\.seg$")
_TIME_DIGITS = 20  # of a packed segment's name, so that names sort as times do
_LAST_TIME = 10**_TIME_DIGITS - 1


class Unreadable(Exception):
    """A file or folder is not what its name says; the message is one line for the user."""


# ---- measuring, removing ----


def remove(path: str) -> None:
    """Remove a file that is not needed any more; a log line where that fails."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        logger.error("%s is not needed any more and cannot be removed: %s", path, error)


def folder_bytes(folder: str) -> int:
    """The sizes of a folder's files together; 0 where there is no folder."""
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


def written_at(path: str) -> int:
    """When a file was last written to (ns since the epoch); 0 where it is gone."""
    try:
        return os.stat(path, follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0


def _names_in(folder: str) -> list[str]:
    """The names in a folder, sorted; none where there is no folder."""
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []


# ---- rings ----


def is_ring(name: str) -> bool:
    """Whether a file's name is a ring's."""
    return _RING_NAME.match(name) is not None


def ring_paths(*folders: str) -> list[str]:
    """The rings in some folders."""
    return [
        os.path.join(folder, name)
        for folder in folders
        for name in _names_in(folder)
        if is_ring(name)
    ]


def ring_stem(path: str) -> str:
    """The stem of a ring's name, which the segments share that its program spills; empty where the path
    is not named as a ring."""
    match = _RING_NAME.match(os.path.basename(path))
    return "" if match is None else match["stem"]


# ---- segments ----


def is_packed(name: str) -> bool:
    """Whether a file's name is that of a segment that a sender wrote."""
    return _PACKED_NAME.match(name) is not None


def is_spilled(name: str) -> bool:
    """Whether a file's name is that of a segment that a program writes."""
    return _SPILL_NAME.match(name) is not None


def segment_paths(folder: str, rings: str | None = None) -> tuple[list[str], list[str]]:
    """The segments of a spool, oldest first.

    Args:
        folder: The spool folder.
        rings: The folder of the rings, where segments that programs spilled to memory lie. A segment
            that is in both folders has just been moved to disk, and counts there.

    Returns:
        The packed segments and the spilled ones.
    """
    names = _names_in(folder)
    packed = [os.path.join(folder, name) for name in names if is_packed(name)]
    spilled = {name: folder for name in names if is_spilled(name)}
    if rings is not None and rings != folder:
        for name in _spilled_in(rings):
            spilled.setdefault(name, rings)
    return packed, [os.path.join(spilled[name], name) for name in sorted(spilled)]


def remove_moved(folder: str, rings: str) -> None:
    """Remove from memory the spilled segments that are on disk already: a sender was killed between
    moving them and removing them."""
    if rings == folder:
        return
    on_disk = set(_names_in(folder))
    for name in _spilled_in(rings):
        if name in on_disk:
            remove(os.path.join(rings, name))


def _spilled_in(folder: str) -> list[str]:
    """The names of a folder's segments that programs spilled."""
    return list(filter(is_spilled, _names_in(folder)))


def give_back(path: str) -> None:
    """Leave the memory of a spilled segment, all of which is delivered, to the program for its next one.

    ``ext/spool/spare_segments.c`` is the program's side.
    """
    try:
        os.rename(path, path + _SPARE_SUFFIX)
    except OSError:
        remove(path)


class Spare(NamedTuple):
    """Memory that a program may use again."""

    path: str
    stem: str  # of the name of the program's ring
    inode: int
    is_taken: bool  # the program is making it its next segment


def spares(rings: str) -> list[Spare]:
    """The memory in the rings' folder that programs may use again."""
    found = []
    for match in filter(None, map(_SPARE_NAME.match, _names_in(rings))):
        path = os.path.join(rings, match.string)
        if match["state"] == "freed":
            free(path)  # a sender was killed before it had done so
            continue
        try:
            inode = os.stat(path, follow_symlinks=False).st_ino
        except FileNotFoundError:
            continue
        found.append(Spare(path, match["stem"], inode, match["state"] == "taken"))
    return found


def free_spare(path: str) -> None:
    """Free memory that a program may use again; nothing where the program takes it at the same time."""
    freed = path.removesuffix(_SPARE_SUFFIX) + ".freed"
    try:
        os.rename(path, freed)
    except OSError as error:
        let_pass(error)
        return
    free(freed)


def free(path: str) -> None:
    """Remove a file of memory, which its program may still map, and give the memory back."""
    try:
        os.truncate(path, 0)
    except OSError as error:
        let_pass(error)
    remove(path)


def spill_stem(path: str) -> str:
    """The stem that a spilled segment's name shares with the ring of its program.

    Raises:
        ValueError: The path is no spilled segment's.
    """
    return _spill_name(path)["stem"]


def spill_sequence(path: str) -> int:
    """The number of a spilled segment among those of its program.

    Raises:
        ValueError: The path is no spilled segment's.
    """
    return int(_spill_name(path)["sequence"])


def _spill_name(path: str) -> re.Match[str]:
    match = _SPILL_NAME.match(os.path.basename(path))
    if match is None:
        raise ValueError(f"{path} is no spilled segment")
    return match


def new_segment_path(folder: str) -> str:
    """A path for a packed segment whose name comes after all others, also where the clock was set
    back."""
    names = filter(None, (_PACKED_NAME.match(name) for name in _names_in(folder)))
    taken = [number for name in names if (number := int(name["time"])) < _LAST_TIME]
    free = max([time.time_ns(), *(number + 1 for number in taken)])
    return os.path.join(folder, f"packed-{free:0{_TIME_DIGITS}d}-{os.getpid():06d}.seg")


def open_trace_path(folder: str, trace_id: bytes) -> str:
    """The file with the last record of an open trace, all of whose ended spans are delivered."""
    return os.path.join(folder, f"open-{trace_id.hex()}.seg")


def open_trace_paths(folder: str) -> list[str]:
    """The files of all open traces in a spool folder; none where it cannot be read."""
    return [
        os.path.join(folder, name) for name in _names_in(folder) if _OPEN_TRACE_NAME.match(name)
    ]


# ---- changes that wait for their traces (changes.py) ----


def change_paths(folder: str) -> list[str]:
    """The files of the changes that wait in a spool folder, the oldest first; none where it cannot be read."""
    return _paths_where(_CHANGE_NAME.match, folder)


def refused_change(path: str) -> str:
    """Where the file of a change goes that cannot be made."""
    return path + _REFUSED_CHANGE_SUFFIX


def refused_change_paths(folder: str) -> list[str]:
    """The files of the changes of a spool folder that could not be made; none where it cannot be read."""
    suffix = _REFUSED_CHANGE_SUFFIX
    return _paths_where(
        lambda name: name.endswith(suffix) and _CHANGE_NAME.match(name.removesuffix(suffix)), folder
    )


# ---- dead letters, damaged segments ----


def dead_letter_paths(folder: str) -> list[str]:
    """The dead letters in a spool folder; none where it cannot be read."""
    return _paths_ending_in(DEAD_LETTER_SUFFIX, folder)


def new_dead_letter_path(folder: str, ids: str) -> str:
    """A path for a dead letter, beside earlier ones of the same ids.

    Args:
        folder: The spool folder.
        ids: As ``ids_of`` reads them: the trace's id, or that, a hyphen and the span's; hex.
    """
    stem = base = os.path.join(folder, _DEAD_LETTER_PREFIX + ids)
    number = 1
    while any(os.path.lexists(stem + suffix) for suffix in (DEAD_LETTER_SUFFIX, _NOTE_SUFFIX)):
        number += 1
        stem = f"{base}.{number}"
    return stem + DEAD_LETTER_SUFFIX


def note_of(dead_letter: str) -> str:
    """The file with the reason of a dead letter."""
    return dead_letter.removesuffix(DEAD_LETTER_SUFFIX) + _NOTE_SUFFIX


def ids_of(dead_letter: str) -> tuple[str, str | None]:
    """The ids in a dead letter's name.

    Returns:
        The trace's id, and the span's where it is one span alone that a collector refused; both hex.
    """
    name = os.path.basename(dead_letter).removesuffix(DEAD_LETTER_SUFFIX)
    ids = name.partition(".")[0].removeprefix(_DEAD_LETTER_PREFIX)  # ".2" and so on may follow
    trace_id, _, span_id = ids.partition("-")
    return trace_id, span_id or None


def damaged_copy_of(segment: str) -> str:
    """The path of the copy of a damaged segment."""
    return segment.removesuffix(".seg") + _DAMAGED_SUFFIX


def damaged_paths(folder: str) -> list[str]:
    """The copies of damaged segments in a spool folder; none where it cannot be read."""
    return _paths_ending_in(_DAMAGED_SUFFIX, folder)


def _paths_ending_in(suffix: str, folder: str) -> list[str]:
    return _paths_where(lambda name: name.endswith(suffix), folder)


def _paths_where(is_wanted: Callable[[str], object], folder: str) -> list[str]:
    try:
        names = _names_in(folder)
    except OSError:
        return []
    return [os.path.join(folder, name) for name in names if is_wanted(name)]
