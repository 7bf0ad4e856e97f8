"""A cache of decoded tiles of the slide, which neighbouring regions share."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from nuclei_segmentation.shared.batches import Pixels


class TileCache:
    """A bounded cache that decodes each tile once, however many threads request it at the same time.

    If a grid is read row by row, a stored tile is needed until a region contains its bottom right corner. Then the tile
    is finished, and is evicted before others. So a capacity of about one row of stored tiles is enough for any grid
    without overlap.

    Parameters
    ----------
    decode : callable
        Takes the number of a stored tile; returns its pixels, or None if they cannot be read. Called without the lock.
    capacity : int
        Most tiles that are kept.
    """

    def __init__(self, decode: Callable[[int], Pixels | None], capacity: int) -> None:
        self._decode = decode
        self._capacity = capacity
        self._lock = threading.Lock()
        self._tiles: OrderedDict[int, Pixels | None] = OrderedDict()
        self._pending: dict[int, threading.Event] = {}

    def get(self, number: int, finished: bool) -> Pixels | None:
        """Return the pixels of a stored tile. They are shared and must not be modified.

        Parameters
        ----------
        number : int
            Number of the stored tile.
        finished : bool
            Whether a grid that is read row by row will not need the tile again.

        Returns
        -------
        numpy.ndarray or None
            What `decode` returned.
        """
        while True:
            with self._lock:
                if number in self._tiles:
                    self._tiles.move_to_end(number, last=not finished)
                    return self._tiles[number]
                pending = self._pending.get(number)
                if pending is None:
                    mine = self._pending[number] = threading.Event()
                    break
            pending.wait()  # then look again: decoding may have failed for lack of memory, or the tile may be evicted
        try:
            pixels = self._decode(number)
            with self._lock:
                while len(self._tiles) >= max(1, self._capacity):
                    self._tiles.popitem(last=False)
                self._tiles[number] = pixels
                self._tiles.move_to_end(number, last=not finished)
        finally:
            with self._lock:
                del self._pending[number]
            mine.set()
        return pixels

    def clear(self) -> None:
        """Drop all tiles."""
        with self._lock:
            self._tiles.clear()
