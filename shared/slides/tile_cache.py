"""Decoded tiles of a slide, kept while neighbouring regions still need them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from nuclei_segmentation.shared.batches import Pixels


class TileCache:
    """A bounded cache that decodes each tile once, however many threads ask for it at the same time.

    A grid read row by row comes back to a stored tile until a region holds the tile's last corner. Such tiles are
    finished and go first when room is needed, so that about one row of stored tiles is enough for any grid without
    overlap.

    Parameters
    ----------
    decode : callable
        Returns the pixels of a tile, or None where they cannot be read. Called without the lock.
    capacity : int
        Most tiles that are kept.
    """

    def __init__(self, decode: Callable[[int], Pixels | None], capacity: int) -> None:
        self._decode = decode
        self._capacity = capacity
        self._lock = threading.Lock()
        self._tiles: OrderedDict[int, Pixels | None] = OrderedDict()
        self._pending: dict[int, threading.Event] = {}

    def get(self, tile: int, finished: bool) -> Pixels | None:
        """Return a tile's pixels; they are shared and must not be written to.

        Parameters
        ----------
        tile : int
            Its number.
        finished : bool
            Whether a reader that goes row by row will not come back to it.
        """
        while True:
            with self._lock:
                if tile in self._tiles:
                    self._tiles.move_to_end(tile, last=not finished)
                    return self._tiles[tile]
                pending = self._pending.get(tile)
                if pending is None:
                    mine = self._pending[tile] = threading.Event()
                    break
            pending.wait()  # then look again: it may have failed for want of memory, or be gone already
        try:
            pixels = self._decode(tile)
            with self._lock:
                while len(self._tiles) >= max(1, self._capacity):
                    self._tiles.popitem(last=False)
                self._tiles[tile] = pixels
                self._tiles.move_to_end(tile, last=not finished)
        finally:
            with self._lock:
                del self._pending[tile]
            mine.set()
        return pixels

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._tiles.clear()
