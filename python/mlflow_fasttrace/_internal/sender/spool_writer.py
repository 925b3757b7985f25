"""Small segments of the sender's own in the spool folder: dead letters and records of open traces."""

from __future__ import annotations

import logging

from mlflow_fasttrace import _core
from mlflow_fasttrace._internal.sender.status import Status
from mlflow_fasttrace._internal.spool.files import COMPRESSION_LEVEL

logger = logging.getLogger("mlflow_fasttrace.sender")


class SpoolWriter:
    """Writes segments, and logs once that it cannot, until it can again.

    Args:
        folder: The spool's folder.
        status: Hears of failures.
    """

    def __init__(self, folder: str, status: Status):
        self.folder = folder
        self._status = status
        self._fails = False

    def write(self, path: str, records: list[bytes]) -> bool:
        """Writes a segment.

        Returns:
            Whether it is on disk.
        """
        try:
            _core.write_segment(path, records, COMPRESSION_LEVEL)
        except (OSError, MemoryError) as error:
            if not self._fails:
                reason = str(error) or "no memory"
                logger.error("%s cannot be written: %s", self.folder, reason)
                self._status.error(f"the spool folder cannot be written: {reason}")
            self._fails = True
            return False
        self._fails = False
        return True
