"""The command ``mlflow-fasttrace`` in a terminal of its own, and what stands on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pyte

from support.waiting import wait_until

COMMAND = [sys.executable, "-m", "mlflow_fasttrace"]


def _take_interrupts() -> None:
    """What a shell starts in the background ignores Ctrl-C, and so would all that it starts."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Terminal:
    """A command in a terminal.

    Args:
        arguments: The command's.
        columns: Of the terminal.
        lines: Of the terminal.
        environment: More variables of the command.
    """

    def __init__(
        self, *arguments: str, columns: int = 100, lines: int = 40, **environment: str
    ) -> None:
        self.columns = columns
        self.raw = b""
        self._screen = pyte.HistoryScreen(columns, lines, history=100_000, ratio=1)
        self._stream = pyte.ByteStream(self._screen)
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            # What is there of a terminal's size is of the one that the tests run in.
            env={
                **{k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")},
                "TERM": "xterm-256color",
                **environment,
            },
            start_new_session=True,
            preexec_fn=_take_interrupts,
        )
        os.close(theirs)
        self._is_open = True

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._ours)

    @property
    def rows(self) -> list[str]:
        """All lines that were ever printed, those that have left the screen too, without spaces at their
        ends."""
        self._read(0)
        gone = [
            "".join(line[column].data for column in range(self.columns))
            for line in self._screen.history.top
        ]
        return [line.rstrip() for line in [*gone, *self._screen.display]]

    @property
    def text(self) -> str:
        return "\n".join(self.rows).rstrip()

    @property
    def hides_the_cursor(self) -> bool:
        return self._screen.cursor.hidden

    def waits_for(self, condition: str | Callable[[str], bool], seconds: float = 30) -> str:
        """The text once it holds another one, or a condition is true of it."""
        holds = condition if callable(condition) else lambda text: condition in text
        wait_until(lambda: holds(self.text), seconds, f"{condition} in:\n{self.text}\n")
        return self.text

    def ends(self, by: signal.Signals | None = None, seconds: float = 30) -> int:
        """Waits for the command's end.

        Args:
            by: A signal that asks for it.
            seconds: It has.

        Returns:
            The exit code.
        """
        if by is not None:
            self.process.send_signal(by)
        wait_until(lambda: self._read(0.05) is None and self.process.poll() is not None, seconds)
        # What it printed last may still be on its way through the kernel.
        wait_until(lambda: self._read(0.05) is None and not self._is_open, seconds)
        return self.process.returncode

    def _read(self, seconds: float) -> None:
        """Shows what the command has printed."""
        while self._is_open and select.select([self._ours], [], [], seconds)[0]:
            try:
                chunk = os.read(self._ours, 1 << 16)
            except OSError:  # the other end is closed
                chunk = b""
            self._is_open = bool(chunk)
            self.raw += chunk
            self._stream.feed(chunk)


def piped(*arguments: str, folder: Path, **environment: str) -> subprocess.Popen:
    """A command whose output goes to a pipe, as text."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        cwd=folder,
        preexec_fn=_take_interrupts,
    )
