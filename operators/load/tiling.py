"""Which tiles of the grid hold foreground."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.geometry import TileGrid


def foreground_tiles(grid: TileGrid, mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int32]:
    """Return the tiles whose core shares area with a masked pixel.

    The mask covers the whole slide, at any scale and with any ratio of its sides: mask column i is the level-0 columns
    from ``i * width / w`` to ``(i + 1) * width / w``. A core counts as touched by every mask pixel that it shares any
    area with, so rounding only ever adds tiles. The borders are compared as integers; no float can lose a tile.

    A summed-area table (Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984) tells whether a rectangle of
    the mask holds anything; the cost is that of the mask plus that of the answer, whatever the tile's size.

    Parameters
    ----------
    grid : TileGrid
        The slide's tiles.
    mask : numpy.ndarray or None
        (h, w) bool, True where there is tissue; None takes every tile.

    Returns
    -------
    numpy.ndarray
        (n, 2) int32, row and column of each tile, row by row and from left to right.
    """
    if mask is None:
        every = np.empty((grid.rows, grid.columns, 2), np.int32)
        every[..., 0] = np.arange(grid.rows)[:, None]
        every[..., 1] = np.arange(grid.columns)
        return every.reshape(-1, 2)
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"A tissue mask has two axes and at least one pixel, not the shape {mask.shape}.")
    height, width = mask.shape
    rows, row_kind = _footprints(grid.rows, grid.height, grid, height)
    columns, column_kind = _footprints(grid.columns, grid.width, grid, width)
    sums = np.zeros((height + 1, width + 1), np.int32)
    sums[1:, 1:] = mask.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    across = sums[rows[:, 1]] - sums[rows[:, 0]]
    touched = across[:, columns[:, 1]] > across[:, columns[:, 0]]
    in_row = [np.flatnonzero(line).astype(np.int32) for line in touched[:, column_kind]]
    counts = np.array([len(line) for line in in_row])[row_kind]
    found = np.empty((int(counts.sum()), 2), np.int32)
    found[:, 0] = np.repeat(np.arange(grid.rows, dtype=np.int32), counts)
    np.concatenate([in_row[kind] for kind in row_kind], out=found[:, 1])
    return found


def _footprints(
    count: int, extent: int, grid: TileGrid, pixels: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
    """Return the ranges of mask pixels that cores touch along one axis.

    Parameters
    ----------
    count : int
        Tiles along the axis.
    extent : int
        The slide's length along the axis.
    grid : TileGrid
        The tiles.
    pixels : int
        The mask's length along the axis.

    Returns
    -------
    numpy.ndarray
        (k, 2) int64, the first pixel of each range and the first behind it. Tiles smaller than a mask pixel share
        ranges, so k is at most about twice `pixels`.
    numpy.ndarray
        (count,) the range of each tile.
    """
    halo = grid.overlap // 2
    start = np.arange(count, dtype=np.int64) * grid.stride + halo
    stop = start + grid.stride
    start[0], stop[-1] = 0, extent
    ranges = np.stack([start * pixels // extent, -(-stop * pixels // extent)], axis=1)
    is_new = np.r_[True, (np.diff(ranges, axis=0) != 0).any(axis=1)]
    return ranges[is_new], np.cumsum(is_new) - 1
