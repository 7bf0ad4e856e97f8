"""A whole slide as one small image, made from stripes, so that no level is ever in memory as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from shared.batches import Pixels

_BLOCK: Final = 1 << 20  # pixels that are summed at a time; bounds memory to some 30 MB


def overview_size(width: int, height: int, limit: int) -> tuple[int, int]:
    """Return the largest (width, height) of the slide's aspect ratio with at most `limit` ≥ 1 pixels."""
    scale = min(1.0, math.sqrt(limit / (width * height)))
    w, h = max(1, int(width * scale)), max(1, int(height * scale))
    if w * h > limit:  # a slide so thin that one side cannot shrink with the other
        w, h = (limit // h, h) if w > h else (w, limit // w)
    return w, h


def pick_level(levels: Sequence[tuple[int, int]], size: tuple[int, int]) -> int:
    """Return the number of the smallest level that is not smaller than `size`; level 0 if there is no such."""
    fitting = [i for i, (width, height) in enumerate(levels) if width >= size[0] and height >= size[1]]
    return min(fitting, key=lambda i: levels[i][0] * levels[i][1], default=0)


class Shrinker:
    """Makes an image smaller by averaging areas; takes it row by row.

    Sums are whole numbers: the result is the same on every machine and for every height of the stripes.

    Parameters
    ----------
    width, height
        Size of the image, in pixels.
    size
        (width, height) of what goes out; not larger.
    factor
        By how much what comes in is smaller than the image already. Its last column and row may then lie partly
        outside the image; `size` times `factor` must fit into the image.
    """

    def __init__(self, width: int, height: int, size: tuple[int, int], factor: int = 1) -> None:
        self._width, self._height = width, height
        self._columns, self._rows = -(-width // factor), -(-height // factor)
        # A column that comes in has so many units, a row too; a column that goes out has `width`, a row `height`.
        self._column_units, self._row_units = size[0] * factor, size[1] * factor
        self._row = 0
        self._sums = np.zeros((size[1], size[0], 3), np.int64)
        # How many whole columns lie left of each border between output columns, and the rest in units.
        self._whole, self._rest = np.divmod(np.arange(size[0] + 1, dtype=np.int64) * width, self._column_units)

    def add(self, rows: Pixels) -> None:
        """Take the next rows.

        Parameters
        ----------
        rows
            (n, ⌈width / factor⌉, 3) uint8.
        """
        step = max(1, _BLOCK // self._columns)
        for start in range(0, len(rows), step):
            for sums in self._along_x(rows[start : start + step]):
                self._add_row(sums)

    def result(self) -> Pixels:
        """Return the (h, w, 3) uint8 image, once all rows are in."""
        if self._row != self._rows:
            raise ValueError(f"{self._row} of {self._rows} rows came in")
        area = self._width * self._height
        return ((self._sums + area // 2) // area).astype(np.uint8)

    def _along_x(self, rows: Pixels) -> npt.NDArray[np.int64]:
        """Sum the columns under each output column; (n, w, 3), in units."""
        before = np.zeros((len(rows), self._columns + 1, 3), np.int64)
        np.cumsum(rows, axis=1, out=before[:, 1:])
        at = before[:, self._whole] * self._column_units
        inside = np.minimum(self._whole, self._columns - 1)  # the last border has no column behind it, and no rest
        at += rows[:, inside] * self._rest[None, :, None]
        return np.diff(at, axis=1)

    def _add_row(self, sums: npt.NDArray[np.int64]) -> None:
        """Share a row among the one or two output rows that it lies under."""
        start = self._row * self._row_units
        row = start // self._height
        here = min(self._row_units, (row + 1) * self._height - start)
        self._sums[row] += sums * here
        if here < self._row_units and row + 1 < len(self._sums):
            self._sums[row + 1] += sums * (self._row_units - here)
        self._row += 1
