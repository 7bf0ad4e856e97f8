"""Does what a plan says, in its output folder."""

from __future__ import annotations

import os
import shutil
import signal
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.runner import job_state, memory
from nuclei_segmentation.pipelines.runner.job_state import State
from nuclei_segmentation.pipelines.runner.launch import Launch, Running, launch
from nuclei_segmentation.pipelines.runner.plan import Plan
from nuclei_segmentation.pipelines.runner.schedule import Limits, Result, Schedule
from nuclei_segmentation.pipelines.runner.services import Services, Unanswered
from nuclei_segmentation.pipelines.runner.step import Step
from nuclei_segmentation.pipelines.runner.view import View
from nuclei_segmentation.shared.errors import InputError, Interrupted, OutputError
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.lock import FolderLock
from nuclei_segmentation.shared.runtime.progress import duration
from nuclei_segmentation.shared.runtime.resources import human

LAST_LINES = 15
"""Of the log of an operator that failed."""
LATE = 124
"""Exit code of a run whose time was up; the command `timeout` has it too."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a plan is done, without any change of its result.

    Attributes
    ----------
    limits : Limits
        Of time.
    service_wait : float
        Seconds that a service has until it answers.
    launch : Launch
        Starts operators and services.
    """

    limits: Limits = field(default_factory=Limits)
    service_wait: float = 300.0
    launch: Launch = launch


def execute(plan: Plan, folders: Folders, config: Path | None, view: View, ways: RunOptions = RunOptions()) -> int:
    """Run a plan and return the exit code: that of the first operator that failed, or 0.

    Parameters
    ----------
    plan : Plan
        What to do.
    folders : Folders
        Of the run.
    config : pathlib.Path or None
        Folder with config.yaml, if any.
    view : View
        Shows what happens.
    ways : RunOptions, optional
        How to do it.

    Raises
    ------
    InputError
        There is no payload.
    NoSpace
        The disk is full.
    OutputError
        The output folder holds something else, is in use, or cannot be written.
    """
    _check(folders)
    with writing(folders.output):
        folders.job.mkdir(parents=True, exist_ok=True)
        with FolderLock(folders.job, folders.output):
            state = _state(plan, folders, config, view)
            if state.whole:
                view.say(f"{folders.output} has the result of this run already: {', '.join(state.placed)}")
                return 0
            try:
                return _run(plan, folders, state, view, ways)
            finally:
                view.close()


def _check(folders: Folders) -> None:
    payload, output = Path(os.path.realpath(folders.payload)), Path(os.path.realpath(folders.output))
    if not os.path.isdir(payload):  # noqa: PTH112 - `Path.is_dir` raises if a name is too long
        raise InputError(f"{folders.payload} is no folder; --input names the folder with the slide")
    if output.is_relative_to(payload):
        raise OutputError(f"{folders.output} is the input folder or lies in it; the result needs a folder of its own")
    if os.path.lexists(folders.output) and not folders.output.is_dir():
        raise OutputError(f"{folders.output} is no folder; --output names one that is empty or not there yet")


def _state(plan: Plan, folders: Folders, config: Path | None, view: View) -> State:
    """Return how far this run is; what is there of another one gives way, if it is no result."""
    key = job_state.key(plan.hash, folders.payload, *([] if config is None else [config]), output=folders.output)
    before = job_state.load(folders.job)
    ours = {one.partition("/")[0] for one in before.placed} if before is not None else set()
    there = sorted(one.name for one in folders.output.iterdir() if not one.name.startswith("."))
    if any(name not in ours for name in there):
        other = next(name for name in there if name not in ours)
        raise OutputError(f"{folders.output} is not empty ({other}); the result needs a folder of its own")
    same = before is not None and before.key == key
    if there and not same:
        raise OutputError(f"{folders.output} holds the result of another run; choose another folder, or remove it")
    placed = [one for one in before.placed if (folders.output / one).exists()] if before is not None else []
    if before is not None and same and (not before.whole or placed == before.placed):
        return before
    if before is not None and before.done:
        view.say("what is there of an earlier run does not fit this one: all operators are run")
    for name in ("data", "inputs", "logs", "config"):
        shutil.rmtree(folders.job / name, ignore_errors=True)
    state = State(key, placed=placed)
    state.save(folders.job)
    return state


