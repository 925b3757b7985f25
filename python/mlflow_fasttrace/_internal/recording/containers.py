"""Containers: with the process that a container was started for, all its other processes end, the sender too,
and its own memory and files with them."""

from __future__ import annotations

from mlflow_fasttrace._internal.base.interruptions import let_pass
from mlflow_fasttrace._internal.base.system import os
from mlflow_fasttrace._internal.spool.places import mount_of

#: What Linux calls the processes of a machine that are in no container.
_OF_THE_MACHINE = "pid:[4026531836]"

#: Programs that a container is started with, and that end with the one that they start.
_SHIMS = frozenset(
    {"bash", "catatonit", "dash", "docker-init", "dumb-init", "sh", "tini", "tini-static"}
)

#: File systems that end with a container.
_PASSING = frozenset({"overlay", "aufs", "tmpfs", "ramfs", "shm"})


def ends_with_this_process() -> bool:
    """Whether all other processes end with this one: it is the first of a container, or started by one that
    does nothing else."""
    if os.getpid() == 1:
        return True
    parent = os.getppid()
    if parent > 1:
        return False
    try:
        if os.readlink("/proc/self/ns/pid") == _OF_THE_MACHINE:
            return False
        if (
            parent == 0
        ):  # started from outside: the first of a container that shares a pod's processes
            return True
        with open("/proc/1/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip() in _SHIMS
    except OSError as error:
        let_pass(error)
        return False


def outlives(folder: str) -> bool:
    """Whether a folder's files are there after a container has ended: it lies in a volume."""
    place, kind = mount_of(folder)
    return place not in ("", "/") and kind not in _PASSING
