"""Writes a store, item by item, so that a kill at any instant loses nothing that its ledger names.

The order on the disk is always: arrays reserved, ledger begun, manifest renamed into place; items, then the records
that name them; at last `COMPLETE`, renamed in. What a manifest says is therefore true from the moment that it is there.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.closing import Closing
from shared.disk import writing
from shared.errors import StoreError
from shared.store import ledger
from shared.store.array import SHARED, Array, ArrayWriter, WritableArray
from shared.store.fastio import Context, FastIOWriter, free_allocation
from shared.store.ledger import Entry, LedgerWriter, checksum
from shared.store.manifest import COMPLETE, FASTIO, FILE, ArrayFacts, Manifest, read_manifest

COMMIT_SECONDS = 0.5
"""How long an item may be there before the ledger names it: what comes after a stage waits for that."""
COMMIT_BYTES = 64 << 20

_ARRAYS = "arrays"  # in the folder of work: files in shared memory that are ours, so that a killed run's are found


class StoreWriter(Closing):
    """Writes the large array of a store.

    Parameters
    ----------
    folder
        The store's; nobody else writes to it.
    work
        A folder of work in it, which readers do not look at.
    manifest
        What the store is, its arrays included; their files and the generation are decided here. The large array is
        named as the store's kind.
    small
        The other arrays' content.
    files
        Further files, by name.
    shared
        Put the large array into shared memory.
    fastio
        The FastIO context of NVIDIA's driver, where it runs this stage: the shared memory to take.

    Notes
    -----
    A store with this very key that is not complete is gone on with; one that is complete must not be opened.
    """

    _array: WritableArray

    def __init__(
        self,
        folder: Path,
        work: Path,
        manifest: Manifest,
        small: Mapping[str, Array],
        files: Mapping[str, bytes],
        *,
        shared: bool,
        fastio: Context = None,
    ) -> None:
        self._folder, self._work = folder, work
        there = read_manifest(folder) if resumable(folder, manifest.key) else None
        if there is None:
            self._create(manifest, small, files, shared, fastio)
        else:
            self._resume(there, manifest)
        self._pending: list[Entry] = []
        self._waiting_bytes = 0
        self._committed = time.monotonic()
        self._lock, self._committing = threading.Lock(), threading.Lock()
        self._users, self._closed = 0, False
        self._idle = threading.Condition(self._lock)
        self.entries = dict(self._ledger.entries)
        """What the ledger names, by item; what was put since the store was opened as well."""

    def put(self, items: list[int], values: Array, flags: int | list[int] = 0) -> None:
        """Store items.

        Parameters
        ----------
        items
            Their places along the first axis.
        values
            (len(items), ...) of the array's type, C-contiguous.
        flags
            Of all or of each; see `shared.store.ledger`.

        Notes
        -----
        Any thread may do so at any time. After `close`, as when a server answers late, nothing is stored.
        """
        with self._lock:
            if self._closed:
                return
            self._users += 1
        try:
            self._put(items, values, flags)
        finally:
            with self._lock:
                self._users -= 1
                self._idle.notify_all()

    def _put(self, items: list[int], values: Array, flags: int | list[int]) -> None:
        each = [flags] * len(items) if isinstance(flags, int) else flags
        entries = [Entry(item, flag, checksum(value)) for item, flag, value in zip(items, each, values, strict=True)]
        start = 0
        for place in range(1, len(items) + 1):
            if place == len(items) or items[place] != items[place - 1] + 1:  # neighbours in one write
                self._array.put(items[start], values[start:place])
                start = place
        with self._lock:
            self._pending += entries
            self._waiting_bytes += values.nbytes
            due = self._waiting_bytes >= COMMIT_BYTES or time.monotonic() - self._committed >= COMMIT_SECONDS
        # One thread commits, the others go on; what they put meanwhile is for the next commit.
        if due and self._committing.acquire(blocking=False):
            try:
                self._commit()
            finally:
                self._committing.release()

    def get(self, item: int) -> Array:
        """Return an item that the ledger names.

        Raises
        ------
        StoreError
            It is not what was stored.
        """
        value: Array = self._array.get(item, item + 1)[0]
        if checksum(value) != self.entries[item].checksum:
            raise StoreError(f"{self._array.path}: tile {item} is damaged (its checksum differs); make the store again")
        return value

    def finish(self, facts: Mapping[str, object]) -> None:
        """Declare the store complete; all items must be there.

        Parameters
        ----------
        facts
            What a reader may want to know of how it was made.
        """
        with self._committing:
            self._commit()
        missing = [item for item in range(self.manifest.n) if item not in self.entries]
        if missing:
            raise AssertionError(f"{len(missing)} tiles were never stored, the first is {missing[0]}")
        self._array.seal()
        complete = {"generation": self.manifest.generation, "n": self.manifest.n, **facts}
        _put_file(self._folder, self._work, COMPLETE, (json.dumps(complete, indent=2) + "\n").encode())

    def close(self) -> None:
        """Commit what was put, and close all files; waits for those who are putting something."""
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: self._users == 0)
        try:
            with self._committing:
                self._commit()
        finally:
            self._array.close()
            self._ledger.close()

    def _commit(self) -> None:
        with self._lock:
            entries, self._pending, self._waiting_bytes = self._pending, [], 0
        if entries:
            self._array.sync()
            self._ledger.append(entries)
            self.entries.update((entry.item, entry) for entry in entries)
        self._committed = time.monotonic()

    def _create(
        self,
        manifest: Manifest,
        small: Mapping[str, Array],
        files: Mapping[str, bytes],
        shared: bool,
        fastio: Context,
    ) -> None:
        remove_store(self._folder, self._work, fastio)
        generation = uuid.uuid4().hex
        arrays: dict[str, ArrayFacts] = {}
        for name, content in small.items():
            with ArrayWriter(self._folder / f"{name}.npy", content.shape, str(content.dtype), create=True) as array:
                array.put(0, np.ascontiguousarray(content))
                array.sync()
            arrays[name] = ArrayFacts(f"{name}.npy", content.shape, str(content.dtype))
        for name, data in files.items():
            _put_file(self._folder, self._work, name, data)
        arrays[manifest.kind] = self._make_array(manifest, generation, shared, fastio)
        self._ledger = LedgerWriter(self._folder / ledger.FILE, generation, create=True)
        self.manifest = replace(manifest, generation=generation, arrays=arrays)
        _put_file(self._folder, self._work, FILE, self.manifest.to_json())
        (self._work / _ARRAYS).unlink(missing_ok=True)  # the manifest names it from now on

    def _make_array(
        self,
        manifest: Manifest,
        generation: str,
        shared: bool,
        fastio: Context,
    ) -> ArrayFacts:
        large, name = manifest.arrays[manifest.kind], f"nuclei-{generation}-{manifest.kind}"
        if shared and fastio is not None:
            allocation = FastIOWriter.make(fastio, name, large.shape, large.dtype)
            if allocation is not None:
                self._array = allocation
                return replace(large, file=f"{FASTIO}{name}")
        if shared:
            # Shared memory knows no folders that a server could look into: the name tells whose it is.
            path = SHARED / f"{name}.npy"
            _put_file(self._work, self._work, _ARRAYS, f"{path}\n".encode())
        else:
            path = self._folder / f"{manifest.kind}.npy"
        self._array = ArrayWriter(path, large.shape, large.dtype, create=True)
        return replace(large, file=str(path) if shared else path.name)

    def _resume(self, there: Manifest, wanted: Manifest) -> None:
        facts = there.arrays[there.kind]
        self._array = ArrayWriter(self._folder / facts.file, facts.shape, facts.dtype, create=False)
        self._ledger = LedgerWriter(self._folder / ledger.FILE, there.generation, create=False)
        self.manifest = there
        if there.run != wanted.run:
            self.manifest = replace(there, run=wanted.run)
            _put_file(self._folder, self._work, FILE, self.manifest.to_json())


def resumable(folder: Path, key: str) -> bool:
    """Tell whether a folder holds a store of this key, complete or not, whose large array is still there.

    One in memory of NVIDIA's driver never is: what was not published went with its process, the rest goes with the job.
    """
    manifest = read_manifest(folder)
    if manifest is None or manifest.key != key:
        return False
    files = [facts.file for facts in manifest.arrays.values()]
    if any(file.startswith(FASTIO) for file in files):
        return False
    return all((folder / file).exists() for file in [*files, ledger.FILE])


def rename_run(folder: Path, work: Path, manifest: Manifest, run: str) -> None:
    """Give a store to another run: that the stages after this one wait for it."""
    _put_file(folder, work, FILE, replace(manifest, run=run).to_json())


def remove_store(folder: Path, work: Path, fastio: Context = None) -> None:
    """Remove a store, whole or not: first what makes it one, so that no reader ever takes the rest for one."""
    with writing(folder):
        try:
            manifest = read_manifest(folder)
        except StoreError:  # it is none that names anything
            manifest = None
        for path in _announced(work):
            path.unlink(missing_ok=True)
        (folder / COMPLETE).unlink(missing_ok=True)
        (folder / FILE).unlink(missing_ok=True)
        _force(folder)
        if manifest is not None:
            free(manifest, fastio)
        for name in (ledger.FILE, "tiles.npy", "masks.npy", "index.npy", "tissue.npy"):
            (folder / name).unlink(missing_ok=True)
        (work / _ARRAYS).unlink(missing_ok=True)


def free(manifest: Manifest, fastio: Context = None) -> None:
    """Give back the shared memory of a store; what lies on a disk stays."""
    for facts in manifest.arrays.values():
        if facts.file.startswith(FASTIO):
            free_allocation(fastio, facts.file)
        path = Path(facts.file)
        if _is_ours(path):
            with writing(path):
                path.unlink(missing_ok=True)


def _announced(work: Path) -> list[Path]:
    """Return the files in shared memory that a killed run was about to make, when no manifest named them yet."""
    try:
        lines = (work / _ARRAYS).read_text().splitlines()
    except FileNotFoundError:
        return []
    return [path for path in map(Path, lines) if _is_ours(path)]


def _is_ours(path: Path) -> bool:
    return path.parent == SHARED and path.name.startswith("nuclei-")


def _put_file(folder: Path, work: Path, name: str, content: bytes) -> None:
    """Write a file whole or not at all."""
    part = work / f"{name}.part"
    with writing(folder / name, len(content)):
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(folder / name)
        _force(folder)


def _force(folder: Path) -> None:
    """Force a folder's names to the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
