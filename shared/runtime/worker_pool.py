"""Worker threads that all stages share.

The number of workers is the CPU budget of the run. The tasks of all stages share one queue, so a free worker takes
whatever is next, and no worker idles while a stage is behind. Decoding, inference and encoding release the interpreter
lock, so threads are enough.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.stage_timer import StageTimer
from nuclei_segmentation.shared.runtime.threads import starting_threads

A = TypeVar("A")
B = TypeVar("B")


class WorkerPool(Closing):
    """A fixed number of worker threads.

    Parameters
    ----------
    workers : int
        Number of threads.
    timer : StageTimer or None, optional
        Where the tasks' times are added; a new one by default. Several pools may share a timer.
    """

    def __init__(self, workers: int, timer: StageTimer | None = None) -> None:
        self.workers = workers
        self.timer = timer if timer is not None else StageTimer()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="worker")

    def submit(self, stage: str, work: Callable[[A], B], item: A) -> Future[B]:
        """Queue a task.

        Parameters
        ----------
        stage : str
            The stage that its time is charged to.
        work : callable
            The task.
        item : A
            Its argument.

        Returns
        -------
        Future of B
            Its result.

        Raises
        ------
        NucleiError
            The system allows no more threads.
        """
        with starting_threads():
            return self._threads.submit(self._timed, stage, work, item)

    def map(self, stage: str, work: Callable[[A], B], items: Iterable[A], ahead: int) -> Iterator[B]:
        """Yield ``work(item)`` for each item, in order, computed by the workers.

        Parameters
        ----------
        stage : str
            The stage that the time is charged to.
        work : callable
            What to do with an item.
        items : Iterable of A
            The items. They are drawn in the caller's thread, at most `ahead` before the result that is yielded next.
        ahead : int
            How many items may be in progress; this bounds the memory.

        Yields
        ------
        B
            The results, in the order of the items.
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
            for future in under_way:  # a task that runs already is waited for when the pool closes
                future.cancel()

    def result(self, future: Future[B]) -> B:
        """Return the result of a task of this pool; waits for it."""
        if future.done():
            return future.result()
        with self.timer.waiting():
            return future.result()

    def close(self, *, wait: bool = True) -> None:
        """Cancel queued tasks, and wait for running ones if `wait` is set."""
        self._threads.shutdown(wait=wait, cancel_futures=True)

    def _timed(self, stage: str, work: Callable[[A], B], item: A) -> B:
        with self.timer.working(stage):
            return work(item)


def abandon(futures: Iterable[Future[Any]]) -> None:
    """Cancel tasks, and wait for those that run already: the caller may close what they read."""
    # A cancelled task is not waited for: after the pool has closed, no worker would mark it as done.
    wait([future for future in list(futures) if not future.cancel()])
