"""Reads a store, also while it is being written: items in order, each against its checksum."""

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
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK, SHARD
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.array import Array, ArrayReader, ReadableArray
from nuclei_segmentation.shared.store.ledger import DAMAGED, LedgerReader, checksum
from nuclei_segmentation.shared.store.manifest import WORK, ArrayMetadata, Manifest, is_complete, read_manifest


class StoreReader(Closing):
    """An open store.

    Parameters
    ----------
    folder : pathlib.Path
        The store's.
    manifest : Manifest
        As read from it.
    wait_limit : WaitLimit
        How long to wait for what is not there yet.
    fastio : Context, optional
        The FastIO context of NVIDIA's driver, where it runs this stage.

    Raises
    ------
    InputError
        It is not complete, and there is no waiting.
    StoreError
        Its files are not what the manifest says.
    """

    def __init__(self, folder: Path, manifest: Manifest, wait_limit: WaitLimit, fastio: Context = None) -> None:
        self.folder, self.manifest = folder, manifest
        self._wait_limit = wait_limit
        self._kind = manifest.kind
        facts = manifest.arrays[self._kind]
        self._finished = False
        try:
            self._array: ReadableArray
            if facts.file.startswith(FASTIO):
                self._array = FastIOReader(fastio, facts.file, facts.shape, facts.dtype)
            else:
                self._array = ArrayReader(folder / facts.file, facts.shape, facts.dtype)
            try:
                self._ledger = LedgerReader(folder / ledger.FILE, manifest.generation, manifest.n)
                self._poll()
            except BaseException:
                self._array.close()
                raise
        except StoreError:
            self.check_same()  # if it was made again just now, that is the better explanation
            raise
        if not self._finished and not wait_limit.waits:
            self.close()
            maker = f"filter with {SHARD}={shard.shard}" if (shard := manifest.shard) else "the stage that makes it"
            raise InputError(
                f"the store of {self._kind} in {folder} is not complete ({self.count} of {manifest.n}): run {maker} "
                f"to its end, or unset {NO_SYNC_LOCK} to run the two together"
            )

    @property
    def tile_positions(self) -> npt.NDArray[np.int32]:
        """Row and column of each tile, (n, 2)."""
        content: npt.NDArray[np.int32] = self.small("index")[: self.manifest.n]
        grid = self.manifest.grid
        numbers = content[:, 0].astype(np.int64) * grid.columns + content[:, 1]
        inside = (content >= 0).all() and (content < (grid.rows, grid.columns)).all()
        if not inside or (np.diff(numbers) <= 0).any():
            raise StoreError(f"{self.folder / self.manifest.arrays['index'].file} names no tiles of this slide's grid")
        return content

    def small(self, name: str) -> Array:
        """Return a small array whole."""
        return read_array(self.folder, self.manifest.arrays[name])

    def has(self, start: int, stop: int) -> bool:
        """Tell whether items are there; looks again if not."""
        return self._all(start, stop) or (self._poll() and self._all(start, stop))

    def ranges(self, wanted: npt.NDArray[np.int64], batch: int) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of wanted items in order, at most `batch` at a time, each when its items are there.

        Raises
        ------
        WaitedTooLong, InputError
            They do not come.
        StoreError
            The store was made again meanwhile, or its ledger is damaged.
        """
        place = 0
        while place < len(wanted):
            start = stop = int(wanted[place])
            while place < len(wanted) and wanted[place] == stop and stop - start < batch:
                stop, place = stop + 1, place + 1
            self.wait_for(start, stop)
            yield start, stop

    def wait_for(self, start: int, stop: int) -> None:
        """Wait until items are there; see `ranges`."""
        while not self.has(start, stop):
            self._wait()

    def read(self, start: int, stop: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return items and which of them are damaged places of the slide. Any thread may do so at any time.

        Raises
        ------
        StoreError
            An item is not what was stored.
        """
        items = self._array.get(start, stop)
        for number, item in zip(range(start, stop), items, strict=True):
            if checksum(item) != self._ledger.entries[number].checksum:
                raise self._wrong(number)
        return items, self.damaged(start, stop)

    def wrong_items(self) -> list[int]:
        """Return the items whose bytes are not what the ledger says; reads all of them."""
        return [
            number
            for number, entry in sorted(self._ledger.entries.items())
            if checksum(self._array.get(number, number + 1)) != entry.checksum
        ]

    def damaged(self, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Tell which items are damaged places of the slide."""
        flags = [self._ledger.entries[item].flags for item in range(start, stop)]
        return np.array([bool(flag & DAMAGED) for flag in flags], np.bool_)

    @property
    def count(self) -> int:
        """Items that are there."""
        return len(self._ledger.entries)

    def wait_until_complete(self) -> None:
        """Wait for the end of the store; all that it says is then final."""
        while not self._finished:
            if not self._poll():
                self._wait()
        self.check_same()

    def check_same(self) -> None:
        """Raise `StoreError` if the store is no longer the one that was opened."""
        now = read_manifest(self.folder)
        if now is None or now.generation != self.manifest.generation:
            raise StoreError(f"the store in {self.folder} was replaced while it was read; run this again")

    def close(self) -> None:
        """Close its files."""
        self._array.close()
        self._ledger.close()

    def _all(self, start: int, stop: int) -> bool:
        return all(item in self._ledger.entries for item in range(start, stop))

    def _poll(self) -> bool:
        """Take in what is new; return whether there was anything."""
        # In this order: a ledger read after `COMPLETE` was seen is final.
        complete = is_complete(self.folder, self.manifest)
        new = self._ledger.poll()
        if complete and not self._finished:
            wrong = self._ledger.why_incomplete()
            if wrong:
                raise StoreError(f"{wrong}; make the store again")
            self._finished = True
        if new or self._finished:
            self._wait_limit.progress()
        return bool(new) or self._finished

    def _wait(self) -> None:
        self.check_same()
        self._wait_limit.wait(self.lacking)

    def lacking(self) -> str:
        """Say what is waited for."""
        idle = "" if held(self.folder / WORK) else ", on which nobody works at the moment"
        return f"store of {self._kind} in {self.folder} ({self.count} of {self.manifest.n}){idle}"

    def _wrong(self, number: int) -> StoreError:
        return StoreError(
            f"{self._array.path}: tile {number} is damaged (its checksum differs); run the stage that made it again: "
            "it makes good what is wrong"
        )


def read_array(folder: Path, facts: ArrayMetadata) -> Array:
    """Return a small array whole.

    Raises
    ------
    StoreError
        It is not what was stored.
    """
    with ArrayReader(folder / facts.file, facts.shape, facts.dtype) as array:
        content = array.get(0, facts.shape[0])
    if zlib.crc32(content.data) != facts.crc32:
        raise StoreError(f"{folder / facts.file} is damaged (its checksum differs); make the store again")
    return content
