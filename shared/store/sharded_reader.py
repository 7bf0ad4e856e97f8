"""Reads the shards of a map store as one, in the order of the tiles, also while they are being made in any order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.clara.fastio import Context
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.store.array import Array
from nuclei_segmentation.shared.store.reader import StoreReader
from nuclei_segmentation.shared.store.shard_set import ShardSet, ShardStore


class ShardedReader(Closing):
    """The maps of all tiles, in one store or in shards. At most two shards are open at a time.

    Parameters
    ----------
    shards : ShardSet
        The stores.
    wait_limit : WaitLimit
        How long to wait for maps that are not finished.
    fastio : Context, optional
        The FastIO context, if NVIDIA's driver runs this stage.

    Raises
    ------
    InputError
        A store is not complete, and the stage does not wait.
    StoreError
        A file of a store is not what its manifest says.
    """

    def __init__(self, shards: ShardSet, wait_limit: WaitLimit, fastio: Context = None) -> None:
        self._shards, self._wait_limit, self._fastio = shards, wait_limit, fastio
        self._open: dict[int, StoreReader] = {}  # by the shard's number
        self._pending: dict[int, int] = {}  # shard's number by the first tile of a range that is yet to be read
        self._lock = threading.Lock()
        self._progress = -1
        try:
            for number in sorted(shards.stores, reverse=True):  # a problem with any of them is reported now
                self._reader(number)
        except BaseException:
            self.close()
            raise

    def ranges(self, batch: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of all tiles, in order, each when its maps are finished.

        Parameters
        ----------
        batch : int
            The most tiles of a range.

        Yields
        ------
        start, stop : int
            The range has the tile ids from `start` to `stop` - 1. Each range must be read, once.

        Raises
        ------
        WaitedTooLong
            The maps do not come.
        InputError
            A store is not complete, and the stage does not wait.
        StoreError
            A store was replaced meanwhile, or its ledger is corrupt.
        """
        for number in range(self._shards.count):
            shard = self._wait_for_shard(number)
            reader = self._reader(number)
            for start in range(0, shard.manifest.n, batch):
                stop = min(start + batch, shard.manifest.n)
                while not reader.has(start, stop):
                    reader.check_same()
                    self._wait(reader.awaited)
                with self._lock:
                    self._pending[shard.first + start] = number
                yield shard.first + start, shard.first + stop

    def read(self, start: int, stop: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return the maps of a range. Any thread may call this, once for each of `ranges`.

        Parameters
        ----------
        start, stop : int
            The range.

        Returns
        -------
        maps : numpy.ndarray
            (stop - start, T, T, channels) uint8.
        damaged : numpy.ndarray
            (stop - start,) bool, which tiles could not be read from the slide.

        Raises
        ------
        StoreError
            The maps of a tile do not have their checksum.
        """
        with self._lock:
            number = self._pending[start]
            reader, first = self._open[number], self._shards.stores[number].first
        try:
            return reader.read(start - first, stop - first)
        finally:
            with self._lock:
                del self._pending[start]

    @property
    def count(self) -> int:
        """Number of tiles whose maps are finished."""
        return self._shards.finished_tiles

    def wait_until_complete(self) -> None:
        """Wait until all shards are complete and nothing in them changes any more."""
        for number in range(self._shards.count):
            self._wait_for_shard(number)
            self._reader(number).wait_until_complete()

    def close(self) -> None:
        """Close all files."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()

    def _wait_for_shard(self, number: int) -> ShardStore:
        while number not in self._shards.stores:
            self._wait(lambda: self._shards.awaited(number))
        return self._shards.stores[number]

    def _reader(self, number: int) -> StoreReader:
        """Return the reader of a shard; close readers that are no longer needed."""
        with self._lock:
            needed = {number, *self._pending.values()}
            for other in set(self._open) - needed:
                self._open.pop(other).close()
            if number not in self._open:
                store = self._shards.stores[number]
                self._open[number] = StoreReader(store.folder, store.manifest, self._wait_limit, self._fastio)
            return self._open[number]

    def _wait(self, awaited: Callable[[], str]) -> None:
        """Wait a short time. Work on any shard counts as progress."""
        self._shards.look()
        progress = self._shards.progress()
        if progress != self._progress:
            self._progress = progress
            self._wait_limit.progress()
        self._wait_limit.wait(awaited)
