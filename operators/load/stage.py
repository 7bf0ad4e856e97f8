"""The stage load: reads the foreground tiles of a slide, in order, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels, TileBatch
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.slides import Slide

STAGE = "load"


def load(
    slide: Slide,
    grid: TileGrid,
    foreground: npt.NDArray[np.int32],
    pool: WorkerPool,
    batch_size: int,
    *,
    tile_ids: npt.NDArray[np.int64] | None = None,
    keep: Callable[[TileBatch], None] | None = None,
) -> Iterator[TileBatch]:
    """Read foreground tiles.

    Parameters
    ----------
    slide : Slide
        The slide.
    grid : TileGrid
        Its tiles.
    foreground : numpy.ndarray
        (n, 2) int32; row and column of each foreground tile, row by row.
    pool : WorkerPool
        The threads that read.
    batch_size : int
        Tiles per batch. The last batch may be smaller.
    tile_ids : numpy.ndarray or None, optional
        (m,) int64; the foreground tiles to read, in ascending order. None reads all.
    keep : callable or None, optional
        Called with each batch, in the thread that read it.

    Yields
    ------
    TileBatch
        The tiles, in the order of `tile_ids`.
    """
    wanted = np.arange(len(foreground), dtype=np.int64) if tile_ids is None else tile_ids

    def read(start: int) -> TileBatch:
        ids = wanted[start : start + batch_size]
        pixels = np.empty((len(ids), grid.tile, grid.tile, 3), np.uint8)
        damaged = np.zeros(len(ids), np.bool_)
        for i, (row, column) in enumerate(foreground[ids].tolist()):
            damaged[i] = read_tile(slide, grid, row, column, pixels[i])
        batch = TileBatch(ids, pixels, damaged)
        if keep is not None:
            keep(batch)
        return batch

    # Two batches per worker, one in progress and one ready, so that the next stage does not wait for the disk.
    return pool.map(STAGE, read, range(0, len(wanted), batch_size), ahead=2 * pool.workers)


def read_tile(slide: Slide, grid: TileGrid, row: int, column: int, out: Pixels) -> bool:
    """Read one tile. Beyond the border of the slide it is a reflection.

    Parameters
    ----------
    slide : Slide
        The slide.
    grid : TileGrid
        Its tiles.
    row, column : int
        Position of the tile in the grid.
    out : numpy.ndarray
        (T, T, 3) uint8; receives the pixels.

    Returns
    -------
    bool
        Whether the tile is damaged: some of its pixels could not be read.
    """
    region = grid.region(row, column)
    inside = region.intersect(grid.bounds)
    if inside == region:
        return slide.read_into(region, out)
    region_pixels = slide.read(inside)
    below, right = region.height - inside.height, region.width - inside.width
    out[...] = cv2.copyMakeBorder(region_pixels.pixels, 0, below, 0, right, cv2.BORDER_REFLECT_101)
    return region_pixels.damaged
