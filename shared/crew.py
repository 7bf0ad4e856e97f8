"""Worker threads that all stages share, and a clock of who worked and who waited.

The number of workers is the whole CPU budget of a run. Tasks of all stages stand in one queue, so a free worker takes
whatever there is to do, and no stage can idle while another is behind. Decoding, inference and encoding release the
interpreter lock; threads are enough.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

A = TypeVar("A")
B = TypeVar("B")


@dataclass(slots=True)
class StageTime:
    """Seconds of one stage.

    `busy`: wall seconds that workers spent in its tasks, summed over workers; `cpu`: the processor time of them;
    `waited`: seconds for which the run stood still because a task of this stage was not done yet.
    """

    busy: float = 0.0
    cpu: float = 0.0
    waited: float = 0.0


@dataclass(slots=True)
class Clock:
    """Times by stage."""

    stages: dict[str, StageTime] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, stage: str, *, busy: float = 0.0, cpu: float = 0.0, waited: float = 0.0) -> None:
        """Add seconds to a stage."""
        with self._lock:
            entry = self.stages.setdefault(stage, StageTime())
            entry.busy += busy
            entry.cpu += cpu
            entry.waited += waited


class Crew:
    """A fixed number of worker threads.

    Parameters
    ----------
    workers
        Number of threads.
    clock
        Where times are added; one clock may serve several crews.
    """

    def __init__(self, workers: int, clock: Clock | None = None) -> None:
        self.workers = workers
        self.clock = clock if clock is not None else Clock()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def submit(self, stage: str, work: Callable[[A], B], item: A) -> Future[B]:
        """Queue ``work(item)`` and book its time to `stage`."""
        return self._threads.submit(self._timed, stage, work, item)

    def map(self, stage: str, work: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[B]:
        """Yield ``work(item)`` for each item, in order, computed by the workers.

        Parameters
        ----------
        stage
            Under which name time is booked.
        work
            What to do with an item.
        items
            Drawn in the caller's thread, at most `ahead` before the result that is yielded next.
        ahead
            How many items may be under way; bounds the memory.
        """
        under_way: deque[Future[B]] = deque()
        try:
            for item in items:
                under_way.append(self.submit(stage, work, item))
                if len(under_way) >= ahead:
                    yield self.result(stage, under_way.popleft())
            while under_way:
                yield self.result(stage, under_way.popleft())
        finally:
            for future in under_way:
                future.cancel()

    def result(self, stage: str, future: Future[B]) -> B:
        """Wait for a task; the time is booked as `waited`."""
        if future.done():
            return future.result()
        start = time.perf_counter()
        try:
            return future.result()
        finally:
            self.clock.add(stage, waited=time.perf_counter() - start)

    def close(self) -> None:
        """Drop what is queued and wait for what is running."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _timed(self, stage: str, work: Callable[[A], B], item: A) -> B:
        start, cpu = time.perf_counter(), time.thread_time()
        try:
            return work(item)
        finally:
            self.clock.add(stage, busy=time.perf_counter() - start, cpu=time.thread_time() - cpu)
