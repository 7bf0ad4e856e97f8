"""Who worked, and for whom the run waited."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(slots=True)
class StageTime:
    """Seconds of one stage.

    Attributes
    ----------
    busy : float
        Wall time in its tasks, summed over workers.
    cpu : float
        Processor time of its tasks.
    waited : float
        Time for which the run stood still for it: while the thread that joins the stages waited for some result, the
        time is shared out among the stages by how many workers were in their tasks.
    """

    busy: float = 0.0
    cpu: float = 0.0
    waited: float = 0.0


class StageTimer:
    """Times by stage. All methods may be called from any thread; one thread at a time waits."""

    def __init__(self) -> None:
        self.stages: dict[str, StageTime] = {}
        self._running: dict[str, int] = {}
        self._now = time.perf_counter()
        self._waiting = False
        self._lock = threading.Lock()

    @contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Book the time of a block that a worker runs."""
        cpu = time.thread_time()
        self._change(stage, 1)
        try:
            yield
        finally:
            cpu = time.thread_time() - cpu
            self._change(stage, -1)
            with self._lock:
                self.stages[stage].cpu += cpu

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Book the time of a block in which the run stands still."""
        with self._lock:
            self._advance()
            self._waiting = True
        try:
            yield
        finally:
            with self._lock:
                self._advance()
                self._waiting = False

    def _change(self, stage: str, by: int) -> None:
        with self._lock:
            self._advance()
            self._running[stage] = self._running.get(stage, 0) + by
            self.stages.setdefault(stage, StageTime())

    def _advance(self) -> None:
        """Book what happened since the last change; the lock is held."""
        now = time.perf_counter()
        passed, self._now = now - self._now, now
        total = sum(self._running.values())
        for stage, count in self._running.items():
            self.stages[stage].busy += passed * count
            if self._waiting and total:
                self.stages[stage].waited += passed * count / total