def _run(plan: Plan, folders: Folders, state: State, view: View, ways: RunOptions) -> int:
    for one in plan.remarks:
        view.say(one)
    state.done = _done(plan, state)
    for name in sorted(state.done):
        view.ended(name, "done before")
        view.say(f"{name}: is done already")
    folders.log("x").parent.mkdir(exist_ok=True)
    memory.share(plan.shared)
    for step in plan.steps if plan.pod else ():  # an engine mounts no folder that is not there yet
        _prepare(step)
    unanswered = None
    with _signals() as heard, Services(
        plan.services, state.done, folders.log, ways.launch, ways.service_wait, view.say,
        lambda: len(heard),
    ) as services:  # fmt: skip

        def start(step: Step) -> Running:
            _prepare(step)
            view.say(f"{step.name}: starts")
            log = folders.log(step.name)
            running = ways.launch(services.fill(step), log)
            view.started(step.name, log)
            return running

        def report(result: Result) -> None:
            state.took(result)
            state.save(folders.job)
            view.ended(result.name, _word(result))
            taken = "" if result.ended.memory is None else f", at most {human(result.ended.memory)} of memory"
            view.say(f"{result.name}: {_word(result)} after {duration(result.seconds)}{taken}")

        schedule = Schedule(
            plan.steps, start, report, done=frozenset(state.done), together=plan.pod, limits=ways.limits,
            stops=lambda: len(heard), ready=services.ready, tick=view.tick,
        )  # fmt: skip
        try:
            schedule.run()
        except Unanswered as error:
            unanswered = error
    view.close()
    failed = next((one for one in schedule.results if one.ended.code and not one.cut), None)
    if len(schedule.well) == len(plan.steps):
        _place(plan, folders, state)
    for line in summary(plan, schedule.results, schedule.done):
        view.say(line)
    if state.whole:
        memory.free(plan.shared)
        view.say(f"{folders.output} has the result: {', '.join(state.placed) or 'nothing was written'}")
        return 0
    if kept := memory.kept(plan.shared):
        view.say(f"{kept} stay in shared memory for the next run; `rm -r {Path(plan.shared).parent}` frees them")
    else:
        memory.free(plan.shared)
    if heard:
        stop = Interrupted(heard[0])
        view.say(str(stop))
        return stop.exit_code
    if schedule.late:
        view.say("the time is up (--time-limit, --operator-time-limit); the same command again goes on from here")
        return LATE
    if unanswered is not None:
        view.say(str(unanswered))
        _tell(unanswered.service, folders, view)
        return unanswered.exit_code
    assert failed is not None, "a run that neither succeeded nor failed"
    view.say(f"{failed.name} failed with exit code {failed.ended.code}; the end of {folders.log(failed.name)}:")
    _tell(failed.name, folders, view)
    return failed.ended.code


def _done(plan: Plan, state: State) -> set[str]:
    """Return the operators that need not be run again."""
    done: set[str] = set()
    for step in plan.steps:
        there = not step.volatile and all(Path(one).is_dir() for one in step.makes)
        if step.name in state.done and there and done.issuperset(step.upstream):
            done.add(step.name)
    return done


def _prepare(step: Step) -> None:
    for one in step.makes:
        Path(one).mkdir(parents=True, exist_ok=True)
    for link, target in step.links:
        path = Path(link)
        path.unlink(missing_ok=True)
        path.symlink_to(target, target_is_directory=True)


def _place(plan: Plan, folders: Folders, state: State) -> None:
    """Move the result to where it belongs; a run that is killed in the middle of it goes on with the rest."""
    moves = [
        (entry, Path(target) / entry.name)
        for folder, target in plan.results
        if Path(folder).is_dir()
        for entry in sorted(Path(folder).iterdir())
    ]
    state.placed = sorted({*state.placed, *(str(target.relative_to(folders.output)) for _, target in moves)})
    state.save(folders.job)
    for source, target in moves:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.replace(target)
    state.whole = True
    state.save(folders.job)
    for name in ("data", "inputs", "config"):
        shutil.rmtree(folders.job / name, ignore_errors=True)


def summary(plan: Plan, results: Sequence[Result], done: Collection[str]) -> Iterator[str]:
    """Yield a table: what became of each operator, its time and memory."""
    found = {one.name: one for one in results}
    wide = max(len(step.name) for step in plan.steps)
    for step in plan.steps:
        result = found.get(step.name)
        if result is None:
            yield f"  {step.name:<{wide}}  {'done before' if step.name in done else 'not run'}"
            continue
        taken = "" if result.ended.memory is None else human(result.ended.memory)
        state = "done" if result.ended.code == 0 else _word(result)
        yield f"  {step.name:<{wide}}  {state:<13}  {result.seconds:8.1f} s  {taken:>10}".rstrip()


def _word(result: Result) -> str:
    return f"ended, since {result.cut}" if result.cut else f"exit code {result.ended.code}"


def _tell(name: str, folders: Folders, view: View) -> None:
    with folders.log(name).open(encoding="utf-8", errors="replace") as lines:
        for line in deque(lines, LAST_LINES):
            view.say(f"  {line.rstrip()}")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Note the signals that ask for an end, in place of ending."""
    heard: list[int] = []
    wanted = [one for one in _SIGNALS if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN]  # nohup
    before = {number: signal.signal(number, lambda got, _: heard.append(got)) for number in wanted}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
