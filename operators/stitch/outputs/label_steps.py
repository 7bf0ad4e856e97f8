"""From outlines to the tiles of a label image.

Along a row of pixels a label image changes only where an outline crosses the line through the centres of the pixels: a
*step* of plus the label where a nucleus begins, and of minus the label where it ends. Just these differences are what a
TIFF tile with a horizontal predictor stores, so that no pixel inside a nucleus is ever touched. Every second row, with
each step moved to the next pixel that is kept, is the next level of the pyramid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.operators.stitch.pyramid.levels import Level

Steps = npt.NDArray[np.uint64]
"""Steps of one tile: the pixel's number in the tile, row by row, and below it, in 32 bits, the difference of labels."""

Labels = npt.NDArray[np.uint32]
"""(side, side) uint32, a tile of a label image."""

_VALUE_BITS = np.uint64(32)
_NEGATIVE = np.uint32(1 << 31)


class TileKey(NamedTuple):
    """Level, row and column of a tile."""

    level: int
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class _Crossings:
    """Where the outlines of some nuclei cross the middles of the rows of a level.

    Attributes
    ----------
    row : numpy.ndarray
        (c,) int64, rows of pixels.
    column : numpy.ndarray
        (c,) int64, the first pixel to the right of the crossing.
    value : numpy.ndarray
        (c,) uint32, the label where the nucleus begins, minus the label where it ends.
    nucleus : numpy.ndarray
        (c,) int64, which of the nuclei it is.
    ends : numpy.ndarray
        (n,) int64, for each nucleus the first column to the right of it.
    """

    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    value: npt.NDArray[np.uint32]
    nucleus: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]

    def halved(self) -> _Crossings:
        """Return the crossings of the next level, which keeps every second pixel of every second row."""
        kept = np.flatnonzero(self.row & 1 == 0)
        row, column = self.row[kept] >> 1, (self.column[kept] + 1) >> 1
        return _Crossings(row, column, self.value[kept], self.nucleus[kept], (self.ends + 1) >> 1)


def steps_by_tile(nuclei: Nuclei, levels: Sequence[Level]) -> dict[TileKey, Steps]:
    """Return the steps of some nuclei in all tiles that they touch, at all levels.

    Parameters
    ----------
    nuclei : Nuclei
        The nuclei.
    levels : Sequence of Level
        The levels, whose tiles have a side of a power of two pixels.
    """
    tiles: dict[TileKey, Steps] = {}
    if len(nuclei):
        crossings = _crossings(nuclei)
        for level in levels:
            if level.number:
                crossings = crossings.halved()
            for (row, column), steps in _by_tile(crossings, level.side):
                tiles[TileKey(level.number, row, column)] = steps
    return tiles


def differences(steps: Steps, side: int) -> Labels:
    """Return the tile that the steps of all its nuclei make, as each pixel's difference from the one to its left.

    Parameters
    ----------
    steps : numpy.ndarray
        (s,) uint64, in any order.
    side : int
        Side of the tile in pixels.

    Returns
    -------
    numpy.ndarray
        (side, side) uint32, modulo 2³². Where nuclei overlap, which happens where one lies in a filled hole of another,
        the pixel has the higher label.
    """
    steps = np.sort(steps)
    pixel, value = _unpack(steps)
    if _overlap(pixel, value, side):
        return _one_over_the_other(pixel, value, side)
    tile = np.zeros(side * side, np.uint32)
    np.add.at(tile, pixel, value)
    return tile.reshape(side, side)


def _crossings(nuclei: Nuclei) -> _Crossings:
    """Return where outlines cross the middles of the rows of level 0.

    An edge counts for the rows whose middle is at or below its upper end and above its lower end, so that a vertex just
    on a middle counts for one of its two edges.
    """
    x, y = nuclei.vertices.T.astype(np.int64, order="C")
    begins, lengths = nuclei.starts[:-1], np.diff(nuclei.starts)
    following = np.arange(1, len(x) + 1)
    following[nuclei.starts[1:] - 1] = begins
    next_x, next_y = x[following], y[following]
    # Row r has its middle at 2 r + 1, in half pixels.
    first = np.minimum(y, next_y) >> 1
    rows = (np.maximum(y, next_y) >> 1) - first
    crossing = np.flatnonzero(rows)
    slope = (next_x - x)[crossing] / (next_y - y)[crossing]
    # On row r an edge is at x + (2 r + 1 - y) slope, and the first pixel with its centre at or behind it has the number
    # ceil((that - 1) / 2).
    at_row_0 = (x[crossing] - 1 + (1 - y[crossing]) * slope) / 2

    area = np.add.reduceat(x * next_y - next_x * y, begins)  # positive where the outline runs clockwise
    owner = np.repeat(np.arange(len(nuclei)), lengths)[crossing]
    begin = (next_y < y)[crossing] == (area > 0)[owner]
    label = nuclei.labels[owner]
    value = np.where(begin, label, -label)

    edge = np.repeat(np.arange(len(crossing)), rows[crossing])
    offset = first[crossing] - (np.cumsum(rows[crossing]) - rows[crossing])
    row = np.arange(len(edge)) + offset[edge]
    column = np.ceil(at_row_0[edge] + slope[edge] * row).astype(np.int64)
    ends = np.maximum.reduceat(x, begins) >> 1
    return _Crossings(row, column, value[edge], owner[edge], ends)


