"""Regions of a slide, and the grid of tiles that covers it. All lengths are in level-0 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of level-0 pixels: columns x to x + width - 1, rows y to y + height - 1.

    Parameters
    ----------
    x, y : int
        Left column and top row, in level-0 pixels.
    width, height : int
        Size in level-0 pixels.
    """

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column to the right of the region."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row below the region."""
        return self.y + self.height

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def intersect(self, other: Region) -> Region:
        """Return the region that both share; its width or height is 0 if they share nothing."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Region(x, y, max(0, right - x), max(0, bottom - y))

    def contains(self, other: Region) -> bool:
        """Tell whether `other` lies entirely inside this region."""
        return self.x <= other.x and self.y <= other.y and other.right <= self.right and other.bottom <= self.bottom


@dataclass(frozen=True)
class TileGrid:
    """The grid of square tiles that covers a slide.

    Tile (row, column) starts at ``row * stride`` and ``column * stride``, where the stride is ``tile - overlap``. Only
    the core of each tile is kept. The cores partition the slide. A core ends `overlap` / 2 pixels inside its tile,
    except at the border of the slide. The last tiles may extend beyond the right and bottom border of the slide; there
    they hold a reflection of it.

    Parameters
    ----------
    width, height : int
        The slide's size in level-0 pixels.
    tile : int
        Side of a tile in pixels, a multiple of 16.
    overlap : int
        Pixels that neighbouring tiles share; a multiple of 16, less than `tile`.
    """

    width: int
    height: int
    tile: int
    overlap: int = 0

    @property
    def stride(self) -> int:
        """Distance from one tile to the next, in pixels."""
        return self.tile - self.overlap

    @cached_property
    def columns(self) -> int:
        """Number of tiles in a row."""
        return max(1, -(-(self.width - self.overlap) // self.stride))

    @cached_property
    def rows(self) -> int:
        """Number of tiles in a column."""
        return max(1, -(-(self.height - self.overlap) // self.stride))

    @property
    def bounds(self) -> Region:
        """The whole slide as a region."""
        return Region(0, 0, self.width, self.height)

    def __len__(self) -> int:
        return self.rows * self.columns

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the position (row, column) of each tile, row by row."""
        return ((row, column) for row in range(self.rows) for column in range(self.columns))

    def region(self, row: int, column: int) -> Region:
        """Return the square that a tile covers; it may extend beyond the slide.

        Parameters
        ----------
        row, column : int
            Position of the tile.
        """
        return Region(column * self.stride, row * self.stride, self.tile, self.tile)

    def core(self, row: int, column: int) -> Region:
        """Return the part of the slide that a tile alone decides.

        Parameters
        ----------
        row, column : int
            Position of the tile.
        """
        x, right = self._core(column, self.columns, self.width)
        y, bottom = self._core(row, self.rows, self.height)
        return Region(x, y, right - x, bottom - y)

    def row_of(self, y: int) -> int:
        """Return the row of the tiles whose cores contain pixel row `y`."""
        return min(max(0, (y - self.overlap // 2) // self.stride), self.rows - 1)

    def column_of(self, x: int) -> int:
        """Return the column of the tiles whose cores contain pixel column `x`."""
        return min(max(0, (x - self.overlap // 2) // self.stride), self.columns - 1)

    def tiles_under(self, region: Region) -> Iterator[tuple[int, int]]:
        """Yield the positions (row, column) of the tiles whose cores share pixels with `region`, row by row."""
        for row in range(self.row_of(region.y), self.row_of(region.bottom - 1) + 1):
            for column in range(self.column_of(region.x), self.column_of(region.right - 1) + 1):
                yield row, column

    def _core(self, i: int, count: int, extent: int) -> tuple[int, int]:
        """Return start and stop of the core of the i-th of `count` tiles along an axis of `extent` pixels."""
        halo = self.overlap // 2
        start = 0 if i == 0 else i * self.stride + halo
        stop = extent if i == count - 1 else (i + 1) * self.stride + halo
        return start, stop
