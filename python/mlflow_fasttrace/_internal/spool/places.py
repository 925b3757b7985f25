"""Where processes see each other's rings. Two containers may share a folder of spools and have a /dev/shm each; or
have one /dev/shm, as those of a pod, and a home each. Each of them is a place of its own, with spools, a sender and
a lock of its own. A place ends with the machine's boot, at the latest."""

from __future__ import annotations

from mlflow_fasttrace._internal.base.digests import digest
from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import fcntl, os
from mlflow_fasttrace._internal.spool.file_locks import (
    close_lock,
    is_in_place,
    open_lock,
    try_lock,
)

_BOOT = "/proc/sys/kernel/random/boot_id"

#: File systems of one machine. Only there does a lock that can be had show that nobody has it.
_OF_ONE_MACHINE = frozenset(
    [
        "bcachefs",
        "btrfs",
        "ext2",
        "ext3",
        "ext4",
        "f2fs",
        "jfs",
        "overlay",
        "ramfs",
        "reiserfs",
        "tmpfs",
        "vfat",
        "xfs",
        "zfs",
    ]
)

#: The lock files that show that this process lives, by their paths. None are ever given back.
_held: dict[str, int] = {}


def place_of(root: str, rings_root: str) -> str:
    """The name of the place that a process is in.

    Args:
        root: The folder of spools; it may be missing.
        rings_root: What the rings of all spools lie in, where that is not the folder of spools: a folder of
            shared memory.

    Returns:
        Eight hex digits.
    """
    parts = [_boot(), str(os.geteuid()), root]
    for folder in (root, rings_root):
        found = _first_that_is_there(folder)
        parts.append(f"{found.st_dev}:{found.st_ino}" if found is not None else "")
    return digest("\0".join(parts), 4)


def lock_of_place(root: str, place: str) -> str:
    """The path of the file that every process of a place that records has a lock on while it lives."""
    return os.path.join(root, f"place-{place}.lock")


def show_to_live(root: str, place: str) -> None:
    """Shows for as long as this process lives that somebody in its place may have something to deliver.

    Raises:
        OSError: the file cannot be made.
    """
    path = lock_of_place(root, place)
    known = _held.get(path)
    if known is not None and is_in_place(known, path):
        return
    while True:
        fd = open_lock(path)
        # What cannot be had is had by somebody who looks whether this place has ended, and is done in a moment.
        if not try_lock(fd, fcntl.LOCK_SH) or is_in_place(fd, path):
            break
        close_lock(fd)
    _held[path] = fd


def forget() -> None:
    """Begins anew in a forked child, whose parent shows that it lives itself."""
    _held.clear()


def locks_tell(folder: str) -> bool:
    """Whether a lock that can be had on a file of a folder shows that no other process has it: not everywhere on a
    network."""
    return mount_of(folder)[1] in _OF_ONE_MACHINE


def mount_of(folder: str) -> tuple[str, str]:
    """Where the file system is mounted that a folder lies on, and its kind; empty where that cannot be told."""
    place, kind = "", ""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                mount, _, more = line.partition(" - ")
                point = mount.split(" ")[4].replace("\\040", " ")
                inside = folder == point or folder.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(place):
                    place, kind = point, more.split(" ")[0]
    except (OSError, IndexError) as error:
        let_pass(error)
        return "", ""
    return place, kind


def _boot() -> str:
    """What no other machine has, nor this one after its next start."""
    try:
        fd = os.open(_BOOT, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        let_pass(error)
        return os.uname().nodename
    try:
        return os.read(fd, 100).decode("ascii", "replace").strip()
    finally:
        os.close(fd)


def _first_that_is_there(folder: str) -> os.stat_result | None:
    """The folder, or the nearest one above it that is there."""
    while True:
        try:
            return os.stat(folder)
        except OSError as error:
            let_pass(error)
            above = os.path.dirname(folder)
            if above == folder:
                return None
            folder = above


os.register_at_fork(after_in_child=forget)
