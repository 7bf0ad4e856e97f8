"""The summary of a finished job: the command's answer on standard output."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence

from nuclei_segmentation.shared.runtime.progress import duration
from nuclei_segmentation.shared.runtime.resources import human
from nuclei_segmentation.shared.runtime.stage_timer import StageTimer

log = logging.getLogger("nuclei")

ADVICE = {
    "load": "reading the slide; a faster disk would help most",
    "filter": "inference; more processors (-w) or faster Triton servers would help most",
    "stitch": "writing the image; more processors (-w) would help most",
}


def lines_of_time(seconds: float, workers: int, peak_memory: int, timer: StageTimer, waited: float = 0.0) -> list[str]:
    """Return how long a job took, and which stage took it.

    Parameters
    ----------
    seconds : float
        Wall time.
    workers : int
        Number of threads.
    peak_memory : int
        Bytes of anonymous memory.
    timer : StageTimer
        Times by stage.
    waited : float, optional
        Seconds of them for which there was nothing to do but wait for a stage in another process.
    """
    lines = [
        f"time        {duration(seconds)} with {workers} worker{'s' if workers > 1 else ''}; "
        f"peak memory {human(peak_memory)}"
    ]
    busy = sum(stage.cpu for stage in timer.stages.values()) or 1.0
    for name in ("load", "filter", "stitch"):
        stage = timer.stages.get(name)
        if stage is not None:
            lines.append(
                f"  {name:<8}  {stage.cpu:8.1f} s of processor time ({stage.cpu / busy:4.0%}), "
                f"the run waited {stage.waited:.1f} s for it"
            )
    if waited > 0.05 * seconds:
        lines.append(f"bottleneck  the stage before this one, waited for {duration(waited)}")
        return lines
    slowest = max(timer.stages, key=lambda name: timer.stages[name].waited, default="")
    if slowest in ADVICE and timer.stages[slowest].waited > 0.05 * seconds:
        lines.append(f"bottleneck  {ADVICE[slowest]}")
    return lines


def answer(lines: Sequence[str]) -> None:
    """Print a summary. The result is there, whether or not somebody still listens."""
    try:
        print("\n".join(["", *lines]), flush=True)  # noqa: T201 - the command's answer
    except OSError as error:
        log.debug("nobody reads the summary: %s", error)
        # else the interpreter would try to write it again at its end, and fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def finished(lines: Mapping[str, str]) -> list[str]:
    """Return named lines, their names in one column."""
    return [f"{name:<11} {text}" for name, text in lines.items() if text]
