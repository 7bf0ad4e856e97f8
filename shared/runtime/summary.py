"""The summary that a command prints on the standard output when it is done."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence

from nuclei_segmentation.shared.runtime.outside import harmless
from nuclei_segmentation.shared.runtime.progress import duration
from nuclei_segmentation.shared.runtime.resources import human
from nuclei_segmentation.shared.runtime.stage_timer import StageTime

log = logging.getLogger(__name__)

_ADVICE = {
    "load": "reading the slide; a faster disk would help most",
    "filter": "inference; more processors (-w) or faster Triton servers would help most",
    "stitch": "writing the image; more processors (-w) would help most",
}


def time_lines(
    seconds: float, workers: int, peak_memory: int, stages: Mapping[str, StageTime], waited: float = 0.0
) -> list[str]:
    """Return how long a command took, and which stage took it.

    Parameters
    ----------
    seconds : float
        Wall time.
    workers : int
        Number of threads.
    peak_memory : int
        Bytes of anonymous memory.
    stages : Mapping of str to StageTime
        Times by stage.
    waited : float, optional
        Of `seconds`, those spent on waiting for a stage in another process.

    Returns
    -------
    list of str
        The lines.
    """
    lines = [f"time        {duration(seconds)} with {_workers(workers)}; peak memory {human(peak_memory)}"]
    total = sum(stage.cpu for stage in stages.values()) or 1.0
    for name in ("load", "filter", "stitch"):
        stage = stages.get(name)
        if stage is not None:
            lines.append(
                f"  {name:<8}  {stage.cpu:8.1f} s of processor time ({stage.cpu / total:4.0%}), "
                f"the run waited {stage.waited:.1f} s for it"
            )
    slowest = bottleneck(seconds, stages, waited)
    return [*lines, f"bottleneck  {slowest}"] if slowest else lines


def bottleneck(seconds: float, stages: Mapping[str, StageTime], waited: float = 0.0) -> str:
    """Return what a command waited for, and what would make it faster; empty where nothing stands out.

    Parameters
    ----------
    seconds : float
        Wall time.
    stages : Mapping of str to StageTime
        Times by stage.
    waited : float, optional
        Of `seconds`, those spent on waiting for a stage in another process.
    """
    if waited > 0.05 * seconds:
        return f"the stage before this one; this one waited {duration(waited)} for it"
    slowest = max(stages, key=lambda name: stages[name].waited, default="")
    return _ADVICE[slowest] if slowest in _ADVICE and stages[slowest].waited > 0.05 * seconds else ""


def print_summary(lines: Sequence[str]) -> None:
    """Print a summary. The result is complete, whether or not anybody reads this."""
    try:
        print("\n".join(["", *map(harmless, lines)]), flush=True)  # noqa: T201 - the command's output
    except OSError as error:
        log.debug("the summary cannot be printed: %s", error)
        # else the interpreter would try to write it again at its end, and fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def named_lines(lines: Mapping[str, str]) -> list[str]:
    """Return named lines, with the names in one column; empty ones are left out."""
    return [f"{name:<11} {text}" for name, text in lines.items() if text]


def _workers(count: int) -> str:
    return f"{count} worker{'' if count == 1 else 's'}"
