"""Wall and processor seconds of several ways to do the same, measured in turns: a busy machine slows them alike."""

from __future__ import annotations

import gc
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Seconds: `wall` by the timer, `cpu` of all this process's threads, system calls included."""

    wall: float
    cpu: float

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Usage) -> Usage:
        return Usage(self.wall - other.wall, self.cpu - other.cpu)

    def best(self, other: Usage) -> Usage:
        """Return the lesser of both seconds, each for itself."""
        return Usage(min(self.wall, other.wall), min(self.cpu, other.cpu))


def now() -> Usage:
    """Return the seconds so far; differences count."""
    spent = resource.getrusage(resource.RUSAGE_SELF)
    return Usage(time.perf_counter(), spent.ru_utime + spent.ru_stime)


def used(work: Callable[[], object]) -> Usage:
    """Do some work and return what it took."""
    gc.collect()
    start = now()
    work()
    return now() - start


def in_turns(sides: Mapping[str, Callable[[], Usage]], rounds: int) -> dict[str, Usage]:
    """Measure each side `rounds` times, in turns, and return the best of each.

    Parameters
    ----------
    sides : Mapping of str to callable
        By name: does the work once and returns what it took.
    rounds : int
        How often. Every second round goes backwards, so that no side always comes after the same other.
    """
    found: dict[str, Usage] = {}
    order = list(sides)
    for _ in range(rounds):
        for name in order:
            usage = sides[name]()
            found[name] = usage.best(found[name]) if name in found else usage
        order.reverse()
    return {name: found[name] for name in sides}
