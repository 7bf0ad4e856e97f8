"""Reads the parts of a store of masks as one, also while they are being made, in whatever order they come."""

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
    """Open masks, all in one store or in shards. Two shards at most are open at a time, however many there are.

    Parameters
    ----------
    parts : ShardSet
        The stores.
    wait_limit : WaitLimit
        How long to wait for what is not there yet.
    fastio : Context, optional
        The FastIO context of NVIDIA's driver, where it runs this stage.

    Raises
    ------
    InputError
        One is not complete, and there is no waiting.
    StoreError
        The files of one are not what its manifest says.
    """

    def __init__(self, parts: ShardSet, wait_limit: WaitLimit, fastio: Context = None) -> None:
        self._parts, self._wait_limit, self._fastio = parts, wait_limit, fastio
        self._open: dict[int, StoreReader] = {}
        self._under_way: dict[int, int] = {}  # number of the part by the first tile of a range that is to be read yet
        self._lock = threading.Lock()
        self._seen = -1
        try:
            for number in sorted(parts.found, reverse=True):  # what is wrong with any of them is told at once
                self._use(number)
        except BaseException:
            self.close()
            raise

    def ranges(self, batch: int) -> Iterator[tuple[int, int]]:
        """Yield (start, stop) of all tiles in order, at most `batch` at a time, each when its masks are there.

        Raises
        ------
        WaitedTooLong, InputError
            They do not come.
        StoreError
            A store was made again meanwhile, or its ledger is damaged.
        """
        for number in range(self._parts.count):
            part = self._part(number)
            reader = self._use(number)
            for start in range(0, part.manifest.n, batch):
                stop = min(start + batch, part.manifest.n)
                while not reader.has(start, stop):
                    reader.check_same()
                    self._wait(reader.lacking)
                with self._lock:
                    self._under_way[part.first + start] = number
                yield part.first + start, part.first + stop

    def read(self, start: int, stop: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Return masks and which of them are damaged places of the slide: once for each of `ranges`, from any thread.

        Raises
        ------
        StoreError
            A mask is not what was stored.
        """
        with self._lock:
            number = self._under_way[start]
            reader, first = self._open[number], self._parts.found[number].first
        try:
            return reader.read(start - first, stop - first)
        finally:
            with self._lock:
                del self._under_way[start]

    @property
    def count(self) -> int:
        """Masks that are there."""
        return self._parts.count_there

    def wait_until_complete(self) -> None:
        """Wait for the end of all parts; all that they say is then final."""
        for number in range(self._parts.count):
            self._part(number)
            self._use(number).wait_until_complete()

    def close(self) -> None:
        """Close all files."""
        for reader in self._open.values():
            reader.close()
        self._open.clear()

    def _part(self, number: int) -> ShardStore:
        """Return a part, when it is there."""
        while number not in self._parts.found:
            self._wait(lambda: self._parts.lacking(number))
        return self._parts.found[number]

    def _use(self, number: int) -> StoreReader:
        """Return the reader of a part; closes those that nobody needs any more."""
        with self._lock:
            needed = {number, *self._under_way.values()}
            for other in set(self._open) - needed:
                self._open.pop(other).close()
            if number not in self._open:
                part = self._parts.found[number]
                self._open[number] = StoreReader(part.folder, part.manifest, self._wait_limit, self._fastio)
            return self._open[number]

    def _wait(self, lacking: Callable[[], str]) -> None:
        """Wait a little; work on any part is progress."""
        self._parts.look()
        seen = self._parts.progress()
        if seen != self._seen:
            self._seen = seen
            self._wait_limit.progress()
        self._wait_limit.wait(lacking)
