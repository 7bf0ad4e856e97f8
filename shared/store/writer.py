"""Writes a store, item by item, so that a kill at any instant loses nothing that its ledger names.

The order on the disk is always: arrays reserved, ledger begun, manifest renamed into place; items, then the records
that name them; at last `COMPLETE`, renamed in. What a manifest says is therefore true from the moment that it is there.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np

from nuclei_segmentation.shared.clara.fastio import FASTIO, Context, FastIOWriter
from nuclei_segmentation.shared.clara.render_config import RENDER, RENDER_LIMIT
from nuclei_segmentation.shared.errors import NucleiError, StoreError
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.files import put_file, read_small
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.array import Array, ArrayReader, ArrayWriter, WritableArray
from nuclei_segmentation.shared.store.clean import bytes_to_free, make_room, settle, undo
from nuclei_segmentation.shared.store.ledger import DAMAGED, Entry, LedgerWriter, checksum
from nuclei_segmentation.shared.store.manifest import (
    COMPLETE,
    FILE,
    ArrayMetadata,
    Manifest,
    memory_name,
    read_manifest,
    shared_name,
)
from nuclei_segmentation.shared.store.reader import read_array
from nuclei_segmentation.shared.store.space import check_shared

log = logging.getLogger("nuclei")

COMMIT_SECONDS = 0.5
"""How long an item may be there before the ledger names it: what comes after a stage waits for that."""
COMMIT_BYTES = 64 << 20
"""How many bytes may be there before the ledger names them."""


class StoreWriter(Closing):
    """Writes the large array of a store.

    Parameters
    ----------
    folder : pathlib.Path
        The store's; nobody else writes to it.
    work : pathlib.Path
        A folder of work in it, which readers do not look at.
    manifest : Manifest
        What the store is, its arrays included; their files and the generation are decided here. The large array is
        named as the store's kind.
    small : Mapping of str to numpy.ndarray
        The other arrays' content.
    files : Mapping of str to bytes
        Further files, by name.
    shared : bool
        Put the large array into shared memory.
    fastio : Context, optional
        The FastIO context of NVIDIA's driver, where it runs this stage: the shared memory to take.

    Notes
    -----
    A store with this very key that is not complete is gone on with; one that is complete must not be opened. Items that
    are damaged places of the slide are not counted as there: it may be a better copy by now.

    Attributes
    ----------
    entries
        What the ledger names, by item; what is put is added when it is durable.
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
        if not self._resume(manifest, small, files):
            self._create(manifest, small, files, shared, fastio)
        self.entries = {item: entry for item, entry in self._ledger.entries.items() if not entry.flags & DAMAGED}
        self._pending: list[Entry] = []
        self._waiting_bytes = 0
        self._lock, self._committing = threading.Lock(), threading.Lock()
        self._users, self._closed = 0, False
        self._idle = threading.Condition(self._lock)
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self._clerk = threading.Thread(target=self._commit_now_and_then, name="ledger", daemon=True)
        self._clerk.start()

    def put(self, items: list[int], values: Array, flags: int | list[int] = 0) -> None:
        """Store items.

        Parameters
        ----------
        items : list of int
            Their places along the first axis.
        values : numpy.ndarray
            (len(items), ...) of the array's type, C-contiguous.
        flags : int or list of int, optional
            Of all or of each; see `shared.store.ledger`.

        Raises
        ------
        NoSpace, OutputError
            These or earlier ones cannot be written.

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

    def get(self, item: int) -> Array:
        """Return an item that an earlier run stored. Any thread may do so at any time."""
        facts = self.manifest.arrays[self.manifest.kind]
        with ArrayReader(self._array.path, facts.shape, facts.dtype) as array:
            content: Array = array.get(item, item + 1)[0]
            return content

    def finish(self, facts: Mapping[str, object]) -> None:
        """Declare the store complete; all items must be there.

        Parameters
        ----------
        facts : Mapping of str to object
            What a reader may want to know of how it was made.
        """
        with self._committing:
            self._commit()
        missing = [item for item in range(self.manifest.n) if item not in self.entries]
        if missing:
            raise AssertionError(f"{len(missing)} tiles were never stored, the first is {missing[0]}")
        self._array.seal()
        complete = {"generation": self.manifest.generation, "n": self.manifest.n, **facts}
        put_file(self._folder, self._work, COMPLETE, (json.dumps(complete, indent=2) + "\n").encode())

    def close(self) -> None:
        """Commit what was put, and close all files; waits for those who are putting something."""
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: self._users == 0)
        self._ended.set()
        self._clerk.join()
        try:
            with self._committing:
                if self._failure is None:  # else it was told already, and must not be tried again
                    self._commit()
        finally:
            self._array.close()
            self._ledger.close()

    def _put(self, items: list[int], values: Array, flags: int | list[int]) -> None:
        if self._failure is not None:
            self._fail()
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
            due = self._waiting_bytes >= COMMIT_BYTES
        # One thread commits, the others go on; what they put meanwhile is for the next commit.
        if due and self._committing.acquire(blocking=False):
            try:
                self._commit()
            finally:
                self._committing.release()

    def _commit_now_and_then(self) -> None:
        """Commit even when nobody puts anything: who reads the store waits, and a kill must not cost much."""
        while not self._ended.wait(COMMIT_SECONDS):
            with self._committing:
                try:
                    self._commit()
                except Exception:  # it is kept, and raised by who puts or finishes
                    return

    def _commit(self) -> None:
        """Name in the ledger what was put; `_committing` is held."""
        if self._failure is not None:
            self._fail()
        with self._lock:
            entries, self._pending, self._waiting_bytes = self._pending, [], 0
        if not entries:
            return
        try:
            self._array.sync()
            self._ledger.append(entries)
        except BaseException as error:
            # After a sync that failed, the system takes the lost pages for written: the next one would succeed.
            self._failure = error
            raise
        self.entries.update((entry.item, entry) for entry in entries)

    def _fail(self) -> NoReturn:
        assert self._failure is not None
        raise self._failure

    def _create(
        self,
        manifest: Manifest,
        small: Mapping[str, Array],
        files: Mapping[str, bytes],
        shared: bool,
        fastio: Context,
    ) -> None:
        generation, kind = uuid.uuid4().hex, manifest.kind
        large = manifest.arrays[kind]
        allocation = None
        if shared and fastio is not None:
            allocation = FastIOWriter.make(fastio, memory_name(generation, kind), large.shape, large.dtype)
        shared = shared and allocation is None
        place = shared_name(generation, kind) if shared else ""
        try:
            if shared:
                check_shared(large.bytes, bytes_to_free(self._folder, self._work))
            make_room(self._folder, self._work, kind, place, fastio)
        except BaseException:
            if allocation is not None:
                allocation.close()
            raise
        file = place or f"{kind}.npy" if allocation is None else str(allocation.path)
        arrays: dict[str, ArrayMetadata] = {kind: replace(large, file=file)}
        try:
            self._array = allocation or ArrayWriter(self._folder / file, large.shape, large.dtype, create=True)
            try:
                self._array.sync()
                for name, content in small.items():
                    arrays[name] = self._put_small(name, np.ascontiguousarray(content))
                if kind == "tiles":
                    keep_files(self._folder, self._work, files)
                self._ledger = LedgerWriter(self._folder / ledger.FILE, generation, manifest.n, create=True)
                self.manifest = replace(manifest, generation=generation, arrays=arrays)
                put_file(self._folder, self._work, FILE, self.manifest.to_json())
            except BaseException:
                self._array.close()
                raise
        except NucleiError:
            undo(self._folder, self._work, kind)
            raise
        settle(self._work)

    def _put_small(self, name: str, content: Array) -> ArrayMetadata:
        facts = ArrayMetadata(f"{name}.npy", content.shape, str(content.dtype), crc32=zlib.crc32(content.data))
        with ArrayWriter(self._folder / facts.file, facts.shape, facts.dtype, create=True) as file:
            file.put(0, content)
            file.sync()
        return facts

    def _resume(self, wanted: Manifest, small: Mapping[str, Array], files: Mapping[str, bytes]) -> bool:
        """Open the store that is there; return whether it is the wanted one, and can be gone on with."""
        try:
            there = read_manifest(self._folder)
            if there is None or (there.key, there.kind, there.shard) != (wanted.key, wanted.kind, wanted.shard):
                return False
            facts = there.arrays[there.kind]
            if facts.file.startswith(FASTIO):
                return False  # what was not published went with its process
            for name, content in small.items():
                if name not in there.arrays or there.arrays[name].crc32 != zlib.crc32(
                    np.ascontiguousarray(content).data
                ):
                    raise StoreError(f"{self._folder / FILE}: array {name} is not that of this slide")
                read_array(self._folder, there.arrays[name])
            if facts.shape != wanted.arrays[wanted.kind].shape:
                raise StoreError(f"{self._folder / FILE}: array {there.kind} is not that of this slide")
            self._array = ArrayWriter(self._folder / facts.file, facts.shape, facts.dtype, create=False)
            try:
                self._ledger = LedgerWriter(self._folder / ledger.FILE, there.generation, there.n, create=False)
            except BaseException:
                self._array.close()
                raise
        except StoreError as error:
            log.warning("what an earlier run left cannot be used, all is made anew: %s", error)
            return False
        settle(self._work)
        if there.kind == "tiles":
            keep_files(self._folder, self._work, files)
        self.manifest = there
        if there.run != wanted.run:
            self.manifest = replace(there, run=wanted.run)
            put_file(self._folder, self._work, FILE, self.manifest.to_json())
        return True


def keep_files(folder: Path, work: Path, files: Mapping[str, bytes]) -> None:
    """Bring the files that travel with tiles up to date."""
    for name in (RENDER,):
        try:
            there: bytes | None = read_small(folder / name, RENDER_LIMIT)
        except (FileNotFoundError, StoreError):
            there = None
        if name not in files:
            with writing(folder / name):
                (folder / name).unlink(missing_ok=True)
        elif there != files[name]:
            put_file(folder, work, name, files[name])
