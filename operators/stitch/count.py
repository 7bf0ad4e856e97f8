"""Counts the nuclei of a slide as its maps arrive, tile by tile. Each nucleus counts once.

A nucleus is a connected piece of seed (`shared.nuclei`) in the map of the whole slide. Each tile contributes
only its core, and the cores cover the slide once. Pieces that touch across the border of two cores are one nucleus. The
number is therefore that of the whole map, whatever the tiles. Without overlap, a nucleus on a border of tiles also
counts once, if both halves were found and their seeds touch there.

The workers find the pieces of each core (`find_pieces`); one thread joins them, row by row (`NucleusCount`). Once a row
is joined to the next, 8 bytes remain of it for each piece at the border of a core.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.nuclei import NUCLEUS_LIMIT, SMALLEST_SEED, label_seeds, seed_pixels

Line = npt.NDArray[np.int32]
"""The numbers of the pieces along one side of a core; 0 where there is none."""


@dataclass(frozen=True, slots=True)
class CorePieces:
    """The pieces of seed in the core of a tile.

    Attributes
    ----------
    inner : int
        Nuclei that do not touch the core's border.
    sizes : numpy.ndarray
        (n,) int32: the pixels of each piece that touches the border.
    top, bottom, left, right : numpy.ndarray
        Those n pieces along each side, numbered from 1 in the order of `sizes`.
    """

    inner: int
    sizes: Line
    top: Line
    bottom: Line
    left: Line
    right: Line


def find_pieces(maps: Pixels, channels: Sequence[str], limit: int = NUCLEUS_LIMIT) -> CorePieces | None:
    """Return the pieces of seed in the core of a tile, or None if there are none.

    Parameters
    ----------
    maps : numpy.ndarray
        (h, w, C) uint8, the tile's core.
    channels : Sequence of str
        Names of the maps.
    limit : int, optional
        A pixel is nucleus where the probability is above this.
    """
    seeds = seed_pixels(maps, channels, limit)
    if not cv2.hasNonZero(seeds.view(np.uint8)):
        return None
    labels = label_seeds(seeds)
    # Only the pixels of seeds are counted: they are few, and NumPy counts slowly.
    sizes = np.bincount(labels[seeds])
    sides = labels[0], labels[-1], labels[:, 0], labels[:, -1]
    at_border = np.zeros(len(sizes), bool)
    for side in sides:
        at_border[side] = True
    at_border[0] = False
    numbers = np.cumsum(at_border, dtype=np.int32) * at_border
    inner = int(np.count_nonzero(sizes[1:][~at_border[1:]] >= SMALLEST_SEED))
    top, bottom, left, right = (numbers[side] for side in sides)
    return CorePieces(inner, sizes[at_border].astype(np.int32), top, bottom, left, right)


class NucleusCount:
    """The number of nuclei in the tiles counted so far.

    Parameters
    ----------
    grid : TileGrid
        The grid of the tiles.
    """

    def __init__(self, grid: TileGrid) -> None:
        self._grid = grid
        self._inner_nuclei = 0
        # For each piece at a border: its parent in a union-find forest, and its pixels in its core. Piece 0 is none.
        self._parents, self._sizes = array("i", [0]), array("i", [0])
        self._row = -1
        # The pieces along the borders of the cores of this row: the horizontal ones as lines through the whole slide,
        # which brings the corners of diagonal neighbours together, the vertical ones as a line for each tile.
        self._above = np.zeros(grid.width, np.int32)
        self._top, self._bottom = self._above.copy(), self._above.copy()
        self._left = self._right = np.zeros((grid.columns, 0), np.int32)

    def add(self, row: int, column: int, pieces: CorePieces | None) -> None:
        """Count a tile. Tiles come in row-major order; those that are missing separate what lies on either side.

        Parameters
        ----------
        row, column : int
            Position of the tile in the grid.
        pieces : CorePieces or None
            From `find_pieces`.
        """
        if row != self._row:
            self._start_row(row)
        if pieces is None:
            return
        self._inner_nuclei += pieces.inner
        if not len(pieces.sizes):
            return
        core = self._grid.core(row, column)
        before = len(self._parents) - 1
        self._parents.extend(range(before + 1, before + 1 + len(pieces.sizes)))
        self._sizes.extend(pieces.sizes.tolist())
        for side, line in (
            (pieces.top, self._top[core.x : core.right]),
            (pieces.bottom, self._bottom[core.x : core.right]),
            (pieces.left, self._left[column]),
            (pieces.right, self._right[column]),
        ):
            np.add(side, before, out=line, where=side > 0)

    @property
    def total(self) -> int:
        """The number of nuclei in all tiles that were added."""
        self._join()
        roots = np.array(self._parents, np.int32)
        while (roots != roots[roots]).any():
            roots = roots[roots]
        sizes = np.bincount(roots, weights=self._sizes)
        return self._inner_nuclei + int(np.count_nonzero(sizes >= SMALLEST_SEED))

    def _start_row(self, row: int) -> None:
        self._join()
        self._above = self._bottom if row == self._row + 1 else np.zeros_like(self._bottom)
        self._top, self._bottom = np.zeros_like(self._top), np.zeros_like(self._bottom)
        height = self._grid.core(row, 0).height
        self._left, self._right = (np.zeros((self._grid.columns, height), np.int32) for _ in range(2))
        self._row = row

    def _join(self) -> None:
        """Join the pieces of this row with each other and with those of the row above."""
        for ours, theirs in ((self._top, self._above), (self._left[1:], self._right[:-1])):
            for piece, other in _touching(ours, theirs):
                low, high = sorted((self._root(piece), self._root(other)))
                self._parents[high] = low

    def _root(self, piece: int) -> int:
        parents = self._parents
        while parents[piece] != piece:
            parents[piece] = parents[parents[piece]]
            piece = parents[piece]
        return piece


def _touching(ours: Line, theirs: Line) -> Iterator[tuple[int, int]]:
    """Yield the pairs of pieces on facing lines that touch, by edges or corners. A pair may come several times."""
    length = ours.shape[-1]
    for shift in (-1, 0, 1):
        our_part = ours[..., max(0, -shift) : length - max(0, shift)]
        their_part = theirs[..., max(0, shift) : length - max(0, -shift)]
        both = (our_part != 0) & (their_part != 0)
        pairs = np.stack((our_part[both], their_part[both]))
        # Neighbouring pixels mostly belong to the same pair.
        new = np.ones(pairs.shape[1], bool)
        new[1:] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
        yield from zip(*pairs[:, new].tolist(), strict=True)
