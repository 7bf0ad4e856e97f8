"""The blocks in which nuclei are found, whatever the tiles: maps are put together before nuclei are told apart.

A block decides to which nuclei its pixels belong. To do so it looks at a window that is larger by a margin: the seed of
a nucleus whose rim reaches into the block may lie outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nuclei_segmentation.shared.geometry import Region

WIDTH, HEIGHT = 1024, 512
MARGIN = 64
"""Pixels that a window adds on each side: more than from the rim of any nucleus to its seed, half-way to its middle."""


@dataclass(frozen=True, slots=True)
class BlockGrid:
    """The grid of blocks that covers a slide.

    Parameters
    ----------
    bounds : Region
        The whole slide.
    """

    bounds: Region

    @property
    def rows(self) -> int:
        """Number of rows of blocks."""
        return -(-self.bounds.height // HEIGHT)

    @property
    def columns(self) -> int:
        """Number of blocks in a row."""
        return -(-self.bounds.width // WIDTH)

    def block(self, row: int, column: int) -> Region:
        """Return the pixels that a block decides on.

        Parameters
        ----------
        row, column : int
            Position of the block.
        """
        return Region(column * WIDTH, row * HEIGHT, WIDTH, HEIGHT).intersect(self.bounds)

    def window(self, row: int, column: int) -> Region:
        """Return the pixels that a block looks at.

        Parameters
        ----------
        row, column : int
            Position of the block.
        """
        block = self.block(row, column)
        grown = Region(block.x - MARGIN, block.y - MARGIN, block.width + 2 * MARGIN, block.height + 2 * MARGIN)
        return grown.intersect(self.bounds)

    def shared(self, row: int, column: int, next_row: int, next_column: int) -> Region:
        """Return the pixels that two blocks both look at.

        Parameters
        ----------
        row, column : int
            Position of one block.
        next_row, next_column : int
            Position of the other.
        """
        return self.window(row, column).intersect(self.window(next_row, next_column))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the position (row, column) of each block, row by row."""
        return ((row, column) for row in range(self.rows) for column in range(self.columns))
