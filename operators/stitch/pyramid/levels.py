"""The shape of the pyramid: its levels, and their spans of tiles, which are the units of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nuclei_segmentation.shared.geometry import Region

SIDE = 256
"""Side of a TIFF tile in pixels, a multiple of 16. The tiles that are inferred may be of another size."""

SPAN_TILES = 8
"""Tiles in a span: consecutive tiles of a row that one task renders, so that they share Python's cost per task."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid, divided into rows of tiles, and these into spans.

    Attributes
    ----------
    number : int
        0 is the full resolution; each next level has half the width and height, rounded up.
    width, height : int
        Size in pixels of this level.
    side : int
        Side of a tile in pixels of this level.
    """

    number: int
    width: int
    height: int
    side: int

    @property
    def rows(self) -> int:
        """Number of rows of tiles."""
        return -(-self.height // self.side)

    @property
    def columns(self) -> int:
        """Number of tiles in a row."""
        return -(-self.width // self.side)

    @property
    def spans(self) -> int:
        """Number of spans in a row; the last may be shorter than the others."""
        return -(-self.columns // SPAN_TILES)

    @property
    def bounds(self) -> Region:
        """The whole level, in its own pixels."""
        return Region(0, 0, self.width, self.height)

    def region(self, row: int, span: int) -> Region:
        """Return the region of a span, in pixels of this level.

        Parameters
        ----------
        row : int
            Row of tiles.
        span : int
            Number of the span in its row.
        """
        length = SPAN_TILES * self.side
        return Region(span * length, row * self.side, length, self.side).intersect(self.bounds)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (row, span) row by row: the order of the tiles in the file."""
        return ((row, span) for row in range(self.rows) for span in range(self.spans))

    def children(self, row: int, span: int, finer: Level) -> int:
        """Return how many spans of the next finer level make up a span of this level: 1, 2 or 4.

        Parameters
        ----------
        row : int
            Row of the span in this level.
        span : int
            Number of the span in its row.
        finer : Level
            The next finer level.
        """
        return min(2, finer.rows - 2 * row) * min(2, finer.spans - 2 * span)


def levels_of(width: int, height: int, side: int = SIDE) -> tuple[Level, ...]:
    """Return the levels of an image, down to the first that fits into one tile.

    Parameters
    ----------
    width, height : int
        Size of level 0 in pixels.
    side : int, optional
        Side of a tile in pixels.
    """
    levels = [Level(0, width, height, side)]
    while max(width, height) > side:
        width, height = -(-width // 2), -(-height // 2)
        levels.append(Level(len(levels), width, height, side))
    return tuple(levels)
