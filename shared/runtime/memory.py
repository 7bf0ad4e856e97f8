"""Whether the memory that a run needs is there. Beyond it the system kills the process without a word."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from pathlib import Path

from nuclei_segmentation.shared.errors import NoSpace
from nuclei_segmentation.shared.runtime.resources import MIB, anonymous_memory, human, memory_left

LIBRARIES = 64 * MIB
"""What Python and the libraries that every stage imports take."""
INFERENCE = 48 * MIB
"""What the libraries that infer take besides."""


def memory_there() -> int:
    """Return the bytes of anonymous memory that this process may hold, those that it holds already included.

    That is what its control group leaves, and at most what the machine has: what other processes take may change.
    """
    left = memory_left()
    machine = _machine()
    return machine if left is None else min(machine, left + anonymous_memory())


def check_memory(needed: Callable[[int], int], workers: int) -> None:
    """Refuse a run that needs more memory than there is.

    Parameters
    ----------
    needed : callable
        Returns the most bytes of anonymous memory that the run takes with that many workers.
    workers : int
        Their number.

    Raises
    ------
    NoSpace
        The control group, the machine or the limits of this process have less; the message says how many workers would
        do.
    """
    there = min(memory_there(), _limited())
    most = needed(workers)
    if most <= there:
        return
    fewer = next((count for count in range(workers - 1, 0, -1) if needed(count) <= there), 0)
    if fewer:
        advice = f"use fewer workers (-w {fewer} needs up to {human(needed(fewer))}), or raise the limit"
    else:
        one = needed(1)
        advice = "raise the limit" + (f"; one worker (-w 1) needs up to {human(one)}" if one < most else "")
    raise NoSpace(f"this process may use {human(there)} of memory, the run needs up to {human(most)}; {advice}")


def _machine() -> int:
    """Return the bytes of memory and swap that the machine has."""
    found = re.findall(r"^(?:MemTotal|SwapTotal):\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return sum(map(int, found)) * 1024


def _limited() -> int:
    """Return the bytes of anonymous memory that this process's own limits (``ulimit -v``, ``-d``) allow at most."""
    status = Path("/proc/self/status").read_text()
    most = []
    for kind, name in ((resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")):
        limit, _ = resource.getrlimit(kind)
        taken = re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)
        if limit != resource.RLIM_INFINITY and taken:
            most.append(max(0, limit - int(taken.group(1)) * 1024) + anonymous_memory())
    return min(most, default=1 << 62)
