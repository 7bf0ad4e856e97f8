"""Counts the nuclei of a slide as its maps arrive, tile by tile and in any order. Each nucleus counts once.

A nucleus is a connected piece of seed (`operators.filter.nuclei`) in the map of the whole slide. Each tile contributes
only its core, and the cores cover the slide once. Pieces that touch across the border of two cores are one nucleus. The
number is therefore that of the whole map, whatever the order of the tiles and the number of threads. Without overlap, a
nucleus on a border of tiles also counts once, if both halves were found and their seeds touch there.

Once all neighbours of a tile are counted, only 8 bytes remain of it for each piece at its border.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.filter.nuclei import SMALLEST_SEED, Labels, label_seeds, seed_pixels
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import TileGrid

_NEIGHBOURS = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""From a tile to its neighbours: rows down, columns to the right."""


class NucleusCount:
    """The number of nuclei in the tiles counted so far.

    Parameters
    ----------
    grid : TileGrid
        The grid of the tiles.
    tile_positions : numpy.ndarray
        (n, 2) int32: row and column of the tiles whose maps will arrive.
    channels : Sequence of str
        Names of the maps.
    """

    def __init__(self, grid: TileGrid, tile_positions: npt.NDArray[np.int32], channels: Sequence[str]) -> None:
        self._grid, self._tile_positions, self._channels = grid, tile_positions, tuple(channels)
        # A frame of zeros around the grid, so that a tile at the edge has neighbours on all sides.
        self._expected = np.zeros((grid.rows + 2, grid.columns + 2), np.uint8)
        self._expected[tile_positions[:, 0] + 1, tile_positions[:, 1] + 1] = 1
        self._borders: dict[tuple[int, int], _Border] = {}
        self._inner_nuclei = 0
        # For each piece at a border: its parent in a union-find forest, and its pixels in its own core.
        self._parents, self._pixels = array("i"), array("i")
        self._lock = threading.Lock()

    def add(self, tile_id: int, maps: Pixels) -> None:
        """Count a tile. Call it once for each tile, from any thread.

        Parameters
        ----------
        tile_id : int
            The tile's row in `tile_positions`.
        maps : numpy.ndarray
            (T, T, C) uint8.
        """
        row, column = self._tile_positions[tile_id].tolist()
        region, core = self._grid.region(row, column), self._grid.core(row, column)
        top, left = core.y - region.y, core.x - region.x
        labels = label_seeds(seed_pixels(maps[top : top + core.height, left : left + core.width], self._channels))
        pixels = np.bincount(labels.ravel())
        at_border = np.zeros(len(pixels), bool)
        for line in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
            at_border[line] = True
        at_border[0] = pixels[0] = 0
        inner_nuclei = int(np.count_nonzero(pixels[~at_border] >= SMALLEST_SEED))
        border_labels = np.flatnonzero(at_border)
        with self._lock:
            first = len(self._parents)
            self._inner_nuclei += inner_nuclei
            self._parents.extend(range(first, first + len(border_labels)))
            self._pixels.extend(pixels[border_labels].tolist())
            piece_ids = np.full(len(pixels), -1, np.int32)
            piece_ids[border_labels] = np.arange(first, first + len(border_labels), dtype=np.int32)
            self._join(row, column, _Border(labels, piece_ids))

    @property
    def total(self) -> int:
        """The number of nuclei in all tiles that were added."""
        with self._lock:
            roots = np.array(self._parents, np.int32)
            while (roots != roots[roots]).any():
                roots = roots[roots]
            pixels = np.bincount(roots, weights=self._pixels)
            return self._inner_nuclei + int(np.count_nonzero(pixels >= SMALLEST_SEED))

    def _join(self, row: int, column: int, border: _Border) -> None:
        """Join a tile's pieces with those of the neighbours counted before. The caller holds `_lock`."""
        border.neighbours_left = int(self._expected[row : row + 3, column : column + 3].sum()) - 1
        for down, right in _NEIGHBOURS:
            position = (row + down, column + right)
            neighbour = self._borders.get(position)
            if neighbour is None:
                continue
            for piece, other in border.touching(neighbour, down, right):
                self._unite(piece, other)
            border.neighbours_left -= 1
            neighbour.neighbours_left -= 1
            if not neighbour.neighbours_left:
                del self._borders[position]
        if border.neighbours_left:
            self._borders[row, column] = border

    def _root(self, piece: int) -> int:
        parents = self._parents
        while parents[piece] != piece:
            parents[piece] = parents[parents[piece]]
            piece = parents[piece]
        return piece

    def _unite(self, piece: int, other: int) -> None:
        first, second = sorted((self._root(piece), self._root(other)))
        self._parents[second] = first


class _Border:
    """The ids of the pieces along the four sides of a core, -1 between them.

    Attributes
    ----------
    neighbours_left : int
        How many neighbours are still to be counted.
    """

    def __init__(self, labels: Labels, piece_ids: npt.NDArray[np.int32]) -> None:
        self.neighbours_left = 0
        self._lines = {
            (-1, 0): piece_ids[labels[0]],
            (1, 0): piece_ids[labels[-1]],
            (0, -1): piece_ids[labels[:, 0]],
            (0, 1): piece_ids[labels[:, -1]],
        }

    def touching(self, neighbour: _Border, down: int, right: int) -> set[tuple[int, int]]:
        """Return the pairs of pieces, here and there, that touch; `down` and `right` say where the neighbour lies."""
        if down and right:  # only the pixels at the two corners can touch
            own_id = self._lines[down, 0][0 if right < 0 else -1]
            other_id = neighbour._lines[-down, 0][-1 if right < 0 else 0]
            return {(int(own_id), int(other_id))} if own_id >= 0 and other_id >= 0 else set()
        own, facing = self._lines[down, right], neighbour._lines[-down, -right]
        pairs: set[tuple[int, int]] = set()
        length = len(own)
        for shift in (-1, 0, 1):
            own_ids = own[max(0, -shift) : length - max(0, shift)]
            other_ids = facing[max(0, shift) : length - max(0, -shift)]
            both = (own_ids >= 0) & (other_ids >= 0)
            pairs.update(zip(own_ids[both].tolist(), other_ids[both].tolist(), strict=True))
        return pairs
