"""Builds the reduced levels while level 0 goes by.

A span of a level is made from up to four spans of the level below. A finished span hands its half up; when the last of
the four is in, a task joins, encodes and halves again. So nothing but the halves of at most one row of spans per level
is ever held, and no level is held decoded.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np

from nuclei_segmentation.operators.stitch.pyramid.levels import Level
from nuclei_segmentation.operators.stitch.pyramid.segments import EncodedSpan, Encoder, finish
from nuclei_segmentation.operators.stitch.pyramid.spool import Spool
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool, abandon


@dataclass(frozen=True, slots=True)
class _Halves:
    """The halves that make a span: by (row, column) of the 2 × 2."""

    width: int
    height: int
    halves: dict[tuple[int, int], Pixels]


class Reducer:
    """Makes all levels above level 0 and appends their segments to the spool.

    Parameters
    ----------
    levels : tuple of Level
        All levels.
    encode : Encoder
        Makes segments.
    spool : Spool
        Takes them.
    pool : WorkerPool
        Does the work.
    ahead : int
        Tasks that may be under way; bounds the memory.
    """

    def __init__(self, levels: tuple[Level, ...], encode: Encoder, spool: Spool, pool: WorkerPool, ahead: int) -> None:
        self._levels, self._encode, self._spool, self._pool, self._ahead = levels, encode, spool, pool, ahead
        self._waiting: dict[tuple[int, int, int], _Halves] = {}
        self._under_way: deque[tuple[int, int, int, Future[EncodedSpan]]] = deque()

    def put(self, number: int, row: int, span: int, half: Pixels | None) -> None:
        """Take the half of a finished span.

        Parameters
        ----------
        number, row, span : int
            Level and place of the span. The spans of a level come in order.
        half : numpy.ndarray or None
            Its half; None if there is no level above.
        """
        if half is None:
            return
        above = self._levels[number + 1]
        place = (above.number, row // 2, span // 2)
        parts = self._waiting.get(place)
        if parts is None:
            region = above.region(*place[1:])
            parts = self._waiting[place] = _Halves(region.width, region.height, {})
        parts.halves[row % 2, span % 2] = half
        if len(parts.halves) == above.children(*place[1:], self._levels[number]):
            del self._waiting[place]
            work = partial(_join, above.side, self._encode, above is self._levels[-1])
            self._under_way.append((*place, self._pool.submit("stitch", work, parts)))
        self._settle(self._ahead)

    def finish(self) -> None:
        """Wait until all levels are complete; to be called when level 0 is."""
        self._settle(0)

    def close(self) -> None:
        """Cancel what is queued and wait for what is running."""
        abandon(future for *_, future in self._under_way)

    def _settle(self, ahead: int) -> None:
        """Deal with finished spans in the order of their submission, waiting while more than `ahead` are under way."""
        while self._under_way and (len(self._under_way) > ahead or self._under_way[0][3].done()):
            number, row, span, future = self._under_way.popleft()
            encoded = self._pool.result(future)
            self._spool.append(number, encoded.segments)
            self.put(number, row, span, encoded.half)


def _join(side: int, encode: Encoder, last: bool, parts: _Halves) -> EncodedSpan:
    """Put halves together, encode them and halve again."""
    pixels = np.empty((parts.height, parts.width, 3), np.uint8)
    top = parts.halves[0, 0]
    for (row, column), half in parts.halves.items():
        y, x = row * len(top), column * top.shape[1]
        pixels[y : y + len(half), x : x + half.shape[1]] = half
    tiles = [pixels[:, left : left + side] for left in range(0, parts.width, side)]
    return finish(tiles, side, encode, last)
