"""Progress of a long job: a bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self, TextIO

from nuclei_segmentation.shared.runtime.threads import start

log = logging.getLogger(__name__)

BAR_SECONDS = 0.2
LINE_SECONDS = 5.0


class Progress:
    """Shows how far a job is. It has a thread of its own, so that a stalled job is seen to be stalled.

    Parameters
    ----------
    fraction : callable
        Returns the share of the work that is done, 0 to 1.
    details : callable
        Returns a few words to show beside it.
    stream : TextIO or None, optional
        Where to show it; by default standard error. A terminal gets a bar, anything else gets log lines.
    """

    bars: ClassVar[bool] = False
    """Whether a terminal gets a bar. The command line sets it; a program that uses this package gets log lines only."""

    def __init__(self, fraction: Callable[[], float], details: Callable[[], str], stream: TextIO | None = None) -> None:
        self._fraction = fraction
        self._details = details
        self._stream = stream if stream is not None else sys.stderr
        self._bar = self.bars and self._stream.isatty()
        self._start = time.monotonic()
        self._before = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show, name="progress", daemon=True)

    def __enter__(self) -> Self:
        self._before = self._fraction()
        if log.isEnabledFor(logging.INFO):
            start(self._thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if not self._thread.is_alive():
            return
        self._thread.join()
        if self._bar:
            self._stream.write("\r\x1b[K")  # what is printed next starts on a clean line
            self._stream.flush()

    def _show(self) -> None:
        while not self._stop.wait(BAR_SECONDS if self._bar else LINE_SECONDS):
            done = min(1.0, max(0.0, self._fraction()))
            text = f"{done:4.0%}  {self._details()}{self._remaining(done)}"
            if self._bar:
                filled = round(24 * done)
                self._stream.write(f"\r\x1b[K[{'#' * filled}{'.' * (24 - filled)}] {text}")
                self._stream.flush()
            else:
                log.info("%s", text)

    def _remaining(self, done: float) -> str:
        elapsed, gained = time.monotonic() - self._start, done - self._before
        if elapsed < 2 or gained <= 0.01:
            return ""
        return f", {duration(elapsed * (1 - done) / gained)} left"


def duration(seconds: float) -> str:
    """Write seconds the way people read them."""
    whole = round(seconds)
    if whole < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 5400:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
