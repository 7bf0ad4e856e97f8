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
from nuclei_segmentation.shared.runtime.folder import is_folder, make_folders
from nuclei_segmentation.shared.runtime.lock import FolderLock


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


def open_state(plan: Plan, folders: Folders, config: Path | None, view: View, lock: FolderLock) -> State:
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
    lock : FolderLock
        By which this run holds the job's folder.

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
    _discard(folders, "data", "inputs", "logs", "config")
    state = State(key, placed=placed)
    state.save(lock)
    return state


def finished_operators(plan: Plan, folders: Folders, state: State) -> set[str]:
    """Return the operators that need not run again.

    Parameters
    ----------
    plan : Plan
        The plan of the run.
    folders : Folders
        The folders of the run.
    state : State
        How far it is.
    """
    finished: set[str] = set()
    for step in plan.steps:
        kept = not step.volatile and all(is_folder(folders.output, Path(folder)) for folder in step.makes)
        if step.name in state.done and kept and finished.issuperset(step.upstream):
            finished.add(step.name)
    return finished


def place_result(plan: Plan, folders: Folders, state: State, lock: FolderLock) -> None:
    """Move the result to its place. If the run is killed meanwhile, the next one moves the rest.

    Parameters
    ----------
    plan : Plan
        The plan of the run.
    folders : Folders
        The folders of the run.
    state : State
        How far it is. It is complete afterwards.
    lock : FolderLock
        By which this run holds the job's folder.

    Raises
    ------
    LockLost
        Another run holds it by now.
    """
    moves = [
        (entry, Path(target) / entry.name)
        for folder, target in plan.results
        if is_folder(folders.output, Path(folder))
        for entry in sorted(Path(folder).iterdir())
    ]
    state.placed = sorted({*state.placed, *(str(target.relative_to(folders.output)) for _, target in moves)})
    state.save(lock)
    for source, target in moves:
        make_folders(folders.output, target.parent)
        lock.check()
        source.replace(target)
    state.complete = True
    state.save(lock)
    _discard(folders, "data", "inputs", "config")


def _discard(folders: Folders, *names: str) -> None:
    """Remove folders of the job, as far as they can be removed; of a link the link itself."""
    for name in names:
        path = folders.job / name
        if path.is_symlink():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)
