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

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, Vertices
from nuclei_segmentation.operators.stitch.pyramid.levels import Level

Steps = npt.NDArray[np.uint64]
"""Steps of one tile: the pixel's number in the tile, row by row, and below it, in 32 bits, the difference of labels."""

Labels = npt.NDArray[np.uint32]
"""(side, side) uint32, a tile of a label image."""

_Integers = npt.NDArray[np.int32]

_AT_ONCE = 1000  # nuclei, whose crossings fit into a processor's cache: that takes half the time
_VALUE_BITS = np.uint64(32)


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
        (c,) int32, rows of pixels.
    column : numpy.ndarray
        (c,) int32, the first pixel to the right of the crossing.
    value : numpy.ndarray
        (c,) uint32, the label where the nucleus begins, minus the label where it ends.
    nucleus : numpy.ndarray
        (c,) int32, which of the nuclei it is.
    ends : numpy.ndarray
        (n,) int32, for each nucleus the first column to the right of it.
    """

    row: _Integers
    column: _Integers
    value: npt.NDArray[np.uint32]
    nucleus: _Integers
    ends: _Integers

    def halved(self) -> _Crossings:
        """Return the crossings of the next level, which keeps every second pixel of every second row."""
        kept = np.flatnonzero(self.row & 1 == 0)
        row, column = self.row.take(kept) >> 1, (self.column.take(kept) + 1) >> 1
        return _Crossings(row, column, self.value.take(kept), self.nucleus.take(kept), (self.ends + 1) >> 1)


def steps_by_tile(nuclei: Nuclei, levels: Sequence[Level]) -> Iterator[tuple[TileKey, Steps]]:
    """Yield the steps of some nuclei in the tiles that they touch, at all levels; a tile may come several times.

    Parameters
    ----------
    nuclei : Nuclei
        The nuclei.
    levels : Sequence of Level
        The levels, whose tiles have a side of a power of two pixels.
    """
    for first in range(0, len(nuclei), _AT_ONCE):
        starts = nuclei.starts[first : first + _AT_ONCE + 1]
        vertices, labels = nuclei.vertices[starts[0] : starts[-1]], nuclei.labels[first : first + _AT_ONCE]
        crossings = _crossings(labels, vertices, starts - starts[0])
        for level in levels:
            if level.number:
                crossings = crossings.halved()
            for (row, column), steps in _by_tile(crossings, level.side):
                yield TileKey(level.number, row, column), steps


def differences(steps: Steps, side: int) -> Labels:
    """Return the tile that the steps of all its nuclei make, as each pixel's difference from the one to its left.

    Parameters
    ----------
    steps : numpy.ndarray
        (s,) uint64, in any order, at least one.
    side : int
        Side of the tile in pixels.

    Returns
    -------
    numpy.ndarray
        (side, side) uint32, modulo 2³². Where nuclei overlap, which happens where one lies in a filled hole of another,
        the pixel has the higher label.
    """
    pixel, value = (steps >> _VALUE_BITS).astype(np.int64), steps.astype(np.uint32)
    if _overlap(steps, side):
        return _one_over_the_other(pixel, value, side)
    tile = np.zeros(side * side, np.uint32)
    np.add.at(tile, pixel, value)
    return tile.reshape(side, side)


def _crossings(labels: npt.NDArray[np.uint32], vertices: Vertices, starts: npt.NDArray[np.int64]) -> _Crossings:
    """Return where the outlines of nuclei cross the middles of the rows of level 0.

    An edge counts for the rows whose middle is at or below its upper end and above its lower end, so that a vertex just
    on a middle counts for one of its two edges.
    """
    x, y = np.ascontiguousarray(vertices.T)
    begins, ends = starts[:-1], starts[1:]
    next_x, next_y = np.append(x[1:], x[:1]), np.append(y[1:], y[:1])
    next_x[ends - 1], next_y[ends - 1] = x[begins], y[begins]
    # Row r has its middle at 2 r + 1, in half pixels.
    first = np.minimum(y, next_y) >> 1
    rows = (np.maximum(y, next_y) >> 1) - first
    crossing = np.flatnonzero(rows)
    rows, first = rows.take(crossing), first.take(crossing)
    slope = (next_x - x).take(crossing) / (next_y - y).take(crossing)
    # On row r an edge is at x + (2 r + 1 - y) slope, and the first pixel with its centre at or behind it has the number
    # ceil((that - 1) / 2).
    at_row_0 = (x.take(crossing) - 1 + (1 - y.take(crossing)) * slope) / 2

    area = np.add.reduceat(x.astype(np.int64) * next_y - next_x.astype(np.int64) * y, begins)
    owner = np.repeat(np.arange(len(labels), dtype=np.int32), np.diff(starts)).take(crossing)
    clockwise = (area > 0).take(owner)
    begin = (next_y < y).take(crossing) == clockwise
    label = labels.take(owner)
    value = np.where(begin, label, -label)

    edge = np.repeat(np.arange(len(crossing), dtype=np.int32), rows)
    before = np.cumsum(rows, dtype=np.int32) - rows  # crossings of the edges before
    row = np.arange(len(edge), dtype=np.int32) + (first - before).take(edge)
    column = np.ceil(at_row_0.take(edge) + slope.take(edge) * row).astype(np.int32)
    right = np.maximum.reduceat(x, begins) >> 1
    return _Crossings(row, column, value.take(edge), owner.take(edge), right)


def _by_tile(crossings: _Crossings, side: int) -> Iterator[tuple[tuple[int, int], Steps]]:
    """Yield (row, column) of each tile and its steps.

    A tile knows nothing of what is left of it. So each crossing takes effect in its own tile, and at the left border of
    each further tile that its nucleus reaches: there the beginnings and ends further left add up to the label of a
    nucleus that goes on, or to 0.
    """
    if len(crossings.row) == 0:
        return
    bits, inside = side.bit_length() - 1, side - 1
    row, tile = crossings.row >> bits, crossings.column >> bits
    last = (crossings.ends - 1) >> bits  # may be further right than all crossings, in a row that a level leaves out
    top, left = int(row.min()), int(tile.min())
    columns = max(int(tile.max()), int(last.max())) + 1 - left
    first_pixel, number = (crossings.row & inside) << bits, (row - top) * columns + (tile - left)
    further = last.take(crossings.nucleus) - tile
    # An end at the left border of a tile that its nucleus does not reach is left out.
    own = np.flatnonzero(further >= 0)
    pixel = (first_pixel | (crossings.column & inside)).take(own)
    numbers, steps = [number.take(own)], [_pack(pixel, crossings.value.take(own))]
    for distance in range(1, int(further.max()) + 1):
        reaching = np.flatnonzero(further >= distance)
        numbers.append(number.take(reaching) + distance)
        steps.append(_pack(first_pixel.take(reaching), crossings.value.take(reaching)))
    for one, some in _grouped(np.concatenate(numbers), np.concatenate(steps)):
        yield (top + one // columns, left + one % columns), some


def _grouped(numbers: _Integers, steps: Steps) -> Iterator[tuple[int, Steps]]:
    """Yield each number and its steps."""
    if len(numbers) == 0:
        return
    if numbers.max() < 1 << 16:
        numbers = numbers.astype(np.uint16)  # for which NumPy has a sort by radix
    order = np.argsort(numbers, kind="stable")
    numbers, steps = numbers.take(order), steps.take(order)
    borders = [0, *(np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist(), len(steps)]
    for begin, end in pairwise(borders):
        yield int(numbers[begin]), steps[begin:end].copy()  # a view would keep the whole chunk


def _pack(pixel: _Integers, value: npt.NDArray[np.uint32]) -> Steps:
    return (pixel.astype(np.uint64) << _VALUE_BITS) | value


def _overlap(steps: Steps, side: int) -> bool:
    """Tell whether a pixel lies in more than one nucleus; at least one step."""
    # The pixel, and below it, in one bit, whether a nucleus ends there: minus a label is at least 2³¹.
    places = np.sort((steps >> (_VALUE_BITS - np.uint64(1))).astype(np.uint32))
    pixel = places >> 1
    depth = np.cumsum(1 - 2 * (places & 1).astype(np.int8), dtype=np.int32)
    row = pixel >> (side.bit_length() - 1)
    begins = np.flatnonzero(row[1:] != row[:-1]) + 1
    lengths = np.diff(begins, prepend=0, append=len(row))
    open_above = np.append(np.int32(0), depth.take(begins - 1))  # at the end of the row above
    depth -= np.repeat(open_above, lengths)
    # Of the steps at one pixel, only their sum counts.
    return bool(((depth[:-1] > 1) & (pixel[1:] != pixel[:-1])).any() or depth[-1] > 1)


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
