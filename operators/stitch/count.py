"""Counts the nuclei of a slide as its maps arrive, tile by tile. Each nucleus counts once.

A nucleus is a connected piece of seed (`operators.stitch.nuclei`) in the map of the whole slide. Each tile contributes
only its core, and the cores cover the slide once. Pieces that touch across the border of two cores are one nucleus. The
number is therefore that of the whole map, whatever the tiles. Without overlap, a nucleus on a border of tiles also
counts once, if both halves were found and their seeds touch there.

The workers find the pieces of each core (`find_pieces`); one thread joins them, row by row (`NucleusCount`). Of a tile
that has its neighbours below, only 8 bytes remain for each piece at its border.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.nuclei import SMALLEST_SEED, label_seeds, seed_pixels
from nuclei_segmentation.shared.batches import Pixels

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


def find_pieces(maps: Pixels, channels: Sequence[str]) -> CorePieces | None:
    """Return the pieces of seed in the core of a tile, or None if there are none.

    Parameters
    ----------
    maps : numpy.ndarray
        (h, w, C) uint8, the tile's core.
    channels : Sequence of str
        Names of the maps.
    """
    seeds = seed_pixels(maps, channels)
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
    """The number of nuclei in the tiles counted so far."""

    def __init__(self) -> None:
        self._inner_nuclei = 0
        # For each piece at a border: its parent in a union-find forest, and its pixels in its own core.
        self._parents, self._sizes = array("i"), array("i")
        self._row = -1
        # By column, the tiles of this row and of the row above: their pieces, and the number of the first of them.
        self._here: dict[int, tuple[CorePieces, int]] = {}
        self._above: dict[int, tuple[CorePieces, int]] = {}

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
            self._above, self._here = (self._here if row == self._row + 1 else {}), {}
            self._row = row
        if pieces is None:
            return
        self._inner_nuclei += pieces.inner
        if not len(pieces.sizes):
            return
        first = len(self._parents)
        self._parents.extend(range(first, first + len(pieces.sizes)))
        self._sizes.extend(pieces.sizes.tolist())
        self._here[column] = pieces, first
        if (found := self._here.get(column - 1)) is not None:
            self._unite(_facing(pieces.left, found[0].right), first, found[1])
        if (found := self._above.get(column)) is not None:
            self._unite(_facing(pieces.top, found[0].bottom), first, found[1])
        if (found := self._above.get(column - 1)) is not None:
            self._unite(_facing(pieces.top[:1], found[0].bottom[-1:]), first, found[1])
        if (found := self._above.get(column + 1)) is not None:
            self._unite(_facing(pieces.top[-1:], found[0].bottom[:1]), first, found[1])

    @property
    def total(self) -> int:
        """The number of nuclei in all tiles that were added."""
        roots = np.array(self._parents, np.int32)
        while (roots != roots[roots]).any():
            roots = roots[roots]
        sizes = np.bincount(roots, weights=self._sizes)
        return self._inner_nuclei + int(np.count_nonzero(sizes >= SMALLEST_SEED))

    def _unite(self, pairs: Iterator[tuple[int, int]], first: int, other_first: int) -> None:
        for piece, other in pairs:
            low, high = sorted((self._root(first + piece - 1), self._root(other_first + other - 1)))
            self._parents[high] = low

    def _root(self, piece: int) -> int:
        parents = self._parents
        while parents[piece] != piece:
            parents[piece] = parents[parents[piece]]
            piece = parents[piece]
        return piece


def _facing(own: Line, other: Line) -> Iterator[tuple[int, int]]:
    """Yield the pairs of pieces on two facing sides that touch, by edges or corners. A pair may come several times."""
    if not own.any() or not other.any():
        return
    for shift in (-1, 0, 1):
        own_part = own[max(0, -shift) : len(own) - max(0, shift)]
        other_part = other[max(0, shift) : len(other) - max(0, -shift)]
        both = np.flatnonzero((own_part != 0) & (other_part != 0))
        own_numbers, other_numbers = own_part[both], other_part[both]
        # Neighbouring pixels mostly belong to the same pair.
        new = np.ones(len(both), bool)
        new[1:] = (own_numbers[1:] != own_numbers[:-1]) | (other_numbers[1:] != other_numbers[:-1])
        yield from zip(own_numbers[new].tolist(), other_numbers[new].tolist(), strict=True)
