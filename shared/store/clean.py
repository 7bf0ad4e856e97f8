"""Removes what belongs to a store, and never a file that somebody else put into its folder.

A folder belongs to a store if it has a manifest, or a note (`NOTE`) in its work folder. The note is written before the
first file of a store is made or removed, and is removed when the manifest is in place. So after a kill at any moment
it is known that the files in the folder are a store's. The note lists files in shared memory, outside the folder.
"""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from nuclei_segmentation.shared.clara.fastio import FASTIO, Context, release_allocation
from nuclei_segmentation.shared.clara.render_config import RENDER
from nuclei_segmentation.shared.errors import NucleiError, OutputError, StoreError
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.file_system import sync
from nuclei_segmentation.shared.runtime.files import read_at, write_file
from nuclei_segmentation.shared.runtime.lock import Check
from nuclei_segmentation.shared.runtime.output_folder import MAKING as NOTE
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.array import SHARED
from nuclei_segmentation.shared.store.files import open_store_file, read_store_file
from nuclei_segmentation.shared.store.manifest import (
    ARRAYS,
    COMPLETE,
    FILE,
    LIMIT,
    Kind,
    Manifest,
    read_manifest,
    shared_name,
)

log = logging.getLogger(__name__)

NAMES = (FILE, COMPLETE, ledger.FILE, *(f"{name}.npy" for name in ARRAYS))
"""Names of a store's files in its folder. A tile store has a copy of config_render.json as well."""


def make_room(folder: Path, work: Path, kind: Kind, check: Check, shared: str = "", fastio: Context = None) -> None:
    """Remove the store in a folder, complete or not, and note that a new one is being made.

    Parameters
    ----------
    folder : pathlib.Path
        The store's folder.
    work : pathlib.Path
        Its work folder.
    kind : Kind
        Kind of the new store.
    check : callable
        Called before anything is removed.
    shared : str, optional
        The file in shared memory that the new store will have.
    fastio : Context, optional
        The FastIO context, if NVIDIA's driver runs this stage.

    Raises
    ------
    OutputError
        A file in the folder has a name that the store needs, but does not belong to a store.
    """
    with writing(folder):
        try:
            manifest = read_manifest(folder)
        except StoreError:  # it is invalid, and names no files
            manifest = None
        in_memory = _files_in_memory(folder, work, manifest)
        tiles = kind == "tiles" or (manifest is not None and manifest.kind == "tiles")
        names = [*NAMES, RENDER] if tiles else NAMES
        present = [name for name in names if os.path.lexists(folder / name)]
        if present and FILE not in present and not (work / NOTE).exists():
            raise OutputError(
                f"{folder / present[0]} is in the way and does not belong to a store; remove it or use an empty folder"
            )
        note = "\n".join([*map(str, in_memory), shared, ""])
        write_file(work / NOTE, note.encode(), work / f"{NOTE}.part")
        check()
        # First the files that make it a store, so that no reader takes the rest for one.
        for name in (COMPLETE, FILE):
            (folder / name).unlink(missing_ok=True)
        sync(folder)
        if manifest is not None:
            _release_allocations(manifest, fastio)
        for path in [*in_memory, *(folder / name for name in present)]:
            path.unlink(missing_ok=True)


def remove(folder: Path, work: Path, check: Check, fastio: Context = None) -> None:
    """Remove the store in a folder, complete or not, without making a new one.

    Parameters
    ----------
    folder : pathlib.Path
        The store's folder.
    work : pathlib.Path
        Its work folder.
    check : callable
        Called before anything is removed.
    fastio : Context, optional
        The FastIO context, if NVIDIA's driver runs this stage.

    Raises
    ------
    OutputError
        A file in the folder has a name of a store's file, but does not belong to a store.
    """
    make_room(folder, work, "masks", check, fastio=fastio)
    drop_note(work)


def drop_note(work: Path) -> None:
    """Remove the note that a store is being made: its manifest is in place, or nothing is left of it."""
    with writing(work):
        (work / NOTE).unlink(missing_ok=True)


def undo(folder: Path, work: Path, kind: Kind, check: Check) -> None:
    """Remove the files of a store that could not be made; what cannot be removed is left to the next run.

    Parameters
    ----------
    folder : pathlib.Path
        The store's folder.
    work : pathlib.Path
        Its work folder.
    kind : Kind
        Its kind.
    check : callable
        Called before anything is removed: by now the files may be another run's.
    """
    names = [*NAMES, RENDER] if kind == "tiles" else NAMES
    try:
        check()
        for path in [*(folder / name for name in names), *_noted(work)]:
            path.unlink(missing_ok=True)
        drop_note(work)
    except (OSError, NucleiError) as error:
        log.debug("the files of a store that could not be made stay in %s: %s", folder, error)


def bytes_to_release(folder: Path, work: Path) -> int:
    """Return how many bytes of shared memory `make_room` will release.

    Parameters
    ----------
    folder : pathlib.Path
        The store's folder.
    work : pathlib.Path
        Its work folder.

    Returns
    -------
    int
    """
    try:
        manifest = read_manifest(folder)
    except StoreError:
        manifest = None
    return sum(path.stat().st_size for path in set(_files_in_memory(folder, work, manifest)) if path.exists())


def release_shared_memory(manifest: Manifest, fastio: Context = None) -> None:
    """Release the shared memory of a store; its files on the disk stay.

    Parameters
    ----------
    manifest : Manifest
        The store's manifest.
    fastio : Context, optional
        The FastIO context, if NVIDIA's driver runs this stage.
    """
    _release_allocations(manifest, fastio)
    for path in _arrays_in_memory(manifest):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed (%s); remove it yourself, for it takes memory", path, error.strerror)


def _release_allocations(manifest: Manifest, fastio: Context) -> None:
    for array in manifest.arrays.values():
        if array.file.startswith(FASTIO):
            release_allocation(fastio, array.file)


def _files_in_memory(folder: Path, work: Path, manifest: Manifest | None) -> list[Path]:
    """Return the files in shared memory that belong to a store; `manifest` is None where it is missing or invalid."""
    return [*_noted(work), *(_named_by_ledger(folder) if manifest is None else _arrays_in_memory(manifest))]


def _arrays_in_memory(manifest: Manifest) -> list[Path]:
    return [path for array in manifest.arrays.values() if (path := Path(array.file)).parent == SHARED]


def _named_by_ledger(folder: Path) -> list[Path]:
    """Return the files in shared memory that are named for the generation in a ledger."""
    try:
        file = open_store_file(folder / ledger.FILE)
    except (FileNotFoundError, NotADirectoryError, StoreError):
        return []
    try:
        header = read_at(file, ledger.HEADER, 0)
    finally:
        os.close(file)
    if len(header) < ledger.HEADER or not header.startswith(ledger.MAGIC):
        return []
    generation = header[len(ledger.MAGIC) :].hex()
    return [path for name in ("tiles", "masks") if (path := Path(shared_name(generation, name))).exists()]


def _noted(work: Path) -> list[Path]:
    """Return the files in shared memory that a killed run was about to make or remove."""
    try:
        lines = read_store_file(work / NOTE, LIMIT).decode(errors="replace").splitlines()
    except (FileNotFoundError, StoreError):
        return []
    own = re.compile(rf"{re.escape(str(SHARED))}/nuclei-[0-9a-f]{{32}}-(tiles|masks)\.npy")
    return [Path(line) for line in lines if own.fullmatch(line)]
