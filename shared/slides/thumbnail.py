"""Makes the thumbnail of a slide, in stripes, so that no whole level is ever in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels

_BLOCK: Final = 1 << 20  # pixels that are summed at a time; limits memory to about 30 MB
_COLUMNS: Final = 16  # output columns that are summed at a time


def thumbnail_size(width: int, height: int, limit: int) -> tuple[int, int]:
    """Return the size of the largest thumbnail that keeps the aspect ratio of the slide.

    Parameters
    ----------
    width, height : int
        Size of the slide in level-0 pixels.
    limit : int
        Most pixels of the thumbnail, at least 1.

    Returns
    -------
    width, height : int
        Size of the thumbnail in pixels.
    """
    scale = min(1.0, math.sqrt(limit / (width * height)))
    w, h = max(1, int(width * scale)), max(1, int(height * scale))
    if w * h > limit:  # the slide is so thin that its shorter side is 1 pixel already
        w, h = (limit // h, h) if w > h else (w, limit // w)
    return w, h


def pick_level(levels: Sequence[tuple[int, int]], size: tuple[int, int]) -> int:
    """Return the number of the smallest level that is not smaller than `size`, or 0 if there is none.

    Parameters
    ----------
    levels : Sequence of tuple of int
        (width, height) of each level.
    size : tuple of int
        (width, height) that is needed.
    """
    fitting = [i for i, (width, height) in enumerate(levels) if width >= size[0] and height >= size[1]]
    return min(fitting, key=lambda i: levels[i][0] * levels[i][1], default=0)


class Shrinker:
    """Shrinks an image by averaging areas. The image comes in row by row.

    The sums are integers, so the result is the same on every machine and for stripes of any height.

    Parameters
    ----------
    width, height : int
        Size of the image in pixels.
    size : tuple of int
        (width, height) of the result; not larger than the image.
    factor : int, optional
        Downsample of the rows that come in, relative to the image. If it is not 1, their last column and the last row
        may lie partly outside the image. `size` times `factor` must fit into the image.
    """

    def __init__(self, width: int, height: int, size: tuple[int, int], factor: int = 1) -> None:
        self._width, self._height = width, height
        self._columns, self._rows = -(-width // factor), -(-height // factor)
        # Both sides are measured in units that divide input and output pixels: an input column has this many, an output
        # column has `width`; an input row has this many, an output row has `height`.
        self._column_units, self._row_units = size[0] * factor, size[1] * factor
        self._row = 0
        # The weighted sum of the input rows under the next output row: at most 255 times `height`, far below 2**32.
        self._sums = np.zeros((self._columns, 3), np.uint32)
        self._weighted = np.empty_like(self._sums)
        self._summed_rows: list[npt.NDArray[np.uint32]] = []
        self._done: list[Pixels] = []
        self._size = size

    def add(self, rows: Pixels) -> None:
        """Add the next rows of the image.

        Parameters
        ----------
        rows : numpy.ndarray
            (n, ⌈width / factor⌉, 3) uint8.
        """
        for row in rows:
            start = self._row * self._row_units
            # An input row lies under one output row, or under two.
            left = (start // self._height + 1) * self._height - start
            here = min(self._row_units, left)
            self._add_weighted(row, here)
            self._row += 1
            if left <= self._row_units:
                self._summed_rows.append(self._sums)
                self._sums = np.zeros_like(self._sums)
                if len(self._summed_rows) * self._columns >= _BLOCK:
                    self._average_columns()
                if here < self._row_units:
                    self._add_weighted(row, self._row_units - here)

    def result(self) -> Pixels:
        """Return the result, (height, width, 3) uint8.

        Raises
        ------
        ValueError
            Not all rows of the image have been added.
        """
        if self._row != self._rows:
            raise ValueError(f"{self._row} of {self._rows} rows were added")
        self._average_columns()
        done = np.concatenate(self._done) if self._done else np.empty((0, self._size[0], 3), np.uint8)
        return done[: self._size[1]]  # the last input row may extend below the image

    def _add_weighted(self, row: Pixels, units: int) -> None:
        np.multiply(row, np.uint32(units), out=self._weighted, dtype=np.uint32)
        self._sums += self._weighted

    def _average_columns(self) -> None:
        """Sum the columns under each output column of the summed rows, and divide by the area."""
        rows = np.stack(self._summed_rows) if self._summed_rows else np.empty((0, self._columns, 3), np.uint32)
        self._summed_rows.clear()
        area = self._width * self._height
        done = np.empty((len(rows), self._size[0], 3), np.uint8)
        for left in range(0, self._size[0], _COLUMNS):
            first, weights = self._weights(left, min(left + _COLUMNS, self._size[0]))
            # All sums are integers below 2**53, so doubles hold them exactly, whatever the order of addition.
            sums = np.matmul(weights, rows[:, first : first + weights.shape[1]].astype(np.float64))
            sums += area // 2
            sums /= area
            done[:, left : left + len(weights)] = sums
        self._done.append(done)

    def _weights(self, left: int, right: int) -> tuple[int, npt.NDArray[np.float64]]:
        """Return the first input column, and (output columns, input columns) how many units of each lie under each."""
        start = np.arange(left, right, dtype=np.int64)[:, None] * self._width
        first = left * self._width // self._column_units
        last = min(self._columns, -(-right * self._width // self._column_units))
        column = np.arange(first, last, dtype=np.int64) * self._column_units
        shared = np.minimum(start + self._width, column + self._column_units) - np.maximum(start, column)
        return first, np.maximum(shared, 0).astype(np.float64)
