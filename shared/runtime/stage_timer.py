"""How long each stage worked, and how long the run waited for it."""

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
        Time for which the run stood still. While the thread that joins the stages waits for a result, the time is
        divided among the stages by how many workers are in their tasks.
    """

    busy: float = 0.0
    cpu: float = 0.0
    waited: float = 0.0


class StageTimer:
    """Times by stage. Any thread may call any method, but only one thread at a time may wait.

    Attributes
    ----------
    stages : dict of str to StageTime
        Times by the stage's name.
    """

    def __init__(self) -> None:
        self.stages: dict[str, StageTime] = {}
        self._running: dict[str, int] = {}
        self._now = time.perf_counter()
        self._waiting = False
        self._lock = threading.Lock()

    @contextmanager
    def working(self, stage: str) -> Iterator[None]:
        """Charge the time of a block, which a worker runs, to a stage."""
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
        """Charge the time of a block, in which the run stands still, to the stages at work."""
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
        """Charge the time since the last change; the lock is held."""
        now = time.perf_counter()
        passed, self._now = now - self._now, now
        total = sum(self._running.values())
        for stage, count in self._running.items():
            self.stages[stage].busy += passed * count
            if self._waiting and total:
                self.stages[stage].waited += passed * count / total
