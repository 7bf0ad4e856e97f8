"""Wall and CPU time of several ways to do the same work, measured alternately: a busy machine slows all of them."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Time in seconds.

    Attributes
    ----------
    wall : float
        Wall time.
    cpu : float
        CPU time of all threads of this process, including system calls.
    """

    wall: float
    cpu: float

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.wall - other.wall, self.cpu - other.cpu)

    def best(self, other: Usage) -> Usage:
        """Return the smaller wall time and the smaller CPU time of the two."""
        return Usage(min(self.wall, other.wall), min(self.cpu, other.cpu))


def now() -> Usage:
    """Return the time now; only differences have a meaning."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(time.perf_counter(), spent.ru_utime + spent.ru_stime)


def used(work: Callable[[], object]) -> Usage:
    """Do some work and return the time that it took."""
    gc.collect()
    start = now()
    work()
    return now() - start


def alternate(tasks: Mapping[str, Callable[[], Usage]], rounds: int) -> dict[str, Usage]:
    """Measure each task `rounds` times, alternately, and return the best times of each.

    Parameters
    ----------
    tasks : Mapping of str to callable
        By name; each does the work once and returns the time that it took.
    rounds : int
        Number of rounds. Every second round runs in reverse order, so that no task always follows the same other task.
    """
    best: dict[str, Usage] = {}
    order = list(tasks)
    for _ in range(rounds):
        for name in order:
            usage = tasks[name]()
            best[name] = usage.best(best[name]) if name in best else usage
        order.reverse()
    return {name: best[name] for name in tasks}
