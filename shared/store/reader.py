"""Reads a store, also while it is being written. Every item that is read is compared with its checksum."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.clara.fastio import FASTIO, Context, FastIOReader
from nuclei_segmentation.shared.errors import InputError, StoreError
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.lock import held
from nuclei_segmentation.shared.runtime.output_folder import WORK
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK, SHARD
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.array import Array, ArrayReader, ReadableArray
from nuclei_segmentation.shared.store.ledger import DAMAGED, LedgerReader, checksum
from nuclei_segmentation.shared.store.manifest import STORE_NAMES, ArrayMetadata, Manifest, is_complete, read_manifest


class StoreReader(Closing):
    """An open store.

    Parameters
    ----------
    folder : pathlib.Path
        The store's folder.
    manifest : Manifest
        The manifest that was read there.
    wait_limit : WaitLimit
        How long to wait for items that are not finished.
    fastio : Context, optional
        The FastIO context, if NVIDIA's driver runs this stage.

    Raises
    ------
    InputError
        The store is not complete, and the stage does not wait.
    StoreError
        A file of the store is not what the manifest says.
    """

    def __init__(self, folder: Path, manifest: Manifest, wait_limit: WaitLimit, fastio: Context = None) -> None:
        self.folder, self.manifest = folder, manifest
        self._wait_limit = wait_limit
        self._name = STORE_NAMES[manifest.kind]
        large = manifest.arrays[manifest.kind]
        self._finished = False
        try:
            self._array: ReadableArray
            if large.file.startswith(FASTIO):
                self._array = FastIOReader(fastio, large.file, large.shape, large.dtype)
            else:
                self._array = ArrayReader(folder / large.file, large.shape, large.dtype)
            try:
                self._ledger = LedgerReader(folder / ledger.FILE, manifest.generation, manifest.n)
                self._poll()
            except BaseException:
                self._array.close()
                raise
        except StoreError:
            self.check_same()  # if the store was replaced just now, that explains more
            raise
        if not self._finished and not wait_limit.waits:
            self.close()
            maker = f"filter with {SHARD}={shard.shard}" if (shard := manifest.shard) else "the stage that makes it"
            raise InputError(
                f"the {self._name} in {folder} is not complete ({self.count} of {manifest.n} tiles): run {maker} "
                f"to its end, or unset {NO_SYNC_LOCK} to run both stages together"
            )

    @property
    def tile_positions(self) -> npt.NDArray[np.int32]:
        """Row and column of each tile: (n, 2) int32."""
        content: npt.NDArray[np.int32] = self.small("index")[: self.manifest.n]
        grid = self.manifest.grid
        numbers = content[:, 0].astype(np.int64) * grid.columns + content[:, 1]
        inside = (content >= 0).all() and (content < (grid.rows, grid.columns)).all()
        if not inside or (np.diff(numbers) <= 0).any():
            raise StoreError(
                f"{self.folder / self.manifest.arrays['index'].file} does not list tiles of this slide's grid; "
                "make the store again"
            )
        return content

    def small(self, name: str) -> Array:
        """Return all of a small array."""
        return read_array(self.folder, self.manifest.arrays[name])

    def has(self, start: int, stop: int) -> bool:
        """Tell whether the items from `start` to `stop` - 1 are finished; reads new records of the ledger if not.

        Parameters
        ----------
        start, stop : int
            The range of items.

        Returns
        -------
        bool
        """
        return self._all(start, stop) or (self._poll() and self._all(start, stop))

    def ranges(self, wanted: npt.NDArray[np.int64], batch: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of wanted items, in order, each when its items are finished.

        Parameters
        ----------
        wanted : numpy.ndarray
            (m,) int64, numbers of items in ascending order.
        batch : int
            The most items of a range.

        Yields
        ------
        start, stop : int
            The range has the items from `start` to `stop` - 1.

        Raises
        ------
        WaitedTooLong
            The items do not come.
        StoreError
            The store was replaced meanwhile, or its ledger is corrupt.
        """
        place = 0
        while place < len(wanted):
            start = stop = int(wanted[place])
            while place < len(wanted) and wanted[place] == stop and stop - start < batch:
                stop, place = stop + 1, place + 1
            self.wait_for(start, stop)
            yield start, stop

    def wait_for(self, start: int, stop: int) -> None:
        """Wait until the items from `start` to `stop` - 1 are finished.

        Parameters
        ----------
        start, stop : int
            The range of items.

        Raises
        ------
        WaitedTooLong
            The items do not come.
        StoreError
            The store was replaced meanwhile, or its ledger is corrupt.
        """
        while not self.has(start, stop):
            self._wait()

    def read(self, start: int, stop: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return the items from `start` to `stop` - 1. Any thread may call this at any time.

        Parameters
        ----------
        start, stop : int
            The range of items.

        Returns
        -------
        items : numpy.ndarray
            (stop - start, T, T, channels) uint8.
        damaged : numpy.ndarray
            (stop - start,) bool, which of them could not be read from the slide.

        Raises
        ------
        StoreError
            An item does not have its checksum.
        """
        items = self._array.get(start, stop)
        for number, item in zip(range(start, stop), items, strict=True):
            if checksum(item) != self._ledger.entries[number].checksum:
                raise StoreError(
                    f"{self._array.path}: tile {number} is corrupt (its checksum differs); run the stage that made the "
                    "store again: it rewrites corrupt tiles"
                )
        return items, self.damaged(start, stop)

    def corrupt_items(self) -> list[int]:
        """Return the items that do not have their checksum; reads all items."""
        return [
            number
            for number, entry in sorted(self._ledger.entries.items())
            if checksum(self._array.get(number, number + 1)) != entry.checksum
        ]

    def damaged(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Tell which of the items from `start` to `stop` - 1 could not be read from the slide.

        Parameters
        ----------
        start, stop : int
            The range of items.

        Returns
        -------
        numpy.ndarray
            (stop - start,) bool.
        """
        flags = [self._ledger.entries[item].flags for item in range(start, stop)]
        return np.array([bool(flag & DAMAGED) for flag in flags], np.bool_)

    @property
    def count(self) -> int:
        """Number of finished items."""
        return len(self._ledger.entries)

    def wait_until_complete(self) -> None:
        """Wait until the store is complete and nothing in it changes any more."""
        while not self._finished:
            if not self._poll():
                self._wait()
        self.check_same()

    def check_same(self) -> None:
        """Raise `StoreError` if the store was replaced since it was opened."""
        now = read_manifest(self.folder)
        if now is None or now.generation != self.manifest.generation:
            raise StoreError(f"the store in {self.folder} was replaced while it was read; run the same command again")

    def awaited(self) -> str:
        """Return what the reader waits for, for messages."""
        idle = "" if held(self.folder / WORK) else ", which no stage is writing at the moment"
        return f"{self._name} in {self.folder} ({self.count} of {self.manifest.n} tiles){idle}"

    def close(self) -> None:
        """Close the store's files."""
        self._array.close()
        self._ledger.close()

    def _all(self, start: int, stop: int) -> bool:
        return all(item in self._ledger.entries for item in range(start, stop))

    def _poll(self) -> bool:
        """Read new records of the ledger; return whether there were any, or the store is complete."""
        # In this order: what the ledger says after `COMPLETE` was seen is final.
        complete = is_complete(self.folder, self.manifest)
        new = self._ledger.poll()
        if complete and not self._finished:
            if problem := self._ledger.why_incomplete():
                raise StoreError(f"{problem}; make the store again")
            self._finished = True
        if new or self._finished:
            self._wait_limit.progress()
        return bool(new) or self._finished

    def _wait(self) -> None:
        self.check_same()
        self._wait_limit.wait(self.awaited)


def read_array(folder: Path, array: ArrayMetadata) -> Array:
    """Return all of a small array.

    Parameters
    ----------
    folder : pathlib.Path
        The store's folder.
    array : ArrayMetadata
        The array, as the manifest describes it.

    Returns
    -------
    numpy.ndarray

    Raises
    ------
    StoreError
        The file is missing, is not this array, or does not have its checksum.
    """
    with ArrayReader(folder / array.file, array.shape, array.dtype) as file:
        content = file.get(0, array.shape[0])
    if zlib.crc32(content.data) != array.crc32:
        raise StoreError(f"{folder / array.file} is corrupt (its checksum differs); make the store again")
    return content
