"""Frozen value types for places on a slide. All lengths are level-0 pixels unless said otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of pixels: columns x … x + width, rows y … y + height."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column behind the region."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """First row behind the region."""
        return self.y + self.height

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    def intersect(self, other: Region) -> Region:
        """Return the part that both share; its width or height is 0 where they share nothing."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        right, bottom = min(self.right, other.right), min(self.bottom, other.bottom)
        return Region(x, y, max(0, right - x), max(0, bottom - y))

    def contains(self, other: Region) -> bool:
        """Tell whether `other` lies wholly inside."""
        return self.x <= other.x and self.y <= other.y and other.right <= self.right and other.bottom <= self.bottom


@dataclass(frozen=True)
class TileGrid:
    """The grid of square tiles that covers a slide.

    Tile (row, column) starts at multiples of the stride ``tile - overlap``. Of each tile only the core is kept:
    the cores partition the slide, and a core ends `overlap` / 2 pixels from its tile's border, except at the slide's
    own border. Tiles reach beyond the slide's right and bottom border; what they read there is a reflection.

    Parameters
    ----------
    width, height : int
        The slide's size in level-0 pixels.
    tile : int
        Side of a tile, a multiple of 16.
    overlap : int
        Pixels that neighbouring tiles share, a multiple of 16 below `tile`.
    """

    width: int
    height: int
    tile: int
    overlap: int = 0

    @property
    def stride(self) -> int:
        """Distance from one tile to the next."""
        return self.tile - self.overlap

    @cached_property
    def columns(self) -> int:
        """Tiles side by side."""
        return max(1, -(-(self.width - self.overlap) // self.stride))

    @cached_property
    def rows(self) -> int:
        """Tiles one below the other."""
        return max(1, -(-(self.height - self.overlap) // self.stride))

    @property
    def bounds(self) -> Region:
        """The slide."""
        return Region(0, 0, self.width, self.height)

    def __len__(self) -> int:
        return self.rows * self.columns

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (row, column) row by row."""
        return ((row, column) for row in range(self.rows) for column in range(self.columns))

    def region(self, row: int, column: int) -> Region:
        """Return the square that tile (row, column) covers; it may reach beyond the slide."""
        return Region(column * self.stride, row * self.stride, self.tile, self.tile)

    def core(self, row: int, column: int) -> Region:
        """Return the part of the slide that tile (row, column) alone decides."""
        x, right = self._core(column, self.columns, self.width)
        y, bottom = self._core(row, self.rows, self.height)
        return Region(x, y, right - x, bottom - y)

    def row_of(self, y: int) -> int:
        """Return the row of tiles whose cores hold pixel row `y`."""
        return min(max(0, (y - self.overlap // 2) // self.stride), self.rows - 1)

    def column_of(self, x: int) -> int:
        """Return the column of tiles whose cores hold pixel column `x`."""
        return min(max(0, (x - self.overlap // 2) // self.stride), self.columns - 1)

    def tiles_under(self, region: Region) -> Iterator[tuple[int, int]]:
        """Yield (row, column) of the tiles whose cores share pixels with `region`, row by row."""
        for row in range(self.row_of(region.y), self.row_of(region.bottom - 1) + 1):
            for column in range(self.column_of(region.x), self.column_of(region.right - 1) + 1):
                yield row, column

    def _core(self, number: int, count: int, end: int) -> tuple[int, int]:
        halo = self.overlap // 2
        start = 0 if number == 0 else number * self.stride + halo
        stop = end if number == count - 1 else (number + 1) * self.stride + halo
        return start, stop
