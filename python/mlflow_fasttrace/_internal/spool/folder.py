"""The folders of a spool: one for a destination and a set of credentials."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import NamedTuple

from mlflow_fasttrace._internal.config import otlp
from mlflow_fasttrace._internal.config.environment import DEFAULT_SPOOL_BYTES, _integer

#: Variables that decide how a sender signs in, and where; their values never leave the environment.
CREDENTIAL_VARIABLES = (
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AWS_SIGV4",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_TRACKING_SERVER_CERT_PATH",
    "MLFLOW_TRACKING_INSECURE_TLS",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_WORKSPACE",
)
#: The same of what signs requests, where MLflow is told to sign them.
_SIGNING_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
)
#: What a spool may hold that is not on a disk.
MEMORY_BYTES = 64 << 20
SHARED_MEMORY = "/dev/shm"


def spool_max_bytes(state: str) -> int:
    """What the state folder of a spool may hold."""
    value = max(_integer("MLFLOW_FASTTRACE_SPOOL_MAX_BYTES", DEFAULT_SPOOL_BYTES), 64 << 10)
    return min(value, MEMORY_BYTES) if state.startswith(SHARED_MEMORY + "/") else value


class Spool(NamedTuple):
    """Where one sender's agents leave what they recorded."""

    name: str
    state: str  # segments, lock, log: survives a reboot
    rings: str  # rings, on tmpfs where there is one

    def in_memory(self) -> Spool | None:
        """The same with nothing on a disk: all of it on tmpfs, where there is one."""
        if not self.rings.startswith(SHARED_MEMORY):
            return None
        folder = self.rings + "-memory"
        return Spool(name=self.name + "-memory", state=folder, rings=folder)

    def spill_prefixes(self, stem: str) -> tuple[str, str | None]:
        """The paths up to their numbers of what an agent spills: to the disk, and to memory before
        that where rings lie there and segments do not."""
        name = f"spill-{stem}"
        in_memory = self.rings.startswith(SHARED_MEMORY + "/") and self.rings != self.state
        memory = os.path.join(self.rings, name) if in_memory else None
        return os.path.join(self.state, name), memory

    @property
    def lock(self) -> str:
        return os.path.join(self.state, "sender.lock")

    @property
    def log(self) -> str:
        return os.path.join(self.state, "sender.log")

    def make_state(self) -> None:
        """Creates the state folder, 0700.

        Raises:
            OSError: it cannot be made, or is another user's.
        """
        make_private(self.state)
        # A link or a pipe in place of them would stop every sender to come.
        for path in (self.lock, self.log):
            refuse_other_than_own_file(path)

    def make_rings(self) -> None:
        """The same for the folder of the rings."""
        make_private(self.rings)


def refuse_other_than_own_file(path: str) -> None:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(info.st_mode) or info.st_uid != os.geteuid():
        raise PermissionError(f"{path} is not a file of this user; remove it")


def make_private(folder: str) -> None:
    parent = os.path.dirname(folder)
    if os.path.dirname(parent) == SHARED_MEMORY:
        # Everybody may make folders there, and whose a folder is may swap what lies in it.
        make_private(parent)
    os.makedirs(parent, mode=0o700, exist_ok=True)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    info = os.lstat(folder)
    if os.path.islink(folder) or info.st_uid != os.geteuid():
        raise PermissionError(
            f"{folder} is not a folder of this user; remove it"
            + ("" if folder.startswith(SHARED_MEMORY) else " or set MLFLOW_FASTTRACE_SPOOL_DIR")
        )
    if info.st_mode & 0o077:
        os.chmod(folder, 0o700)


def state_root() -> str:
    if folder := os.environ.get("MLFLOW_FASTTRACE_SPOOL_DIR"):
        return folder
    import platformdirs

    return platformdirs.user_state_dir("mlflow-fasttrace", appauthor=False)


def rings_prefix(root: str) -> str:
    """Rings of different spool roots must not mix: this part of the root is in their names."""
    return hashlib.blake2b(root.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()


def spool_for(uri: str) -> Spool:
    """The spool of a destination and of the credentials that this process has for it."""
    names = otlp.VARIABLES if otlp.is_collector(uri) else CREDENTIAL_VARIABLES
    if names is CREDENTIAL_VARIABLES and os.environ.get("MLFLOW_TRACKING_AWS_SIGV4"):
        names += _SIGNING_VARIABLES
    secret = "\0".join([uri] + [f"{name}={os.environ.get(name, '')}" for name in names])
    root = os.path.abspath(state_root())
    digest = hashlib.blake2b(
        secret.encode("utf-8", "surrogatepass"), digest_size=8, person=b"mlflow-fasttrace"[:16]
    ).hexdigest()
    return spool_named(root, digest)


def spool_named(root: str, digest: str) -> Spool:
    """The folders of a spool below an absolute state root."""
    state = os.path.join(root, digest)
    rings = (
        os.path.join(
            SHARED_MEMORY, f"mlflow-fasttrace-{os.geteuid()}", f"{rings_prefix(root)}-{digest}"
        )
        if os.path.isdir(SHARED_MEMORY) and os.access(SHARED_MEMORY, os.W_OK)
        else os.path.join(state, "rings")
    )
    return Spool(name=digest, state=state, rings=rings)


def remove_if_empty(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError:
        pass  # an agent has just come, or the folder is gone
