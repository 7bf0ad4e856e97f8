"""The stage load: foreground tiles of a slide, in order, as batches of pixels."""

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
    batch: int,
    *,
    wanted: npt.NDArray[np.int64] | None = None,
    keep: Callable[[TileBatch], None] | None = None,
) -> Iterator[TileBatch]:
    """Read the foreground tiles.

    Parameters
    ----------
    slide : Slide
        Where to read.
    grid : TileGrid
        The tiles' places.
    foreground : numpy.ndarray
        (n, 2) int32; row and column of each tile, row by row.
    pool : WorkerPool
        Who reads.
    batch : int
        Tiles in one batch; the last may hold fewer.
    wanted : numpy.ndarray or None, optional
        Places in `foreground` of the tiles to read, ascending; None: all.
    keep : callable or None, optional
        Called with each batch by the worker that read it.

    Yields
    ------
    TileBatch
        The tiles in the order of `foreground`.
    """
    order = np.arange(len(foreground), dtype=np.int64) if wanted is None else wanted

    def read(start: int) -> TileBatch:
        tile_ids = order[start : start + batch]
        pixels = np.empty((len(tile_ids), grid.tile, grid.tile, 3), np.uint8)
        damaged = np.zeros(len(tile_ids), np.bool_)
        for place, (row, column) in enumerate(foreground[tile_ids].tolist()):
            damaged[place] = read_tile(slide, grid, row, column, pixels[place])
        tiles = TileBatch(tile_ids, pixels, damaged)
        if keep is not None:
            keep(tiles)
        return tiles

    # two batches per worker: one in work, one ready, so that the next stage never waits for a disk
    return pool.map(STAGE, read, range(0, len(order), batch), ahead=2 * pool.workers)


def read_tile(slide: Slide, grid: TileGrid, row: int, column: int, out: Pixels) -> bool:
    """Read one tile, reflected beyond the slide's border.

    Parameters
    ----------
    slide, grid, row, column : Slide, TileGrid, int, int
        What to read.
    out : numpy.ndarray
        (T, T, 3) uint8; takes the pixels.

    Returns
    -------
    bool
        Whether any of it could not be read.
    """
    region = grid.region(row, column)
    inside = region.intersect(grid.bounds)
    if inside == region:
        return slide.read_into(region, out)
    read = slide.read(inside)
    below, right = region.height - inside.height, region.width - inside.width
    out[...] = cv2.copyMakeBorder(read.pixels, 0, below, 0, right, cv2.BORDER_REFLECT_101)
    return read.damaged
