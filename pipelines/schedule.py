"""Runs the steps of a plan: each as soon as those before it have ended well, independent ones side by side."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pipelines.launch import Ended, Running
from pipelines.step import Step

GRACE_SECONDS = 10.0
"""Who has not ended so long after it was asked to is ended."""
POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Result:
    """How a step ended, and after how many seconds."""

    name: str
    ended: Ended
    seconds: float


def schedule(
    steps: Sequence[Step],
    launch: Callable[[Step], Running],
    report: Callable[[Result], None],
    done: Collection[str] = (),
    stops: Callable[[], int] = lambda: 0,
) -> list[Result]:
    """Run steps and return how they ended, in that order. What depends on one that failed is not started.

    Parameters
    ----------
    steps
        In an order in which they can run.
    launch
        Starts one.
    report
        Called for each that has ended.
    done
        Names of those that need not be run.
    stops
        How often the user has asked for an end. Once: all are asked to end; twice: they are ended.
    """
    waiting = [one for one in steps if one.name not in done]
    well = set(done)
    running: dict[str, Running] = {}
    ends: queue.SimpleQueue[Result] = queue.SimpleQueue()
    results: list[Result] = []
    asked: float | None = None
    killed = False
    try:
        while True:
            now = time.monotonic()
            if asked is None and stops():
                asked = now
                for child in running.values():
                    child.terminate()
            if asked is not None and not killed and (now - asked > GRACE_SECONDS or stops() > 1):
                killed = True
                for child in running.values():
                    child.kill()
            for step in [one for one in waiting if asked is None and well.issuperset(one.upstream)]:
                waiting.remove(step)
                running[step.name] = _start(step, launch, ends)
            if not running:
                return results
            try:
                result = ends.get(timeout=POLL_SECONDS)
            except queue.Empty:
                continue
            del running[result.name]
            results.append(result)
            if result.ended.code == 0:
                well.add(result.name)
            report(result)
    finally:
        for child in running.values():  # an error here must not leave them behind
            child.kill()
        while running:
            del running[ends.get().name]


def _start(step: Step, launch: Callable[[Step], Running], ends: queue.SimpleQueue[Result]) -> Running:
    start = time.monotonic()
    child = launch(step)

    def wait() -> None:
        ends.put(Result(step.name, child.wait(), time.monotonic() - start))

    threading.Thread(target=wait, name=f"wait for {step.name}", daemon=True).start()
    return child
