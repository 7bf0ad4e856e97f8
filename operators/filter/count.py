"""Counts the nuclei of a slide while its maps pass, tile by tile and in any order, each nucleus once.

A nucleus is a connected piece of seed (`operators.filter.nuclei`) in the map of the whole slide. Of each tile only the
core counts, and the cores partition the slide; pieces that meet across the border of two cores are one. So the number
is that of the whole map, whatever the tiles' order and the threads. Without overlap, too, a nucleus on a border of
tiles is one, if both halves were found and their seeds meet there.

Of a tile whose neighbours have all been counted nothing is kept but 8 bytes for each piece at its border.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.filter.nuclei import SPECK, Labels, label_seeds, seeds
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import TileGrid

_SIDES = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""From a tile to its neighbours, in rows and columns."""


class NucleusCount:
    """The nuclei of the tiles seen so far.

    Parameters
    ----------
    grid : TileGrid
        The grid of the tiles.
    foreground : numpy.ndarray
        (n, 2) int32, row and column of the tiles that maps arrive for.
    channels : Sequence of str
        Names of the maps.
    """

    def __init__(self, grid: TileGrid, foreground: npt.NDArray[np.int32], channels: Sequence[str]) -> None:
        self._grid, self._foreground, self._channels = grid, foreground, tuple(channels)
        there = np.zeros((grid.rows + 2, grid.columns + 2), np.uint8)
        there[foreground[:, 0] + 1, foreground[:, 1] + 1] = 1
        self._there = there  # with a frame of none around
        self._borders: dict[tuple[int, int], _Border] = {}
        self._inner = 0
        # of the pieces at borders: another piece that is the same nucleus, or itself, and the pixels in this core
        self._same, self._pixels = array("i"), array("i")
        self._lock = threading.Lock()

    def add(self, tile_id: int, maps: Pixels) -> None:
        """Count a tile; any thread may do so at any time, once for each tile.

        Parameters
        ----------
        tile_id : int
            The tile's place in `foreground`.
        maps : numpy.ndarray
            (T, T, C) uint8.
        """
        row, column = self._foreground[tile_id].tolist()
        region, core = self._grid.region(row, column), self._grid.core(row, column)
        top, left = core.y - region.y, core.x - region.x
        pieces = label_seeds(seeds(maps[top : top + core.height, left : left + core.width], self._channels))
        pixels = np.bincount(pieces.ravel())
        at_border = np.zeros(len(pixels), bool)
        for line in (pieces[0], pieces[-1], pieces[:, 0], pieces[:, -1]):
            at_border[line] = True
        at_border[0] = pixels[0] = 0
        inner = int(np.count_nonzero(pixels[~at_border] >= SPECK))
        names = np.flatnonzero(at_border)
        with self._lock:
            first = len(self._same)
            self._inner += inner
            self._same.extend(range(first, first + len(names)))
            self._pixels.extend(pixels[names].tolist())
            renamed = np.full(len(pixels), -1, np.int32)
            renamed[names] = np.arange(first, first + len(names), dtype=np.int32)
            self._join(row, column, _Border(pieces, renamed))

    @property
    def total(self) -> int:
        """The number of nuclei in all tiles that were added."""
        with self._lock:
            same = np.array(self._same, np.int32)
            while (same != same[same]).any():
                same = same[same]
            pixels = np.bincount(same, weights=self._pixels)
            return self._inner + int(np.count_nonzero(pixels >= SPECK))

    def _join(self, row: int, column: int, border: _Border) -> None:
        """Join a tile's pieces with those of the neighbours that are there; `_lock` is held."""
        around = self._there[row : row + 3, column : column + 3]
        border.missing = int(around.sum()) - 1
        for down, right in _SIDES:
            place = (row + down, column + right)
            other = self._borders.get(place)
            if other is None:
                continue
            for piece, neighbour in border.meetings(other, down, right):
                self._unite(piece, neighbour)
            border.missing -= 1
            other.missing -= 1
            if not other.missing:
                del self._borders[place]
        if border.missing:
            self._borders[row, column] = border

    def _root(self, piece: int) -> int:
        same = self._same
        while same[piece] != piece:
            same[piece] = same[same[piece]]
            piece = same[piece]
        return piece

    def _unite(self, piece: int, other: int) -> None:
        first, second = sorted((self._root(piece), self._root(other)))
        self._same[second] = first


class _Border:
    """The names of the pieces along the four sides of a core, -1 between them.

    Attributes
    ----------
    missing : int
        Neighbours that are still to come.
    """

    def __init__(self, pieces: Labels, names: npt.NDArray[np.int32]) -> None:
        self.missing = 0
        self._lines = {
            (-1, 0): names[pieces[0]],
            (1, 0): names[pieces[-1]],
            (0, -1): names[pieces[:, 0]],
            (0, 1): names[pieces[:, -1]],
        }

    def meetings(self, other: _Border, down: int, right: int) -> set[tuple[int, int]]:
        """Return which pieces meet which of a neighbour that lies `down` and `right` of here, each -1, 0 or 1."""
        if down and right:  # one pixel each, at the corners
            here = self._lines[down, 0][0 if right < 0 else -1]
            there = other._lines[-down, 0][-1 if right < 0 else 0]
            return {(int(here), int(there))} if here >= 0 and there >= 0 else set()
        line, facing = self._lines[down, right], other._lines[-down, -right]
        pairs: set[tuple[int, int]] = set()
        last = len(line)
        for shift in (-1, 0, 1):
            one = line[max(0, -shift) : last - max(0, shift)]
            two = facing[max(0, shift) : last - max(0, -shift)]
            both = (one >= 0) & (two >= 0)
            pairs.update(zip(one[both].tolist(), two[both].tolist(), strict=True))
        return pairs
