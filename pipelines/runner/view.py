"""Shows what each operator does: on a terminal in a table that is redrawn, in a log as a line now and then."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from nuclei_segmentation.shared.runtime.outside import harmless
from nuclei_segmentation.shared.runtime.progress import duration

DRAW_SECONDS = 0.5
LINE_SECONDS = 10.0

_TAIL_BYTES = 4096
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO +")
"""Begins each line of this project's operators. It is left out: what is shown has just happened."""
_CLEAR = "\x1b[{}F\x1b[J"
"""Moves the cursor up so many lines, and clears the screen from there on."""


class View:
    """What a user sees of a run.

    Parameters
    ----------
    names : Sequence of str
        Names of the operators, in their order.
    stream : TextIO
        Where to show it.
    """

    def __init__(self, names: Sequence[str], stream: TextIO) -> None:
        self._states = dict.fromkeys(names, "waits")
        self._starts: dict[str, float] = {}
        self._logs: dict[str, Path] = {}
        self._shown: dict[str, str] = {}
        self._stream, self._terminal = stream, stream.isatty()
        self._rows_drawn = 0
        self._last_tick = time.monotonic()
        self._lock = threading.RLock()

    def show(self, text: str) -> None:
        """Show a line that stays. Any thread may call this."""
        with self._lock:
            self._write(f"{harmless(text)}\n")

    def started(self, name: str, log: Path) -> None:
        """Note that an operator runs.

        Parameters
        ----------
        name : str
            The operator.
        log : pathlib.Path
            The file to which it prints.
        """
        self._starts[name], self._logs[name] = time.monotonic(), log

    def ended(self, name: str, state: str) -> None:
        """Note that an operator has ended.

        Parameters
        ----------
        name : str
            The operator.
        state : str
            How it ended, in a few words.
        """
        self._starts.pop(name, None)
        self._states[name] = state

    def tick(self) -> None:
        """Show the progress of all operators, if it is time to."""
        now = time.monotonic()
        if now - self._last_tick < (DRAW_SECONDS if self._terminal else LINE_SECONDS):
            return
        self._last_tick = now
        if self._terminal:
            with self._lock:
                self._write("")
            return
        for name in self._starts:
            text = last_line(self._logs[name])
            if text and self._shown.get(name) != text:
                self._shown[name] = text
                self.show(f"{name}: {text}")

    def close(self) -> None:
        """Remove the table: what is printed next starts on a clean line."""
        with self._lock:
            self._terminal = False
            self._write("")

    def _write(self, text: str) -> None:
        """Write a text, and the table below it.

        Raises
        ------
        BrokenPipeError
            The reader of the stream has gone.
        """
        try:
            self._clear()
            self._stream.write(text)
            self._draw()
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:  # a closed terminal, a full disk: the run does not depend on being seen
            self._terminal = False

    def _clear(self) -> None:
        if self._rows_drawn:
            self._stream.write(_CLEAR.format(self._rows_drawn))
            self._rows_drawn = 0

    def _draw(self) -> None:
        if not self._terminal:
            return
        size = self._size()
        rows = list(self._rows())[: max(1, size.lines - 2)]  # a row that has scrolled away cannot be redrawn
        self._stream.writelines(f"{row[: max(1, size.columns - 1)]}\n" for row in rows)
        self._rows_drawn = len(rows)

    def _size(self) -> os.terminal_size:
        """Return the size of the terminal with the table; the standard output may be another terminal, or a file."""
        try:
            columns, lines = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns, lines = 0, 0
        default = shutil.get_terminal_size()  # from the environment, or the usual one
        return os.terminal_size((columns or default.columns, lines or default.lines))

    def _rows(self) -> Sequence[str]:
        width = max(map(len, self._states), default=0)
        now = time.monotonic()
        return [
            f"  {name:<{width}}  " + (f"{duration(now - self._starts[name]):>10}  {last_line(self._logs[name])}"
                                      if name in self._starts else f"{state:>10}")
            for name, state in self._states.items()
        ]  # fmt: skip


def last_line(log: Path) -> str:
    """Return the last line of a file that is not empty; '' if there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:  # it does not exist yet
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    return harmless(_STAMP.sub("", next((line for line in reversed(lines) if line), "")))
