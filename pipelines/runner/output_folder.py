"""The output folder: whether a run may use it, what an earlier run left there, and how the result gets there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.runner import job_state
from nuclei_segmentation.pipelines.runner.job_state import State
from nuclei_segmentation.pipelines.runner.plan import Plan
from nuclei_segmentation.pipelines.runner.view import View
from nuclei_segmentation.shared.errors import InputError, OutputError


def check_folders(folders: Folders) -> None:
    """Check that there is a payload, and that the output folder lies outside of it.

    Raises
    ------
    InputError
        There is no payload.
    OutputError
        The output folder is a file, or lies in the payload.
    """
    payload, output = Path(os.path.realpath(folders.payload)), Path(os.path.realpath(folders.output))
    if not os.path.isdir(payload):  # noqa: PTH112 - `Path.is_dir` raises if a name is too long
        raise InputError(f"{folders.payload} is not a folder; --input must name the folder with the slide")
    if output.is_relative_to(payload):
        raise OutputError(
            f"{folders.output} is the input folder or lies in it; choose a separate folder for the result"
        )
    if os.path.lexists(folders.output) and not folders.output.is_dir():
        raise OutputError(
            f"{folders.output} is not a folder; --output must name an empty folder, or one that does not exist yet"
        )


def open_state(plan: Plan, folders: Folders, config: Path | None, view: View) -> State:
    """Return how far the run is. What an earlier, different run left unfinished is removed.

    Parameters
    ----------
    plan : Plan
        The plan of the run.
    folders : Folders
        The folders of the run.
    config : pathlib.Path or None
        Folder with config.yaml, if any.
    view : View
        Shows what happens.

    Raises
    ------
    OutputError
        The output folder holds files of somebody else, or the result of another run.
    """
    key = job_state.key(plan.hash, folders.payload, *([] if config is None else [config]), output=folders.output)
    before = job_state.load(folders.job)
    known = {path.partition("/")[0] for path in before.placed} if before is not None else set()
    found = sorted(path.name for path in folders.output.iterdir() if not path.name.startswith("."))
    foreign = next((name for name in found if name not in known), None)
    if foreign is not None:
        raise OutputError(f"{folders.output} is not empty ({foreign}); choose an empty folder for the result")
    same = before is not None and before.key == key
    if found and not same:
        raise OutputError(f"{folders.output} holds the result of another run; choose another folder, or remove it")
    placed = [path for path in before.placed if (folders.output / path).exists()] if before is not None else []
    if before is not None and same and (not before.complete or placed == before.placed):
        return before
    if before is not None and before.done:
        view.show("the earlier run in this folder differs from this one: all operators run again")
    for name in ("data", "inputs", "logs", "config"):
        shutil.rmtree(folders.job / name, ignore_errors=True)
    state = State(key, placed=placed)
    state.save(folders.job)
    return state


def finished_operators(plan: Plan, state: State) -> set[str]:
    """Return the operators that need not run again.

    Parameters
    ----------
    plan : Plan
        The plan of the run.
    state : State
        How far it is.
    """
    finished: set[str] = set()
    for step in plan.steps:
        kept = not step.volatile and all(Path(folder).is_dir() for folder in step.makes)
        if step.name in state.done and kept and finished.issuperset(step.upstream):
            finished.add(step.name)
    return finished


def place_result(plan: Plan, folders: Folders, state: State) -> None:
    """Move the result to its place. If the run is killed meanwhile, the next one moves the rest.

    Parameters
    ----------
    plan : Plan
        The plan of the run.
    folders : Folders
        The folders of the run.
    state : State
        How far it is. It is complete afterwards.
    """
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
    state.complete = True
    state.save(folders.job)
    for name in ("data", "inputs", "config"):
        shutil.rmtree(folders.job / name, ignore_errors=True)
