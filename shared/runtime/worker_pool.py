"""Worker threads that all stages share.

The number of workers is the whole CPU budget of a run. Tasks of all stages stand in one queue, so a free worker takes
whatever there is to do, and no stage can idle while another is behind. Decoding, inference and encoding release the
interpreter lock; threads are enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.stage_timer import StageTimer

A = TypeVar("A")
B = TypeVar("B")


class WorkerPool(Closing):
    """A fixed number of worker threads.

    Parameters
    ----------
    workers : int
        Number of threads.
    timer : StageTimer or None, optional
        Where times are added; one timer may serve several pools.
    """

    def __init__(self, workers: int, timer: StageTimer | None = None) -> None:
        self.workers = workers
        self.timer = timer if timer is not None else StageTimer()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def submit(self, stage: str, work: Callable[[A], B], item: A) -> Future[B]:
        """Queue ``work(item)`` and book its time to `stage`."""
        return self._threads.submit(self._timed, stage, work, item)

    def map(self, stage: str, work: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[B]:
        """Yield ``work(item)`` for each item, in order, computed by the workers.

        Parameters
        ----------
        stage : str
            Under which name time is booked.
        work : callable
            What to do with an item.
        items : Iterable of A
            Drawn in the caller's thread, at most `ahead` before the result that is yielded next.
        ahead : int
            How many items may be under way; bounds the memory.
        """
        under_way: deque[Future[B]] = deque()
        try:
            for item in items:
                under_way.append(self.submit(stage, work, item))
                if len(under_way) >= ahead:
                    yield self.result(under_way.popleft())
            while under_way:
                yield self.result(under_way.popleft())
        finally:
            for future in under_way:  # what runs already is waited for when the pool closes
                future.cancel()

    def result(self, future: Future[B]) -> B:
        """Wait for a task of this pool."""
        if future.done():
            return future.result()
        with self.timer.waiting():
            return future.result()

    def close(self, *, wait: bool = True) -> None:
        """Drop what is queued, and wait for what is running if asked to."""
        self._threads.shutdown(wait=wait, cancel_futures=True)

    def _timed(self, stage: str, work: Callable[[A], B], item: A) -> B:
        with self.timer.working(stage):
            return work(item)


def abandon(futures: Iterable[Future[Any]]) -> None:
    """Cancel tasks, and wait for those that run already: what they read may be closed next."""
    # one that is cancelled is not waited for: nobody may be left to take note of it
    wait([future for future in list(futures) if not future.cancel()])
