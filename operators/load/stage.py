"""The stage load: foreground tiles of a slide, in order, as batches of pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels, TileBatch
from nuclei_segmentation.shared.errors import TooMuchDamage
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


class DamageLimit:
    """Counts tiles that could not be read, and ends the work when they are too many.

    Parameters
    ----------
    share : float
        Of all tiles that may be damaged.
    tiles : int
        Number of all tiles.
    """

    def __init__(self, share: float, tiles: int) -> None:
        self._most = share * tiles
        self.damaged = 0

    def count(self, batch: TileBatch) -> None:
        """Count a batch.

        Raises
        ------
        TooMuchDamage
            Too many tiles are damaged by now.
        """
        self.damaged += int(np.count_nonzero(batch.damaged))
        if self.damaged > self._most:
            raise TooMuchDamage(
                f"{self.damaged} tiles could not be read, {self._most:.0f} may be (`damaged.limit`); "
                "copy the slide again, or raise the limit in config.yaml to get what can be read"
            )


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
