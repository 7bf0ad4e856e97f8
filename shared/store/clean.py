"""What belongs to a store, and may be removed: never a file that somebody else put into its folder.

A folder is a store's if a manifest is there, or an announcement in its folder of work. The announcement is written
before the first file of a store is made or removed, and goes when the manifest is there: a kill at any instant leaves
files that are known to be ours. It lists what lies in shared memory, outside the folder.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
from pathlib import Path

from nuclei_segmentation.shared.clara.fastio import FASTIO, Context, free_allocation
from nuclei_segmentation.shared.clara.render_config import RENDER
from nuclei_segmentation.shared.errors import NucleiError, OutputError, StoreError
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.files import force, open_regular, put_file, read_small
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.array import SHARED
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

log = logging.getLogger("nuclei")

NAMES = (FILE, COMPLETE, ledger.FILE, *(f"{name}.npy" for name in ARRAYS))
"""Names in a store's folder that are the store's. One of tiles has a copy of config_render.json as well."""
ANNOUNCED = "making"


def make_room(folder: Path, work: Path, kind: Kind, shared: str = "", fastio: Context = None) -> None:
    """Remove the store in a folder, whole or not, and announce a new one.

    Parameters
    ----------
    folder, work : pathlib.Path
        The store's, and its folder of work.
    kind : Kind
        Of the new one.
    shared : str, optional
        A file in shared memory that the new store will have.
    fastio : Context, optional
        The FastIO context of NVIDIA's driver, where it runs this stage.

    Raises
    ------
    OutputError
        A file that is no store's bears one of its names.
    """
    with writing(folder):
        try:
            manifest = read_manifest(folder)
        except StoreError:  # it is none that names anything
            manifest = None
        left = [*_announced(work), *(_shared(manifest) if manifest else _of_ledger(folder))]
        tiles = kind == "tiles" or (manifest is not None and manifest.kind == "tiles")
        names = [*NAMES, RENDER] if tiles else NAMES
        there = [name for name in names if (folder / name).exists() or (folder / name).is_symlink()]
        ours = FILE in there or (work / ANNOUNCED).exists()
        if there and not ours:
            raise OutputError(
                f"{folder / there[0]} is in the way, and belongs to no store; remove it or use an empty folder"
            )
        put_file(work, work, ANNOUNCED, "\n".join([*map(str, left), shared, ""]).encode())
        # first what makes it a store, so that no reader ever takes the rest for one
        for name in (COMPLETE, FILE):
            (folder / name).unlink(missing_ok=True)
        force(folder)
        if manifest is not None:
            _free_allocations(manifest, fastio)
        for path in [*left, *(folder / name for name in there)]:
            path.unlink(missing_ok=True)


def remove(folder: Path, work: Path, fastio: Context = None) -> None:
    """Remove the store in a folder, whole or not, for good; see `make_room`."""
    make_room(folder, work, "masks", fastio=fastio)
    settle(work)


def settle(work: Path) -> None:
    """Note that the manifest names from now on what was announced."""
    with writing(work):
        (work / ANNOUNCED).unlink(missing_ok=True)


def undo(folder: Path, work: Path, kind: Kind) -> None:
    """Remove what there is of a store whose making failed; what cannot be removed is left to the next run."""
    names = [*NAMES, RENDER] if kind == "tiles" else NAMES
    try:
        for path in [*(folder / name for name in names), *_announced(work)]:
            path.unlink(missing_ok=True)
        settle(work)
    except (OSError, NucleiError) as error:
        log.debug("%s is not tidied up: %s", folder, error)


def bytes_to_free(folder: Path, work: Path) -> int:
    """Return the bytes of shared memory that `make_room` will give back."""
    try:
        manifest = read_manifest(folder)
    except StoreError:
        manifest = None
    found = {*_announced(work), *(_shared(manifest) if manifest else _of_ledger(folder))}
    return sum(path.stat().st_size for path in found if path.exists())


def clear(work: Path) -> None:
    """Empty a folder of work, but for the lock."""
    for entry in work.iterdir():
        if entry.name != "lock":
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def free(manifest: Manifest, fastio: Context = None) -> None:
    """Give back the shared memory of a store; what lies on a disk stays."""
    _free_allocations(manifest, fastio)
    for path in _shared(manifest):
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            log.warning("%s cannot be removed (%s); it holds memory until you do", path, error.strerror)


def _free_allocations(manifest: Manifest, fastio: Context) -> None:
    for facts in manifest.arrays.values():
        if facts.file.startswith(FASTIO):
            free_allocation(fastio, facts.file)


def _shared(manifest: Manifest) -> list[Path]:
    return [path for facts in manifest.arrays.values() if (path := Path(facts.file)).parent == SHARED]


def _of_ledger(folder: Path) -> list[Path]:
    """Return the files in shared memory that a store may have whose manifest cannot be read."""
    try:
        number = open_regular(folder / ledger.FILE)
    except (FileNotFoundError, NotADirectoryError, StoreError):
        return []
    try:
        head = os.pread(number, ledger.HEADER, 0)
    finally:
        os.close(number)
    if len(head) < ledger.HEADER or not head.startswith(ledger.MAGIC):
        return []
    generation = head[len(ledger.MAGIC) :].hex()
    return [path for name in ("tiles", "masks") if (path := Path(shared_name(generation, name))).exists()]


def _announced(work: Path) -> list[Path]:
    """Return the files in shared memory that a killed run was about to make or to remove."""
    try:
        lines = read_small(work / ANNOUNCED, LIMIT).decode(errors="replace").splitlines()
    except (FileNotFoundError, StoreError):
        return []
    own = re.compile(rf"{re.escape(str(SHARED))}/nuclei-[0-9a-f]{{32}}-(tiles|masks)\.npy")
    return [Path(line) for line in lines if own.fullmatch(line)]
