"""Makes the thumbnail of a slide, in stripes, so that no whole level is ever in memory.

A reduced level may lack a tile, or hold one that cannot be read, although level 0 is whole. Such a place is taken from
the next larger level. What not even level 0 can give is unknown, and the thumbnail says so: it must not pass for glass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels

_BLOCK: Final = 1 << 20  # pixels that are summed at a time; limits memory to about 30 MB
_COLUMNS: Final = 16  # output columns that are summed at a time
_MOST_UNKNOWN: Final = 10_000  # unreadable blocks of level 0; after them, what is sound in a stripe is not looked for
_ALIKE: Final = 16  # levels of 255 by which compression may change a single colour


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """The whole slide as one small image.

    Attributes
    ----------
    pixels : numpy.ndarray
        (h, w, 3) uint8 RGB.
    unknown : numpy.ndarray
        (h, w) bool; True where some of what lies underneath cannot be read. The pixels there have no meaning.
    """

    pixels: Pixels
    unknown: npt.NDArray[np.bool_]


class Level(Protocol):
    """One level of a slide, as `make_thumbnail` reads it: maybe reduced by a factor while it is decoded."""

    @property
    def size(self) -> tuple[float, float]:
        """Width and height after the reduction; not rounded."""

    @property
    def block(self) -> tuple[int, int]:
        """Width and height of the smallest part that is worth reading alone."""

    def rows(self, width: int) -> int:
        """Return how many rows of this width to read at a time."""

    def read(self, x: int, y: int, width: int, height: int) -> Pixels | None:
        """Read a part of the reduced level.

        Parameters
        ----------
        x, y, width, height : int
            The part, in pixels of the reduced level.

        Returns
        -------
        numpy.ndarray or None
            (height, width, 3) uint8 RGB. None if anything there cannot be read, or seems to be missing from this
            level, since level 0 has it.
        """


def make_thumbnail(
    sizes: Sequence[tuple[int, int]], limit: int, open_level: Callable[[int, tuple[int, int]], tuple[Level, int]]
) -> Thumbnail:
    """Make the thumbnail of a slide.

    Parameters
    ----------
    sizes : Sequence of tuple of int
        (width, height) of each level in pixels, largest first.
    limit : int
        Most pixels of the thumbnail.
    open_level : callable
        Takes the number of a level and the size, (width, height), that is needed of it. Returns the level, and the
        factor by which it is reduced while it is decoded.

    Returns
    -------
    Thumbnail
        From the smallest level that is not smaller than the thumbnail; where that fails, from the next larger ones.
    """
    return _Maker(sizes, open_level).make(thumbnail_size(*sizes[0], limit))


class _Maker:
    """Makes one thumbnail."""

    def __init__(
        self, sizes: Sequence[tuple[int, int]], open_level: Callable[[int, tuple[int, int]], tuple[Level, int]]
    ) -> None:
        self._sizes, self._open_level = sizes, open_level
        self._larger: dict[int, Level] = {}  # by the number of the level for which it steps in
        self._unknown: list[tuple[float, float, float, float]] = []  # left, top, right, bottom, as shares of the slide

    def make(self, size: tuple[int, int]) -> Thumbnail:
        number = pick_level(self._sizes, size)
        level, factor = self._open_level(number, size)
        shrinker = Shrinker(*self._sizes[number], size, factor)
        width, height = _whole(level)
        self._feed(shrinker, number, level, 0, 0, width, height)
        unknown = np.zeros((size[1], size[0]), np.bool_)
        # A pixel of a reduced level that lies partly over the unknown reaches one pixel of the thumbnail further.
        more = 1 if number else 0
        for left, top, right, bottom in self._unknown:
            columns = slice(max(0, math.floor(left * size[0]) - more), math.ceil(right * size[0]) + more)
            unknown[max(0, math.floor(top * size[1]) - more) : math.ceil(bottom * size[1]) + more, columns] = True
        return Thumbnail(shrinker.result(), unknown)

    def _feed(self, shrinker: Shrinker, number: int, level: Level, x: int, y: int, width: int, height: int) -> None:
        """Give a part of a level to a shrinker, stripe by stripe."""
        for top, bottom in cuts(y, y + height, level.rows(width)):
            stripe = level.read(x, top, width, bottom - top)
            if stripe is None:
                stripe = np.empty((bottom - top, width, 3), np.uint8)
                self._fill_in_parts(stripe, number, level, x, top)
            shrinker.add(stripe)

    def _fill_in_parts(self, out: Pixels, number: int, level: Level, x: int, y: int) -> None:
        """Fill `out` with a part of a level that cannot be read as a whole: what is bad comes from larger levels."""
        height, width = out.shape[:2]
        across, down = list(cuts(x, x + width, level.block[0])), list(cuts(y, y + height, level.block[1]))
        hopeless = number == 0 and len(self._unknown) >= _MOST_UNKNOWN
        if len(across) * len(down) == 1 or hopeless:
            self._fill_from_larger(out, number, level, x, y)
            return
        for top, bottom in down:
            for left, right in across:
                part = out[top - y : bottom - y, left - x : right - x]
                pixels = level.read(left, top, right - left, bottom - top)
                if pixels is None:
                    self._fill_from_larger(part, number, level, left, top)
                else:
                    part[:] = pixels

    def _fill_from_larger(self, out: Pixels, number: int, level: Level, x: int, y: int) -> None:
        height, width = out.shape[:2]
        if number == 0:
            out[:] = 255
            across, down = level.size
            self._unknown.append((x / across, y / down, (x + width) / across, (y + height) / down))
            return
        larger = self._larger.get(number)
        if larger is None:
            larger, _ = self._open_level(number - 1, _whole(level))
            self._larger[number] = larger
        spans = [
            _span(start, length, own, other, whole)
            for start, length, own, other, whole in zip(
                (x, y), (width, height), level.size, larger.size, _whole(larger), strict=True
            )
        ]
        (left, right), (top, bottom) = spans
        size = min(width, right - left), min(height, bottom - top)
        shrinker = Shrinker(right - left, bottom - top, size)
        self._feed(shrinker, number - 1, larger, left, top, right - left, bottom - top)
        rest = ((0, height - size[1]), (0, width - size[0]), (0, 0))  # levels whose sizes do not quite fit together
        out[:] = np.pad(shrinker.result(), rest, mode="edge")


def _whole(level: Level) -> tuple[int, int]:
    return math.ceil(level.size[0]), math.ceil(level.size[1])


def cuts(start: int, stop: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a range that lie between multiples of a number.

    Parameters
    ----------
    start, stop : int
        The range.
    step : int
        The number.

    Yields
    ------
    tuple of int
        Start and stop of a part.
    """
    while start < stop:
        end = min(stop, (start // step + 1) * step)
        yield start, end
        start = end


def _span(start: int, length: int, own: float, other: float, whole: int) -> tuple[int, int]:
    """Return the range of a level of length `other` under a range of a level of length `own`."""
    end = max(1, min(whole, math.ceil((start + length) * other / own)))
    return max(0, min(math.floor(start * other / own), end - length)), end


def single_colour(pixels: Pixels) -> Pixels | None:
    """Return the colour that all pixels have, as if nothing were there.

    Parameters
    ----------
    pixels : numpy.ndarray
        (h, w, 3) uint8.

    Returns
    -------
    numpy.ndarray or None
        (3,) uint8; None if the pixels differ.
    """
    first = pixels[0, 0]
    if (pixels[-1, -1] != first).any() or (pixels[len(pixels) // 2, pixels.shape[1] // 2] != first).any():
        return None  # nearly always
    return first if (pixels == first).all() else None


def shows_more(pixels: Pixels, colour: Pixels) -> bool:
    """Tell whether pixels are clearly not all of one colour.

    Parameters
    ----------
    pixels : numpy.ndarray
        (h, w, 3) uint8.
    colour : numpy.ndarray
        (3,) uint8.
    """
    return bool((np.abs(pixels.astype(np.int16) - colour.astype(np.int16)) > _ALIKE).any())


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
