"""Executes a plan in its output folder."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.runner import shared_memory
from nuclei_segmentation.pipelines.runner.job_state import State
from nuclei_segmentation.pipelines.runner.launch import Launch, Running, launch
from nuclei_segmentation.pipelines.runner.output_folder import (
    check_folders,
    finished_operators,
    open_state,
    place_result,
)
from nuclei_segmentation.pipelines.runner.plan import Plan
from nuclei_segmentation.pipelines.runner.schedule import Limits, Result, Schedule
from nuclei_segmentation.pipelines.runner.services import Services, Unanswered
from nuclei_segmentation.pipelines.runner.signals import received_signals
from nuclei_segmentation.pipelines.runner.step import Step
from nuclei_segmentation.pipelines.runner.view import View
from nuclei_segmentation.shared.errors import Interrupted
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.folder import OpenFolder, make_folders, open_file
from nuclei_segmentation.shared.runtime.lock import FolderLock
from nuclei_segmentation.shared.runtime.progress import duration
from nuclei_segmentation.shared.runtime.resources import human

LAST_LINES = 15
"""So many lines of the log of a failed operator are shown."""
TIMED_OUT = 124
"""Exit code of a run that reached a time limit, as that of the command `timeout`."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a plan is executed. None of this changes the result.

    Attributes
    ----------
    limits : Limits
        Time limits.
    service_wait : float
        Seconds until a service must answer.
    launch : Launch
        Starts operators and services.
    """

    limits: Limits = field(default_factory=Limits)
    service_wait: float = 300.0
    launch: Launch = launch


def execute(plan: Plan, folders: Folders, config: Path | None, view: View, options: RunOptions = RunOptions()) -> int:
    """Execute a plan and return the exit code: that of the first operator that failed, or 0.

    Parameters
    ----------
    plan : Plan
        What to do.
    folders : Folders
        The folders of the run.
    config : pathlib.Path or None
        Folder with config.yaml, if any.
    view : View
        Shows what happens.
    options : RunOptions, optional
        How to do it.

    Raises
    ------
    InputError
        There is no payload.
    NoSpace
        The disk is full.
    OutputError
        The output folder holds something else, is in use, or cannot be written.
    LockLost
        Another run holds it by now.
    """
    check_folders(folders)
    with writing(folders.output):
        folders.output.mkdir(parents=True, exist_ok=True)
        with FolderLock(folders.job, folders.output) as lock:
            with OpenFolder(folders.job) as job:
                for name, _ in lock.others():  # what a killed run had not finished writing
                    job.remove(name)
            state = open_state(plan, folders, config, view, lock)
            if state.complete:
                view.show(f"{folders.output} already holds the result of this run: {', '.join(state.placed)}")
                return 0
            try:
                return _run(plan, folders, state, lock, view, options)
            finally:
                view.close()


def _run(plan: Plan, folders: Folders, state: State, lock: FolderLock, view: View, options: RunOptions) -> int:
    for remark in plan.remarks:
        view.show(remark)
    state.done = finished_operators(plan, folders, state)
    for name in sorted(state.done):
        view.ended(name, "done before")
        view.show(f"{name}: already done")
    make_folders(folders.output, folders.log("x").parent)
    shared_memory.create(plan.shared)
    for step in plan.steps if plan.pod else ():  # an engine cannot mount a folder that does not exist
        _prepare(step, folders)
    unanswered = None
    with received_signals() as received, Services(
        plan.services, state.done, folders.log, options.launch, options.service_wait, view.show,
        lambda: len(received),
    ) as services:  # fmt: skip

        def start(step: Step) -> Running:
            lock.check()
            _prepare(step, folders)
            view.show(f"{step.name}: starts")
            log = folders.log(step.name)
            running = options.launch(services.with_port(step), log)
            view.started(step.name, log)
            return running

        def on_end(result: Result) -> None:
            state.record(result)
            state.save(lock)
            view.ended(result.name, _outcome(result))
            peak = result.status.peak_memory
            memory = "" if peak is None else f", at most {human(peak)} of memory"
            view.show(f"{result.name}: {_outcome(result)} after {duration(result.seconds)}{memory}")

        def tick() -> None:
            if lock.lost:
                lock.check()
            view.tick()

        schedule = Schedule(
            plan.steps, start, on_end, done=frozenset(state.done), pod=plan.pod, limits=options.limits,
            stop_requests=lambda: len(received), ready=services.ready, tick=tick,
        )  # fmt: skip
        try:
            schedule.run()
        except Unanswered as error:
            unanswered = error
    view.close()
    if len(schedule.succeeded) == len(plan.steps):
        place_result(plan, folders, state, lock)
    for line in summary(plan, schedule.results, schedule.done):
        view.show(line)
    if state.complete:
        shared_memory.release(plan.shared)
        view.show(f"the result is in {folders.output}: {', '.join(state.placed) or 'no files'}")
        return 0
    if size := shared_memory.size_in_use(plan.shared):
        view.show(f"{size} of shared memory stay in use for the next run; `rm -r {Path(plan.shared).parent}` frees it")
    else:
        shared_memory.release(plan.shared)
    if received:
        stop = Interrupted(received[0])
        view.show(str(stop))
        return stop.exit_code
    if schedule.timed_out:
        view.show("a time limit is reached (--time-limit, --operator-time-limit); run the same command again to resume")
        return TIMED_OUT
    if unanswered is not None:
        view.show(str(unanswered))
        _show_end_of_log(unanswered.service, folders, view)
        return unanswered.exit_code
    failed = next((result for result in schedule.results if result.status.code and not result.stop_reason), None)
    assert failed is not None, "a run that neither succeeded nor failed"
    view.show(f"{failed.name} failed with exit code {failed.status.code}; the end of {folders.log(failed.name)}:")
    _show_end_of_log(failed.name, folders, view)
    return failed.status.code


def _prepare(step: Step, folders: Folders) -> None:
    """Make the folders and links that a step needs."""
    for folder in step.makes:
        make_folders(folders.output, Path(folder))
        if step.owner is not None and os.getuid() == 0:  # root may run operators as another user than itself
            os.chown(folder, *step.owner, follow_symlinks=False)
    for link, target in step.links:
        path = Path(link)
        with OpenFolder(path.parent) as parent:
            parent.remove(path.name)
            os.symlink(target, path.name, target_is_directory=True, dir_fd=parent.number)


def summary(plan: Plan, results: Sequence[Result], done: Collection[str]) -> Iterator[str]:
    """Yield a table: how each operator ended, its time, and its memory.

    Parameters
    ----------
    plan : Plan
        The plan of the run.
    results : Sequence of Result
        How its steps ended.
    done : Collection of str
        Names of steps that did not need to run.

    Yields
    ------
    str
        A row.
    """
    by_name = {result.name: result for result in results}
    width = max(len(step.name) for step in plan.steps)
    for step in plan.steps:
        result = by_name.get(step.name)
        if result is None:
            yield f"  {step.name:<{width}}  {'done before' if step.name in done else 'not run'}"
            continue
        memory = "" if result.status.peak_memory is None else human(result.status.peak_memory)
        state = "done" if result.status.code == 0 else _outcome(result)
        yield f"  {step.name:<{width}}  {state:<13}  {result.seconds:8.1f} s  {memory:>10}".rstrip()


def _outcome(result: Result) -> str:
    return f"stopped: {result.stop_reason}" if result.stop_reason else f"exit code {result.status.code}"


def _show_end_of_log(name: str, folders: Folders, view: View) -> None:
    with os.fdopen(open_file(folders.log(name)), encoding="utf-8", errors="replace") as lines:
        for line in deque(lines, LAST_LINES):
            view.show(f"  {line.rstrip()}")
