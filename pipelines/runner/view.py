"""Shows what each operator is at: on a terminal a table that is drawn anew, in a log a line now and then."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from nuclei_segmentation.pipelines.language.findings import harmless
from nuclei_segmentation.shared.runtime.progress import duration

DRAW_SECONDS = 0.5
LINE_SECONDS = 10.0

_TAIL_BYTES = 4096
_STAMP = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO +")
"""Before each line of this project's operators; what is shown is of now."""
_CLEAR = "\x1b[{}F\x1b[J"
"""Up so many lines, and everything from there on away."""


class View:
    """What a user sees of a run.

    Parameters
    ----------
    names : Sequence of str
        Of the operators, in their order.
    stream : TextIO
        Where to show it.
    """

    def __init__(self, names: Sequence[str], stream: TextIO) -> None:
        self._states = dict.fromkeys(names, "waits")
        self._starts: dict[str, float] = {}
        self._logs: dict[str, Path] = {}
        self._told: dict[str, str] = {}
        self._stream, self._terminal = stream, stream.isatty()
        self._drawn = 0
        self._last = time.monotonic()
        self._lock = threading.RLock()

    def say(self, text: str) -> None:
        """Show a line that stays. Any thread may do so."""
        with self._lock:
            self._show(f"{harmless(text)}\n")

    def started(self, name: str, log: Path) -> None:
        """Take note that an operator runs, and where it prints to."""
        self._starts[name], self._logs[name] = time.monotonic(), log

    def ended(self, name: str, state: str) -> None:
        """Take note of what became of an operator."""
        self._starts.pop(name, None)
        self._states[name] = state

    def tick(self) -> None:
        """Show how far everything is, if that is due."""
        now = time.monotonic()
        if now - self._last < (DRAW_SECONDS if self._terminal else LINE_SECONDS):
            return
        self._last = now
        if self._terminal:
            with self._lock:
                self._show("")
            return
        for name in self._starts:
            text = last_line(self._logs[name])
            if text and self._told.get(name) != text:
                self._told[name] = text
                self.say(f"{name}: {text}")

    def close(self) -> None:
        """Take the table away: what is printed next starts on a clean line."""
        with self._lock:
            self._terminal = False
            self._show("")

    def _show(self, text: str) -> None:
        """Show a text, and the table below it.

        Raises
        ------
        BrokenPipeError
            Who reads has seen enough.
        """
        try:
            self._wipe()
            self._stream.write(text)
            self._draw()
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError:  # a closed terminal, a full disk: the run does not depend on being seen
            self._terminal = False

    def _wipe(self) -> None:
        if self._drawn:
            self._stream.write(_CLEAR.format(self._drawn))
            self._drawn = 0

    def _draw(self) -> None:
        if not self._terminal:
            return
        size = self._size()
        rows = list(self._rows())[: max(1, size.lines - 2)]  # what has scrolled away cannot be drawn anew
        self._stream.writelines(f"{row[: max(1, size.columns - 1)]}\n" for row in rows)
        self._drawn = len(rows)

    def _size(self) -> os.terminal_size:
        """Return that of the terminal that the table is on: the standard output may be another, or a file."""
        try:
            columns, lines = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            columns, lines = 0, 0
        known = shutil.get_terminal_size()  # the environment's, or what is usual
        return os.terminal_size((columns or known.columns, lines or known.lines))

    def _rows(self) -> Sequence[str]:
        wide = max(map(len, self._states), default=0)
        now = time.monotonic()
        return [
            f"  {name:<{wide}}  " + (f"{duration(now - self._starts[name]):>10}  {last_line(self._logs[name])}"
                                     if name in self._starts else f"{state:>10}")
            for name, state in self._states.items()
        ]  # fmt: skip


def last_line(log: Path) -> str:
    """Return the last line of a file that says something; '' if there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, 2)
            stream.seek(max(0, stream.tell() - _TAIL_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:  # not there yet
        return ""
    lines = [one.strip() for one in text.replace("\r", "\n").splitlines()]
    return harmless(_STAMP.sub("", next((one for one in reversed(lines) if one), "")))
