"""Which tiles of the grid are foreground."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.geometry import TileGrid


def foreground_tiles(grid: TileGrid, mask: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int32]:
    """Return the tiles whose core contains tissue.

    The mask covers the whole slide, at any scale and any aspect ratio: column i of the mask covers the level-0 columns
    from ``i * width / w`` to ``(i + 1) * width / w``. A tile is foreground if its core shares any area with a mask
    pixel that is True, so rounding can only add tiles. Positions are compared as integers, so no tile is lost to
    rounding errors of floats.

    A summed-area table (Crow, "Summed-area tables for texture mapping", SIGGRAPH 1984) tells whether a rectangle of
    the mask contains tissue. The cost is proportional to the size of the mask plus the number of tiles returned, and
    does not depend on the size of a tile.

    Parameters
    ----------
    grid : TileGrid
        The tiles of the slide.
    mask : numpy.ndarray or None
        (h, w) bool; True on tissue. None returns all tiles.

    Returns
    -------
    numpy.ndarray
        (n, 2) int32; row and column of each tile, row by row and from left to right.

    Raises
    ------
    ValueError
        The mask does not have two axes, or is empty.
    """
    if mask is None:
        every = np.empty((grid.rows, grid.columns, 2), np.int32)
        every[..., 0] = np.arange(grid.rows)[:, None]
        every[..., 1] = np.arange(grid.columns)
        return every.reshape(-1, 2)
    if mask.ndim != 2 or mask.size == 0:
        raise ValueError(f"a tissue mask must have two axes and at least one pixel, not the shape {mask.shape}")
    height, width = mask.shape
    row_ranges, row_range = _mask_ranges(grid.rows, grid.height, grid, height)
    column_ranges, column_range = _mask_ranges(grid.columns, grid.width, grid, width)
    sums = np.zeros((height + 1, width + 1), np.int32)
    sums[1:, 1:] = mask.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    across = sums[row_ranges[:, 1]] - sums[row_ranges[:, 0]]
    has_tissue = across[:, column_ranges[:, 1]] > across[:, column_ranges[:, 0]]
    columns = [np.flatnonzero(line).astype(np.int32) for line in has_tissue[:, column_range]]
    counts = np.array([len(line) for line in columns])[row_range]
    foreground = np.empty((int(counts.sum()), 2), np.int32)
    foreground[:, 0] = np.repeat(np.arange(grid.rows, dtype=np.int32), counts)
    np.concatenate([columns[i] for i in row_range], out=foreground[:, 1])
    return foreground


def _mask_ranges(
    count: int, extent: int, grid: TileGrid, pixels: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.intp]]:
    """Return the ranges of mask pixels under the cores along one axis.

    Parameters
    ----------
    count : int
        Number of tiles along the axis.
    extent : int
        Length of the slide along the axis, in level-0 pixels.
    grid : TileGrid
        The tiles.
    pixels : int
        Length of the mask along the axis, in mask pixels.

    Returns
    -------
    numpy.ndarray
        (k, 2) int64; start and stop of each distinct range. Tiles smaller than a mask pixel share ranges, so k is at
        most about twice `pixels`.
    numpy.ndarray
        (count,) intp; for each tile, which of the k ranges is under its core.
    """
    halo = grid.overlap // 2
    start = np.arange(count, dtype=np.int64) * grid.stride + halo
    stop = start + grid.stride
    start[0], stop[-1] = 0, extent
    ranges = np.stack([start * pixels // extent, -(-stop * pixels // extent)], axis=1)
    is_new = np.r_[True, (np.diff(ranges, axis=0) != 0).any(axis=1)]
    return ranges[is_new], np.cumsum(is_new) - 1
