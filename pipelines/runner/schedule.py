"""Runs the steps of a plan: each as soon as those before it have succeeded, independent ones side by side.

In a pod, all steps start at once and wait for one another by themselves. If one fails, those that depend on it are
ended.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from nuclei_segmentation.pipelines.runner.launch import ExitStatus, Running
from nuclei_segmentation.pipelines.runner.step import Step
from nuclei_segmentation.shared.runtime.threads import start

GRACE_SECONDS = 10.0
"""A step that has not ended so long after it was asked to is killed."""
POLL_SECONDS = 0.1

TIME_IS_UP = "its time is up"
"""A `Result.stop_reason`."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a step ended.

    Attributes
    ----------
    name : str
        Name of the step.
    status : ExitStatus
        Its exit code and memory.
    seconds : float
        How long it ran.
    stop_reason : str
        Why the runner ended it; '' if the step ended by itself, or if the user asked for the end.
    """

    name: str
    status: ExitStatus
    seconds: float
    stop_reason: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits.

    Attributes
    ----------
    run : float or None
        Seconds that the run may take; None for no limit.
    step : float or None
        Seconds that each step may take; None for no limit.
    """

    run: float | None = None
    step: float | None = None


@dataclass(slots=True)
class _RunningStep:
    step: Step
    running: Running
    start: float
    terminated: float | None = None
    """When it was asked to end."""
    killed: bool = False
    stop_reason: str = ""

    def terminate(self, reason: str) -> None:
        """Ask it to end, once."""
        if self.terminated is None:
            self.terminated, self.stop_reason = time.monotonic(), reason
            self.running.terminate()


class Schedule:
    """Runs steps, once.

    Parameters
    ----------
    steps : Sequence of Step
        The steps, in an order in which they can run.
    launch : callable
        Starts a step.
    on_end : callable
        Called with the result of each step that has ended.
    done : Collection of str, optional
        Names of steps that need not run.
    pod : bool, optional
        Whether to start all steps at once.
    limits : Limits, optional
        Time limits.
    stop_requests : callable, optional
        Returns how often the user has asked for the end. Once: all steps are asked to end; twice: they are killed.
    ready : callable, optional
        Returns whether the services of a step answer. It is called often, and may raise.
    tick : callable, optional
        Called often while steps run or wait.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        launch: Callable[[Step], Running],
        on_end: Callable[[Result], None],
        *,
        done: Collection[str] = (),
        pod: bool = False,
        limits: Limits = Limits(),
        stop_requests: Callable[[], int] = lambda: 0,
        ready: Callable[[Step], bool] = lambda _: True,
        tick: Callable[[], None] = lambda: None,
    ) -> None:
        self._waiting = [step for step in steps if step.name not in done]
        self.done = frozenset(done)
        self.succeeded = set(done)
        """Names of the steps that have succeeded, now or before."""
        self.results: list[Result] = []
        """In the order in which the steps ended."""
        self.timed_out = False
        """Whether the run, or a step, has reached its time limit."""
        self._launch, self._on_end, self._pod, self._limits = launch, on_end, pod, limits
        self._stop_requests, self._ready, self._tick = stop_requests, ready, tick
        self._running: dict[str, _RunningStep] = {}
        self._ended: queue.SimpleQueue[tuple[str, ExitStatus]] = queue.SimpleQueue()
        self._stopping = False
        self._begin = time.monotonic()

    def run(self) -> None:
        """Run all steps, except those that depend on a step that failed.

        Raises
        ------
        Exception
            Whatever `launch`, `on_end`, `ready` or `tick` raised. No step is left running.
        """
        try:
            while True:
                self._stop_steps()
                waits = self._start_steps()
                if not self._running and not waits:
                    return
                self._tick()
                self._collect_result()
        finally:
            for step in self._running.values():  # after an error
                step.running.kill()
            while self._running:
                del self._running[self._ended.get()[0]]

    def _stop_steps(self) -> None:
        """Ask steps to end if they must, and kill those that were asked and have not ended in time."""
        now, requests = time.monotonic(), self._stop_requests()
        if self._limits.run is not None and now - self._begin > self._limits.run and not self._stopping:
            self.timed_out = self._stopping = True
        self._stopping = self._stopping or bool(requests)
        for step in self._running.values():
            if self._stopping:
                step.terminate("" if requests else TIME_IS_UP)
            elif self._limits.step is not None and now - step.start > self._limits.step:
                self.timed_out = True
                step.terminate(TIME_IS_UP)
            overdue = step.terminated is not None and (now - step.terminated > GRACE_SECONDS or requests > 1)
            if overdue and not step.killed:
                step.killed = True
                step.running.kill()

    def _start_steps(self) -> bool:
        """Start all steps that can start; return whether another one waits only for its services."""
        waits = False
        for step in list(self._waiting):
            if self._stopping or not (self._pod or self.succeeded.issuperset(step.upstream)):
                continue
            if not self._ready(step):
                waits = True
                continue
            self._waiting.remove(step)
            running = _RunningStep(step, self._launch(step), time.monotonic())
            self._running[step.name] = running
            start(threading.Thread(target=self._wait, args=(running,), name=f"wait for {step.name}", daemon=True))
        return waits

    def _wait(self, running: _RunningStep) -> None:
        self._ended.put((running.step.name, running.running.wait()))

    def _collect_result(self) -> None:
        try:
            name, status = self._ended.get(timeout=POLL_SECONDS)
        except queue.Empty:
            return
        step = self._running.pop(name)
        if step.terminated is not None and status.code == 0:  # as Podman does if the container has not started yet
            status = replace(status, code=128 + signal.SIGTERM)
        result = Result(name, status, time.monotonic() - step.start, step.stop_reason)
        self.results.append(result)
        if status.code == 0:
            self.succeeded.add(name)
        else:
            self._stop_dependents(name)
        self._on_end(result)

    def _stop_dependents(self, failed: str) -> None:
        """Drop the waiting steps that depend on a failed one, and end the running ones."""
        lost = {failed}
        steps = [*self._waiting, *(running.step for running in self._running.values())]
        while more := {step.name for step in steps if lost.intersection(step.upstream)} - lost:
            lost |= more
        self._waiting = [step for step in self._waiting if step.name not in lost]
        for name, running in self._running.items():
            if name in lost:
                running.terminate(f"{failed} failed")
