"""Does what a plan says, in its output folder."""

from __future__ import annotations

import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipelines import jobstate
from pipelines.jobfolder import Folders
from pipelines.jobstate import State
from pipelines.launch import Launch, Running, launch
from pipelines.plan import Plan
from pipelines.schedule import Result, schedule
from pipelines.step import Step
from shared.disk import writing
from shared.errors import InputError, Interrupted, OutputError
from shared.lock import FolderLock
from shared.progress import duration
from shared.resources import human

LAST_LINES = 15
"""Of the log of an operator that failed."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Say = Callable[[str], None]


def execute(plan: Plan, folders: Folders, config: Path | None, say: Say, launch: Launch = launch) -> int:
    """Run a plan and return the exit code: that of the first operator that failed, or 0.

    Parameters
    ----------
    plan
        Without services.
    folders
        Of the run.
    config
        Folder with config.yaml, if any.
    say
        Takes a line for the user.
    launch
        Starts operators.

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
            state = _state(plan, folders, config, say)
            if state.whole:
                say(f"{folders.output} has the result of this run already: {', '.join(state.placed)}")
                return 0
            return _run(plan, folders, state, say, launch)


def _check(folders: Folders) -> None:
    payload, output = Path(os.path.realpath(folders.payload)), Path(os.path.realpath(folders.output))
    if not payload.is_dir():
        raise InputError(f"{folders.payload} is no folder; --input names the folder with the slide")
    if output.is_relative_to(payload):
        raise OutputError(f"{folders.output} is the input folder or lies in it; the result needs a folder of its own")


def _state(plan: Plan, folders: Folders, config: Path | None, say: Say) -> State:
    """Return how far this run is; what is there of another one gives way, if it is no result."""
    key = jobstate.key(plan.hash, folders.payload, *([] if config is None else [config]))
    before = jobstate.load(folders.job)
    ours = {Path(one).parts[0] for one in before.placed} if before is not None else set()
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
        say("what is there of an earlier run does not fit this one: all operators are run")
    for name in ("data", "inputs", "logs", "config"):
        shutil.rmtree(folders.job / name, ignore_errors=True)
    state = State(key, placed=placed)
    state.save(folders.job)
    return state


def _run(plan: Plan, folders: Folders, state: State, say: Say, launch: Launch) -> int:
    for one in plan.remarks:
        say(one)
    done: set[str] = set()
    for step in plan.steps:
        if step.name in state.done and done.issuperset(step.upstream) and all(Path(one).is_dir() for one in step.makes):
            done.add(step.name)
            say(f"{step.name}: is done already")
    state.done = set(done)
    log = folders.log("x").parent
    log.mkdir(exist_ok=True)

    def start(step: Step) -> Running:
        _prepare(step)
        say(f"{step.name}: starts")
        return launch(step, folders.log(step.name))

    def report(result: Result) -> None:
        state.took(result)
        state.save(folders.job)
        memory = "" if result.ended.memory is None else f", at most {human(result.ended.memory)} of memory"
        say(f"{result.name}: exit code {result.ended.code} after {duration(result.seconds)}{memory}")

    with _signals() as heard:
        results = schedule(plan.steps, start, report, done, lambda: len(heard))
    failed = [one for one in results if one.ended.code]
    if not heard and not failed:
        _place(plan, folders, state)
    for line in summary(plan, results, done):
        say(line)
    if heard:
        stop = Interrupted(heard[0])
        say(str(stop))
        return stop.exit_code
    if failed:
        _tell(failed[0], folders, say)
        return failed[0].ended.code
    say(f"{folders.output} has the result: {', '.join(state.placed) or 'nothing was written'}")
    return 0


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


def summary(plan: Plan, results: Sequence[Result], done: set[str]) -> Iterator[str]:
    """Yield a table: what became of each operator, its time and memory."""
    found = {one.name: one for one in results}
    wide = max(len(step.name) for step in plan.steps)
    for step in plan.steps:
        result = found.get(step.name)
        if result is None:
            yield f"  {step.name:<{wide}}  {'done before' if step.name in done else 'not run'}"
            continue
        state = "done" if result.ended.code == 0 else f"exit code {result.ended.code}"
        memory = "" if result.ended.memory is None else human(result.ended.memory)
        yield f"  {step.name:<{wide}}  {state:<13}  {result.seconds:8.1f} s  {memory:>10}".rstrip()


def _tell(result: Result, folders: Folders, say: Say) -> None:
    path = folders.log(result.name)
    say(f"{result.name} failed with exit code {result.ended.code}; the end of {path}:")
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in deque(lines, LAST_LINES):
            say(f"  {line.rstrip()}")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Note the signals that ask for an end, in place of ending."""
    heard: list[int] = []
    before = {number: signal.signal(number, lambda got, _: heard.append(got)) for number in _SIGNALS}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