def _by_tile(crossings: _Crossings, side: int) -> Iterator[tuple[tuple[int, int], Steps]]:
    """Yield (row, column) of each tile and its steps.

    A tile knows nothing of what is left of it. So each crossing takes effect in its own tile, and at the left border of
    each further tile that its nucleus reaches: there the beginnings and ends further left add up to the label of a
    nucleus that goes on, or to 0.
    """
    bits = side.bit_length() - 1
    tile = crossings.column >> bits
    further = ((crossings.ends - 1) >> bits)[crossings.nucleus] - tile
    parts = []
    for distance in range(int(further.max(initial=-1)) + 1):
        reaching = np.flatnonzero(further >= distance)
        column = crossings.column[reaching] & (side - 1) if distance == 0 else np.zeros(len(reaching), np.int64)
        parts.append((crossings.row[reaching], tile[reaching] + distance, column, crossings.value[reaching]))
    if not parts:
        return
    row, tile, column, value = (
        np.concatenate(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True)
    )
    steps = _pack(((row & (side - 1)) << bits) | column, value)
    row >>= bits
    left, top, columns = tile.min(), row.min(), np.ptp(tile) + 1
    number = (row - top) * columns + (tile - left)
    if number.max() < 1 << 16:
        number = number.astype(np.uint16)  # for which NumPy has a sort by radix
    order = np.argsort(number, kind="stable")
    number, steps = number[order], steps[order]
    borders = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(steps)]
    for begin, end in pairwise(borders):
        down, right = divmod(int(number[begin]), int(columns))
        yield (int(top) + down, int(left) + right), steps[begin:end].copy()  # a view would keep the whole chunk


def _pack(pixel: npt.NDArray[np.int64], value: npt.NDArray[np.uint32]) -> Steps:
    return (pixel.astype(np.uint64) << _VALUE_BITS) | value


def _unpack(steps: Steps) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    return (steps >> _VALUE_BITS).astype(np.int64), steps.astype(np.uint32)


def _overlap(pixel: npt.NDArray[np.int64], value: npt.NDArray[np.uint32], side: int) -> bool:
    """Tell whether a pixel lies in more than one nucleus; the steps are sorted by pixel."""
    if len(pixel) == 0:
        return False
    depth = np.cumsum(np.where(value < _NEGATIVE, 1, -1))
    row = pixel // side
    begins = np.flatnonzero(np.diff(row, prepend=-1))
    before = np.repeat(np.append(0, depth)[begins], np.diff(begins, append=len(row)))  # open at the ends of rows above
    last = np.diff(pixel, append=-1) != 0  # of the steps at one pixel, only their sum counts
    return bool(((depth - before)[last] > 1).any())


def _one_over_the_other(pixel: npt.NDArray[np.int64], value: npt.NDArray[np.uint32], side: int) -> Labels:
    """Paint nucleus by nucleus, by ascending labels."""
    tile = np.zeros((side, side), np.uint32)
    labels = np.minimum(value, -value)
    order = np.argsort(labels, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(labels[order])) + 1):
        top, bottom = (int(end) // side for end in (pixel[members].min(), pixel[members].max()))
        alone = np.zeros((bottom + 1 - top) * side, np.uint32)
        np.add.at(alone, pixel[members] - top * side, value[members])
        inside = np.cumsum(alone.reshape(-1, side), axis=1, dtype=np.uint32) != 0
        tile[top : bottom + 1][inside] = labels[members[0]]
    tile[:, 1:] -= tile[:, :-1].copy()
    return tile
