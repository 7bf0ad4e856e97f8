"""Runs the steps of a plan: each as soon as those before it have ended well, independent ones side by side.

In a pod all start at once, and wait for one another by themselves; then who depends on one that failed is ended.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from nuclei_segmentation.pipelines.runner.launch import Ended, Running
from nuclei_segmentation.pipelines.runner.step import Step

GRACE_SECONDS = 10.0
"""Who has not ended so long after it was asked to is ended."""
POLL_SECONDS = 0.1

TIME_IS_UP = "its time is up"
"""In `Result.cut`."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a step ended.

    Attributes
    ----------
    name : str
        Of the step.
    ended : Ended
        Its exit code and memory.
    seconds : float
        How long it ran.
    cut : str
        Why it was asked to end; '' if it was not, or if the user asked.
    """

    name: str
    ended: Ended
    seconds: float
    cut: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that the run, and each step, may take; None: as long as they need."""

    run: float | None = None
    step: float | None = None


@dataclass(slots=True)
class _Child:
    step: Step
    running: Running
    start: float
    asked: float | None = None
    killed: bool = False
    cut: str = ""

    def end(self, why: str) -> None:
        """Ask it to end, once."""
        if self.asked is None:
            self.asked, self.cut = time.monotonic(), why
            self.running.terminate()


class Schedule:
    """Runs steps, once.

    Parameters
    ----------
    steps : Sequence of Step
        In an order in which they can run.
    launch : callable
        Starts one.
    report : callable
        Called for each that has ended.
    done : Collection of str, optional
        Names of those that need not be run.
    together : bool, optional
        As in a pod: start all at once.
    limits : Limits, optional
        Of time.
    stops : callable, optional
        How often the user has asked for an end. Once: all are asked to end; twice: they are ended.
    ready : callable, optional
        Whether what a step needs besides other steps is there. Called often; may raise.
    tick : callable, optional
        Called often, while there is something to wait for.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        launch: Callable[[Step], Running],
        report: Callable[[Result], None],
        *,
        done: Collection[str] = (),
        together: bool = False,
        limits: Limits = Limits(),
        stops: Callable[[], int] = lambda: 0,
        ready: Callable[[Step], bool] = lambda _: True,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._waiting = [one for one in steps if one.name not in done]
        self.done = frozenset(done)
        self.well = set(done)
        """Names of those that have ended well, now or before."""
        self.results: list[Result] = []
        """How the others have ended, in that order."""
        self._launch, self._report, self._together, self._limits = launch, report, together, limits
        self._stops, self._ready, self._tick = stops, ready, tick
        self._running: dict[str, _Child] = {}
        self._ends: queue.SimpleQueue[tuple[str, Ended]] = queue.SimpleQueue()
        self._closing = False
        self._begin = time.monotonic()
        self.late = False
        """Whether the time of the run, or of a step, was up."""

    def run(self) -> None:
        """Return when there is nothing left to do. What depends on a step that failed is not started, or ended.

        Raises
        ------
        Exception
            What `launch`, `report`, `ready` or `tick` raised; nothing is left running.
        """
        try:
            while True:
                self._end()
                waits = self._start()
                if not self._running and not waits:
                    return
                self._tick()
                self._collect()
        finally:
            for child in self._running.values():  # an error here must not leave them behind
                child.running.kill()
            while self._running:
                del self._running[self._ends.get()[0]]

    def _end(self) -> None:
        """Ask those to end that must; end those that do not listen."""
        now, stops = time.monotonic(), self._stops()
        if self._limits.run is not None and now - self._begin > self._limits.run and not self._closing:
            self.late = self._closing = True
        self._closing = self._closing or bool(stops)
        for child in self._running.values():
            if self._closing:
                child.end("" if stops else TIME_IS_UP)
            elif self._limits.step is not None and now - child.start > self._limits.step:
                self.late = True
                child.end(TIME_IS_UP)
            if child.asked is not None and not child.killed and (now - child.asked > GRACE_SECONDS or stops > 1):
                child.killed = True
                child.running.kill()

    def _start(self) -> bool:
        """Start what can be; return whether something else may be later without any step ending."""
        waits = False
        for step in list(self._waiting):
            if self._closing or not (self._together or self.well.issuperset(step.upstream)):
                continue
            if not self._ready(step):
                waits = True
                continue
            self._waiting.remove(step)
            child = _Child(step, self._launch(step), time.monotonic())
            self._running[step.name] = child
            threading.Thread(target=self._wait, args=(child,), name=f"wait for {step.name}", daemon=True).start()
        return waits

    def _wait(self, child: _Child) -> None:
        self._ends.put((child.step.name, child.running.wait()))

    def _collect(self) -> None:
        try:
            name, ended = self._ends.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return
        child = self._running.pop(name)
        if child.asked is not None and ended.code == 0:  # Podman says so too of what it had not even started
            ended = replace(ended, code=128 + signal.SIGTERM)
        result = Result(name, ended, time.monotonic() - child.start, child.cut)
        self.results.append(result)
        if ended.code == 0:
            self.well.add(name)
        else:
            self._spread(name)
        self._report(result)

    def _spread(self, failed: str) -> None:
        """Drop and end what depends on a step that failed."""
        lost = {failed}
        steps = [*self._waiting, *(one.step for one in self._running.values())]
        while more := {one.name for one in steps if lost.intersection(one.upstream)} - lost:
            lost |= more
        self._waiting = [one for one in self._waiting if one.name not in lost]
        for name, child in self._running.items():
            if name in lost:
                child.end(f"{failed} failed")
