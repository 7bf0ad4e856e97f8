"""Makes the reduced levels while level 0 passes.

A span of a reduced level is made from up to four spans of the next finer level. Each finished span passes on its half:
the same pixels at half the width and height. When the last of the halves has arrived, a task joins them, encodes the
result, and halves it in turn. So at most the halves of one row of spans per level are held, and no level is ever held
decoded.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import numpy as np

from nuclei_segmentation.operators.stitch.pyramid.jpeg_segments import Encoder
from nuclei_segmentation.operators.stitch.pyramid.levels import Level
from nuclei_segmentation.operators.stitch.pyramid.spans import EncodedSpan, encode_span
from nuclei_segmentation.operators.stitch.pyramid.spool import Spool
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool, abandon


@dataclass(frozen=True, slots=True)
class _Halves:
    """The halves that make up a span: by (row, column) of the 2 × 2."""

    width: int
    height: int
    halves: dict[tuple[int, int], Pixels]


class ReducedLevels:
    """Makes all levels but level 0, and appends their segments to the spool.

    Parameters
    ----------
    levels : tuple of Level
        All levels.
    encode : Encoder
        Makes segments.
    spool : Spool
        Takes the segments.
    pool : WorkerPool
        The workers.
    ahead : int
        Tasks that may be under way at once; bounds the memory.
    """

    def __init__(self, levels: tuple[Level, ...], encode: Encoder, spool: Spool, pool: WorkerPool, ahead: int) -> None:
        self._levels, self._encode, self._spool, self._pool, self._ahead = levels, encode, spool, pool, ahead
        self._waiting: dict[tuple[int, int, int], _Halves] = {}
        self._under_way: deque[tuple[int, int, int, Future[EncodedSpan]]] = deque()

    def put(self, number: int, row: int, span: int, half: Pixels | None) -> None:
        """Take the half of a finished span. The spans of a level come in order.

        Parameters
        ----------
        number : int
            Number of the span's level.
        row : int
            Its row.
        span : int
            Its number in the row.
        half : numpy.ndarray or None
            (ceil(h / 2), ceil(w / 2), 3) uint8 RGB, its half; None at the coarsest level.
        """
        if half is None:
            return
        coarser = self._levels[number + 1]
        target = (coarser.number, row // 2, span // 2)
        parts = self._waiting.get(target)
        if parts is None:
            region = coarser.region(*target[1:])
            parts = self._waiting[target] = _Halves(region.width, region.height, {})
        parts.halves[row % 2, span % 2] = half
        if len(parts.halves) == coarser.children(*target[1:], self._levels[number]):
            del self._waiting[target]
            work = partial(_join, coarser.side, self._encode, coarser is self._levels[-1])
            self._under_way.append((*target, self._pool.submit("stitch", work, parts)))
        self._settle(self._ahead)

    def finish(self) -> None:
        """Wait until all levels are complete; to be called once level 0 is."""
        self._settle(0)

    def close(self) -> None:
        """Cancel queued tasks and wait for running ones."""
        abandon(future for *_, future in self._under_way)

    def _settle(self, ahead: int) -> None:
        """Store finished spans in the order of their submission; wait while more than `ahead` are under way."""
        while self._under_way and (len(self._under_way) > ahead or self._under_way[0][3].done()):
            number, row, span, future = self._under_way.popleft()
            encoded = self._pool.result(future)
            self._spool.append(number, encoded.segments)
            self.put(number, row, span, encoded.half)


def _join(side: int, encode: Encoder, coarsest: bool, parts: _Halves) -> EncodedSpan:
    """Join the halves to a span and encode it."""
    pixels = np.empty((parts.height, parts.width, 3), np.uint8)
    top = parts.halves[0, 0]
    for (row, column), half in parts.halves.items():
        y, x = row * len(top), column * top.shape[1]
        pixels[y : y + len(half), x : x + half.shape[1]] = half
    tiles = [pixels[:, left : left + side] for left in range(0, parts.width, side)]
    return encode_span(tiles, side, encode, coarsest=coarsest)
