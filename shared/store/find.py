"""Finds the store that a stage reads: in its input folder, or in the subfolder named for the store's kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from nuclei_segmentation.shared.errors import InputError, OutputError, StoreError
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.store.array import SHARED
from nuclei_segmentation.shared.store.manifest import STORE_NAMES, Kind, Manifest, read_manifest

Objection = Callable[[Manifest], str]
"""Returns why a store is not the right one; an empty text if it is."""

_MAKERS = {"tiles": "load", "masks": "filter"}


def find_store(
    settings: Settings, kind: Kind, wait_limit: WaitLimit, objection: Objection = lambda _: ""
) -> tuple[Path, Manifest]:
    """Return the folder and the manifest of a store. A stage that waits does so until the right store is there.

    Parameters
    ----------
    settings : Settings
        Say where to look. A stage that waits and belongs to a run (``NUCLEI_RUN_ID``) ignores stores of other runs.
    kind : Kind
        Kind of the store.
    wait_limit : WaitLimit
        How long to wait.
    objection : callable, optional
        Returns why a store is not the right one; an empty text if it is.

    Returns
    -------
    folder : pathlib.Path
        The store's folder.
    manifest : Manifest
        Its manifest.

    Raises
    ------
    InputError
        There is no such store, and the stage does not wait.
    WaitedTooLong
        No store came.
    StoreError
        A manifest is invalid, or the store is not the right one.
    """
    places = store_folders(settings, kind)
    while True:
        unfit, unreadable = "", None
        for folder in places:
            try:
                manifest = read_manifest(folder)
            except StoreError as error:  # it may be another program's file, with the store in the other folder
                unreadable = unreadable or error
                continue
            if manifest is None or manifest.kind != kind:
                continue
            reason = objection(manifest)
            if not reason and wait_limit.waits:
                reason = reason_to_wait(settings, manifest)
            if not reason:
                return folder, manifest
            if not wait_limit.waits:
                raise StoreError(f"the {STORE_NAMES[kind]} in {folder} does not fit: {reason}")
            unfit = f" ({reason})"
        if unreadable is not None:
            raise unreadable
        if not wait_limit.waits:
            raise InputError(no_store(settings, kind))
        text = f"{STORE_NAMES[kind]} in {places[0]} or {places[1]}{unfit}"
        wait_limit.wait(lambda text=text: text)  # type: ignore[misc] # mypy cannot infer a lambda's default


def store_folders(settings: Settings, kind: Kind) -> list[Path]:
    """Return the folders in which a store may lie.

    Parameters
    ----------
    settings : Settings
        Name the input folders.
    kind : Kind
        Kind of the store.

    Returns
    -------
    list of pathlib.Path
    """
    roots = [root.parent if root.is_file() else root for root in settings.inputs]
    return [folder for root in roots for folder in (root, root / kind)]


def reason_to_wait(settings: Settings, manifest: Manifest) -> str:
    """Return why a stage that waits ignores a store; an empty text if it does not.

    Parameters
    ----------
    settings : Settings
        Name the run.
    manifest : Manifest
        The store's manifest.

    Returns
    -------
    str
    """
    if settings.run_id not in ("", manifest.run):
        return f"it belongs to run {manifest.run or '(unnamed)'}, not to {settings.run_id}"
    for array in manifest.arrays.values():
        if Path(array.file).parent == SHARED and not Path(array.file).exists():
            return (
                f"its array {array.file} was released at the end of a run, or this process does not share memory "
                "(--ipc=host) with the stage that makes it"
            )
    return ""


def refuse_as_output(store: Path, kind: Kind, output: Path) -> None:
    """Make sure that a stage does not write where it reads.

    Parameters
    ----------
    store : pathlib.Path
        Folder of the store that is read.
    kind : Kind
        Its kind.
    output : pathlib.Path
        The output folder.

    Raises
    ------
    OutputError
        They are the same folder.
    """
    if os.path.realpath(store) == os.path.realpath(output):
        raise OutputError(f"{output} holds the {STORE_NAMES[kind]} to read; the result needs a folder of its own")


def no_store(settings: Settings, kind: Kind) -> str:
    """Return the message that there is no store.

    Parameters
    ----------
    settings : Settings
        Name the input folders.
    kind : Kind
        Kind of the store.

    Returns
    -------
    str
    """
    maker, name = _MAKERS[kind], STORE_NAMES[kind]
    if settings.input_path.is_file():
        return (
            f"{settings.input_path} is a file; here --input-path must be a folder with the {name} that {maker} wrote "
            f"in its subfolder {kind}/ (for stitch also with the slide, in the folder itself or in slide/)"
        )
    return (
        f"no {name} in {settings.input_path} or {settings.input_path / kind}; give the output folder of "
        f"{maker}, in a container: -v <folder that {maker} wrote>:{settings.input_path / kind}:ro"
    )
