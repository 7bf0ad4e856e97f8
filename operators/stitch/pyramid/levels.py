"""The shape of the pyramid: its levels, and the runs of tiles that are the units of work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nuclei_segmentation.shared.geometry import Region

SIDE = 256
"""Side of a TIFF tile in pixels, a multiple of 16. It need not be the side of the tiles that are inferred."""

RUN = 8
"""Consecutive tiles of a row that one task renders, so that what Python costs per task is shared by eight tiles."""


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the pyramid, cut into rows of tiles, and these into runs.

    Attributes
    ----------
    number
        0 is the full resolution; each next level has half the width and height, rounded up.
    width, height
        Size in pixels of this level.
    side
        Side of a tile in pixels of this level.
    """

    number: int
    width: int
    height: int
    side: int

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return -(-self.height // self.side)

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.width // self.side)

    @property
    def runs(self) -> int:
        """Runs in a row; the last may be shorter than the others."""
        return -(-self.columns // RUN)

    @property
    def bounds(self) -> Region:
        """The whole level, in its own pixels."""
        return Region(0, 0, self.width, self.height)

    def region(self, row: int, run: int) -> Region:
        """Return the pixels of a run, in pixels of this level."""
        length = RUN * self.side
        return Region(run * length, row * self.side, length, self.side).intersect(self.bounds)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (row, run) row by row: the order of the tiles in the file."""
        return ((row, run) for row in range(self.rows) for run in range(self.runs))

    def children(self, row: int, run: int, below: Level) -> int:
        """Return from how many runs of the level below (the finer one) a run of this level is made: 1, 2 or 4."""
        return min(2, below.rows - 2 * row) * min(2, below.runs - 2 * run)


def levels_of(width: int, height: int, side: int = SIDE) -> tuple[Level, ...]:
    """Return the levels of an image, down to the first that fits into one tile.

    Parameters
    ----------
    width, height
        Size of level 0 in pixels.
    side
        Side of a tile.
    """
    levels = [Level(0, width, height, side)]
    while max(width, height) > side:
        width, height = -(-width // 2), -(-height // 2)
        levels.append(Level(len(levels), width, height, side))
    return tuple(levels)
