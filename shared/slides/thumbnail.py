"""A whole slide as one small image, made from stripes, so that no level is ever in memory as a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels

_BLOCK: Final = 1 << 20  # pixels that are summed at a time; bounds memory to some 30 MB
_COLUMNS: Final = 16  # output columns that are summed at a time


def thumbnail_size(width: int, height: int, limit: int) -> tuple[int, int]:
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
    width, height : int
        Size of the image, in pixels.
    size : tuple of int
        (width, height) of what goes out; not larger.
    factor : int, optional
        By how much what comes in is smaller than the image already. Its last column and row may then lie partly
        outside the image; `size` times `factor` must fit into the image.
    """

    def __init__(self, width: int, height: int, size: tuple[int, int], factor: int = 1) -> None:
        self._width, self._height = width, height
        self._columns, self._rows = -(-width // factor), -(-height // factor)
        # A column that comes in has so many units, a row too; a column that goes out has `width`, a row `height`.
        self._column_units, self._row_units = size[0] * factor, size[1] * factor
        self._row = 0
        # The rows under the next output row, summed. A sum is at most 255 times `height`, far below 2**32.
        self._sums = np.zeros((self._columns, 3), np.uint32)
        self._part = np.empty_like(self._sums)
        self._waiting: list[npt.NDArray[np.uint32]] = []
        self._done: list[Pixels] = []
        self._size = size

    def add(self, rows: Pixels) -> None:
        """Take the next rows.

        Parameters
        ----------
        rows : numpy.ndarray
            (n, ⌈width / factor⌉, 3) uint8.
        """
        for row in rows:
            start = self._row * self._row_units
            # A row lies under one output row, or under two.
            left = (start // self._height + 1) * self._height - start
            here = min(self._row_units, left)
            self._share(row, here)
            self._row += 1
            if left <= self._row_units:
                self._waiting.append(self._sums)
                self._sums = np.zeros_like(self._sums)
                if len(self._waiting) * self._columns >= _BLOCK:
                    self._along_x()
                if here < self._row_units:
                    self._share(row, self._row_units - here)

    def result(self) -> Pixels:
        """Return the (h, w, 3) uint8 image, once all rows are in."""
        if self._row != self._rows:
            raise ValueError(f"{self._row} of {self._rows} rows came in")
        self._along_x()
        done = np.concatenate(self._done) if self._done else np.empty((0, self._size[0], 3), np.uint8)
        return done[: self._size[1]]  # with a factor, a last row may have touched what lies below the image

    def _share(self, row: Pixels, units: int) -> None:
        np.multiply(row, np.uint32(units), out=self._part, dtype=np.uint32)
        self._sums += self._part

    def _along_x(self) -> None:
        """Sum the columns under each output column of the rows that wait, and divide by the area."""
        rows = np.stack(self._waiting) if self._waiting else np.empty((0, self._columns, 3), np.uint32)
        self._waiting.clear()
        area = self._width * self._height
        done = np.empty((len(rows), self._size[0], 3), np.uint8)
        for left in range(0, self._size[0], _COLUMNS):
            first, weights = self._weights(left, min(left + _COLUMNS, self._size[0]))
            # All sums are whole numbers below 2**53: doubles hold them exactly, in whatever order they are added.
            sums = np.matmul(weights, rows[:, first : first + weights.shape[1]].astype(np.float64))
            sums += area // 2
            sums /= area
            done[:, left : left + len(weights)] = sums
        self._done.append(done)

    def _weights(self, left: int, right: int) -> tuple[int, npt.NDArray[np.float64]]:
        """Return the first column that matters, and (output columns, columns) how far each lies under each."""
        start = np.arange(left, right, dtype=np.int64)[:, None] * self._width
        first = left * self._width // self._column_units
        last = min(self._columns, -(-right * self._width // self._column_units))
        place = np.arange(first, last, dtype=np.int64) * self._column_units
        shared = np.minimum(start + self._width, place + self._column_units) - np.maximum(start, place)
        return first, np.maximum(shared, 0).astype(np.float64)
