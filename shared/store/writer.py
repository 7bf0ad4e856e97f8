"""Writes a store, item by item. A kill at any moment loses nothing that the ledger names.

The order on the disk is always the same. First the arrays are reserved, the ledger is begun, and the manifest is
renamed into place. Then come items, and after them their records. Last, `COMPLETE` is renamed into place. So what a
manifest says is true from the moment that the manifest exists.
"""

from __future__ import annotations

import json
import logging
import os
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
from nuclei_segmentation.shared.runtime.files import write_file
from nuclei_segmentation.shared.runtime.lock import Check
from nuclei_segmentation.shared.runtime.threads import start
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.array import Array, ArrayReader, ArrayWriter, WritableArray
from nuclei_segmentation.shared.store.clean import bytes_to_release, drop_note, make_room, undo
from nuclei_segmentation.shared.store.files import read_store_file
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

log = logging.getLogger(__name__)

COMMIT_SECONDS = 0.5
"""How long a finished item may wait for its record, in seconds: the next stage waits for the record."""
COMMIT_BYTES = 64 << 20
"""How many bytes of finished items may wait for their records."""


class StoreWriter(Closing):
    """Makes a store, and writes its large array.

    An incomplete store with the same key is resumed; a complete one must not be opened. Items that could not be read
    from the slide count as unfinished: the slide may be a better copy by now.

    Parameters
    ----------
    folder : pathlib.Path
        The store's folder, which this run holds.
    work : pathlib.Path
        Its work folder.
    manifest : Manifest
        Describes the store and its large array, which is named for the store's kind. The generation and the names of
        files are added here.
    small : Mapping of str to numpy.ndarray
        Content of the other arrays, by name.
    files : Mapping of str to bytes
        Content of further files, by name: config_render.json, if one came with the slide of a tile store.
    shared : bool
        Whether to put the large array into shared memory.
    fastio : Context, optional
        The FastIO context, if NVIDIA's driver runs this stage. It is then the shared memory.
    check : callable
        Makes sure that this run still holds the folder.

    Attributes
    ----------
    manifest : Manifest
        The store's manifest.
    entries : dict of int to Entry
        The records of finished items, by item. An item is added when it and its record are durable.

    Raises
    ------
    NoSpace
        The disk, or shared memory, has less space than the store takes.
    OutputError
        The store cannot be written.
    LockLost
        Another run holds the folder by now.
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
        check: Check,
    ) -> None:
        self._folder, self._work, self._check = folder, work, check
        if not self._resume(manifest, small, files):
            self._create(manifest, small, files, shared, fastio)
        self.entries = {item: entry for item, entry in self._ledger.entries.items() if not entry.flags & DAMAGED}
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        self._lock, self._committing = threading.Lock(), threading.Lock()
        self._calls, self._closed = 0, False  # calls of `put` in progress
        self._idle = threading.Condition(self._lock)
        self._failure: BaseException | None = None
        self._ended = threading.Event()
        self._committer = threading.Thread(target=self._commit_regularly, name="ledger", daemon=True)
        start(self._committer)

    def put(self, items: list[int], values: Array, flags: int | list[int] = 0) -> None:
        """Store items. Any thread may call this at any time. After `close` nothing is stored: a server may answer late.

        Parameters
        ----------
        items : list of int
            Their numbers along the first axis.
        values : numpy.ndarray
            (len(items), ...) of the array's type, C-contiguous.
        flags : int or list of int, optional
            Flags of all items or of each; see `shared.store.ledger`.

        Raises
        ------
        NoSpace
            The disk is full.
        OutputError
            These or earlier items cannot be written.
        """
        with self._lock:
            if self._closed:
                return
            self._calls += 1
        try:
            self._put(items, values, flags)
        finally:
            with self._lock:
                self._calls -= 1
                self._idle.notify_all()

    def get(self, item: int) -> Array:
        """Return an item that an earlier run stored. Any thread may call this at any time."""
        large = self.manifest.arrays[self.manifest.kind]
        with ArrayReader(self._array.path, large.shape, large.dtype) as array:
            content: Array = array.get(item, item + 1)[0]
            return content

    def finish(self, metadata: Mapping[str, object]) -> None:
        """Declare the store complete. All items must be stored.

        Parameters
        ----------
        metadata : Mapping of str to object
            Further content of `COMPLETE`.

        Raises
        ------
        NoSpace
            The disk is full.
        OutputError
            Something cannot be written.
        """
        with self._committing:
            self._commit()
        missing = [item for item in range(self.manifest.n) if item not in self.entries]
        if missing:
            raise AssertionError(f"{len(missing)} tiles were never stored, the first is {missing[0]}")
        self._array.seal()
        complete = {"generation": self.manifest.generation, "n": self.manifest.n, **metadata}
        self._write(COMPLETE, (json.dumps(complete, indent=2) + "\n").encode())

    def close(self) -> None:
        """Commit stored items and close all files; waits for calls of `put` in progress."""
        with self._lock:
            self._closed = True
            self._idle.wait_for(lambda: self._calls == 0)
        self._ended.set()
        self._committer.join()
        try:
            with self._committing:
                if self._failure is None:  # a failure was reported already, and must not be retried
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
        for stop in range(1, len(items) + 1):
            if stop == len(items) or items[stop] != items[stop - 1] + 1:  # neighbours in one write
                self._array.put(items[start], values[start:stop])
                start = stop
        with self._lock:
            self._pending += entries
            self._pending_bytes += values.nbytes
            due = self._pending_bytes >= COMMIT_BYTES
        # One thread commits while the others go on; the next commit takes what they store meanwhile.
        if due and self._committing.acquire(blocking=False):
            try:
                self._commit()
            finally:
                self._committing.release()

    def _commit_regularly(self) -> None:
        """Commit even when nothing new is stored: a stage that reads the store waits, and a kill must not cost much."""
        while not self._ended.wait(COMMIT_SECONDS):
            with self._committing:
                try:
                    self._commit()
                except Exception:  # it is kept in `_failure`, and `put` or `finish` raises it
                    return

    def _commit(self) -> None:
        """Write the records of stored items; the caller holds `_committing`."""
        if self._failure is not None:
            self._fail()
        with self._lock:
            entries, self._pending, self._pending_bytes = self._pending, [], 0
        if not entries:
            return
        try:
            self._array.sync()
            self._check()
            self._ledger.append(entries)
        except BaseException as error:
            # Never sync again: the system has marked the lost pages as written, and the next sync would succeed.
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
        shared_file = shared_name(generation, kind) if shared else ""
        try:
            if shared:
                check_shared(large.bytes, bytes_to_release(self._folder, self._work))
            make_room(self._folder, self._work, kind, self._check, shared_file, fastio)
        except BaseException:
            if allocation is not None:
                allocation.close()
            raise
        file = shared_file or f"{kind}.npy" if allocation is None else str(allocation.path)
        arrays: dict[str, ArrayMetadata] = {kind: replace(large, file=file)}
        try:
            self._array = allocation or ArrayWriter(self._folder / file, large.shape, large.dtype, create=True)
            try:
                self._array.sync()
                for name, content in small.items():
                    arrays[name] = self._write_small(name, np.ascontiguousarray(content))
                if kind == "tiles":
                    keep_files(self._folder, self._work, files, self._check)
                self._ledger = self._open_ledger(generation, manifest.n, create=True)
                self.manifest = replace(manifest, generation=generation, arrays=arrays)
                self._write(FILE, self.manifest.to_json())
            except BaseException:
                self._array.close()
                raise
        except NucleiError:
            undo(self._folder, self._work, kind, self._check)
            raise
        drop_note(self._work)

    def _write(self, name: str, content: bytes) -> None:
        write_file(self._folder / name, content, self._work / f"{name}.part", self._check)

    def _open_ledger(self, generation: str, items: int, *, create: bool) -> LedgerWriter:
        path = self._folder / ledger.FILE
        return LedgerWriter(path, generation, items, self._work, self._check, create=create)

    def _write_small(self, name: str, content: Array) -> ArrayMetadata:
        array = ArrayMetadata(f"{name}.npy", content.shape, str(content.dtype), crc32=zlib.crc32(content.data))
        with ArrayWriter(self._folder / array.file, array.shape, array.dtype, create=True) as file:
            file.put(0, content)
            file.sync()
        return array

    def _resume(self, wanted: Manifest, small: Mapping[str, Array], files: Mapping[str, bytes]) -> bool:
        """Open the store in the folder; return False if it is not the wanted one, or cannot be resumed."""
        try:
            present = read_manifest(self._folder)
            if present is None or (present.key, present.kind, present.shard) != (wanted.key, wanted.kind, wanted.shard):
                return False
            large = present.arrays[present.kind]
            if large.file.startswith(FASTIO):
                return False  # an allocation that was not published was lost with its process
            for name, content in small.items():
                crc32 = zlib.crc32(np.ascontiguousarray(content).data)
                if name not in present.arrays or present.arrays[name].crc32 != crc32:
                    raise StoreError(f"{self._folder / FILE}: array {name} is not that of this slide")
                read_array(self._folder, present.arrays[name])
            if large.shape != wanted.arrays[wanted.kind].shape:
                raise StoreError(f"{self._folder / FILE}: array {present.kind} is not that of this slide")
            self._array = ArrayWriter(self._folder / large.file, large.shape, large.dtype, create=False)
            try:
                self._ledger = self._open_ledger(present.generation, present.n, create=False)
            except BaseException:
                self._array.close()
                raise
        except StoreError as error:
            log.warning("the store of an earlier run cannot be resumed; all tiles are made again: %s", error)
            return False
        drop_note(self._work)
        if present.kind == "tiles":
            keep_files(self._folder, self._work, files, self._check)
        self.manifest = present
        if present.run != wanted.run:
            self.manifest = replace(present, run=wanted.run)
            self._write(FILE, self.manifest.to_json())
        return True


def keep_files(folder: Path, work: Path, files: Mapping[str, bytes], check: Check) -> None:
    """Bring the further file of a tile store up to date.

    Parameters
    ----------
    folder : pathlib.Path
        The store's folder.
    work : pathlib.Path
        Its work folder.
    files : Mapping of str to bytes
        Content by name: config_render.json, which is removed if it is not among them.
    check : callable
        Makes sure that this run still holds the folder.

    Raises
    ------
    NoSpace
        The disk is full.
    OutputError
        A file cannot be written.
    """
    path = folder / RENDER
    try:
        present: bytes | None = read_store_file(path, RENDER_LIMIT)
    except (FileNotFoundError, StoreError):
        present = None
    if RENDER not in files:
        if os.path.lexists(path):
            check()
            with writing(path):
                path.unlink(missing_ok=True)
    elif present != files[RENDER]:
        write_file(path, files[RENDER], work / f"{RENDER}.part", check)
