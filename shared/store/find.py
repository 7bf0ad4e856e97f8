"""Finds the store that a stage reads, in its input folder or in the subfolder named for the kind."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from nuclei_segmentation.shared.errors import InputError, OutputError, StoreError
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.store.array import SHARED
from nuclei_segmentation.shared.store.manifest import Kind, Manifest, read_manifest

_MAKERS = {"tiles": "load", "masks": "filter"}


def find_store(
    settings: Settings, kind: Kind, wait_limit: WaitLimit, refuse: Callable[[Manifest], str] = lambda _: ""
) -> tuple[Path, Manifest]:
    """Return the folder and manifest of a store; wait for it where there is waiting.

    Parameters
    ----------
    settings : Settings
        Where to look. Who waits and belongs to a run (``NUCLEI_RUN_ID``) takes no store of another run.
    kind : Kind
        What the store must hold.
    wait_limit : WaitLimit
        How long to wait.
    refuse : callable, optional
        Says what is wrong with a store that was found, or nothing. Who waits goes on waiting for the right one.

    Raises
    ------
    InputError
        There is none, and no waiting.
    WaitedTooLong
        None came.
    StoreError
        A manifest is there and cannot be understood, or the store is not the right one.
    """
    places = places_of(settings, kind)
    while True:
        other, unreadable = "", None
        for folder in places:
            try:
                manifest = read_manifest(folder)
            except StoreError as error:  # it may be somebody else's file, and the store in the other folder
                unreadable = unreadable or error
                continue
            if manifest is None or manifest.kind != kind:
                continue
            other = refuse(manifest)
            if not other and wait_limit.waits:
                other = belongs_elsewhere(settings, manifest)
            if not other:
                return folder, manifest
            if not wait_limit.waits:
                raise StoreError(f"the store of {kind} in {folder} does not fit: {other}")
            other = f" ({other})"
        if unreadable is not None:
            raise unreadable
        if not wait_limit.waits:
            raise InputError(missing(settings, kind))
        text = f"store of {kind} in {places[0]} or {places[1]}{other}"
        wait_limit.wait(lambda text=text: text)  # type: ignore[misc] # mypy cannot infer a lambda's default


def places_of(settings: Settings, kind: Kind) -> list[Path]:
    """Return the folders in which a store may lie."""
    roots = [root.parent if root.is_file() else root for root in settings.inputs]
    return [folder for root in roots for folder in (root, root / kind)]


def belongs_elsewhere(settings: Settings, manifest: Manifest) -> str:
    """Return why who waits goes on waiting in spite of a store that is there; empty if it will do."""
    if settings.run_id not in ("", manifest.run):
        return f"it belongs to run {manifest.run or '(unnamed)'}, not to {settings.run_id}"
    for facts in manifest.arrays.values():
        if Path(facts.file).parent == SHARED and not Path(facts.file).exists():
            return (
                f"its array {facts.file} was freed by the end of a run, or this process does not share memory "
                "(--ipc=host) with the stage that makes it"
            )
    return ""


def refuse_as_output(store: Path, kind: Kind, output: Path) -> None:
    """Raise `OutputError` if a stage would write where it reads."""
    if os.path.realpath(store) == os.path.realpath(output):
        raise OutputError(f"{output} holds the store of {kind} that is read; the result needs a folder of its own")


def missing(settings: Settings, kind: Kind) -> str:
    """Return what to tell of a store that is not there."""
    maker = _MAKERS[kind]
    if settings.input_path.is_file():
        return (
            f"{settings.input_path} is a file; here --input-path must be a folder that holds the store of {kind}, "
            f"which {maker} wrote, in its subfolder {kind}/ (and the slide, for stitch, itself or in slide/)"
        )
    return (
        f"no store of {kind} in {settings.input_path} or {settings.input_path / kind}; give the output folder of "
        f"{maker}, in a container: -v <folder that {maker} wrote>:{settings.input_path / kind}:ro"
    )
