"""The stage load: foreground tiles of a slide, in order, as batches of pixels."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import numpy.typing as npt

from shared.batches import Pixels, TileBatch
from shared.crew import Crew
from shared.geometry import TileGrid
from shared.slides import Slide

STAGE = "load"


def load(
    slide: Slide, grid: TileGrid, foreground: npt.NDArray[np.int32], crew: Crew, batch: int
) -> Iterator[TileBatch]:
    """Read the foreground tiles.

    Parameters
    ----------
    slide
        Where to read.
    grid
        The tiles' places.
    foreground
        (n, 2) int32; row and column of each tile, row by row.
    crew
        Who reads.
    batch
        Tiles in one batch; the last may hold fewer.

    Yields
    ------
    The tiles in the order of `foreground`.
    """

    def read(start: int) -> TileBatch:
        stop = min(start + batch, len(foreground))
        pixels = np.empty((stop - start, grid.tile, grid.tile, 3), np.uint8)
        damaged = np.zeros(stop - start, np.bool_)
        for place, (row, column) in enumerate(foreground[start:stop].tolist()):
            damaged[place] = read_tile(slide, grid, row, column, pixels[place])
        return TileBatch(np.arange(start, stop, dtype=np.int64), pixels, damaged)

    # two batches per worker: one in work, one ready, so that the next stage never waits for a disk
    return crew.map(STAGE, read, range(0, len(foreground), batch), ahead=2 * crew.workers)


def read_tile(slide: Slide, grid: TileGrid, row: int, column: int, out: Pixels) -> bool:
    """Read one tile, reflected beyond the slide's border.

    Parameters
    ----------
    slide, grid, row, column
        What to read.
    out
        (T, T, 3) uint8; takes the pixels.

    Returns
    -------
    Whether any of it could not be read.
    """
    window = grid.window(row, column)
    inside = window.intersect(grid.bounds)
    if inside == window:
        return slide.read_into(window, out)
    region = slide.read(inside)
    below, right = window.height - inside.height, window.width - inside.width
    out[...] = cv2.copyMakeBorder(region.pixels, 0, below, 0, right, cv2.BORDER_REFLECT_101)
    return region.damaged
