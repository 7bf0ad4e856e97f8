"""Reading tiles of a slide: this program's reader compared with OpenSlide, one thread each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import openslide

from benchmarks.slides import generated
from benchmarks.table import Row
from benchmarks.timing import Usage, alternate, used
from nuclei_segmentation.operators.load.stage import read_tile
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.slides import open_slide

TILE = 256
CACHE_BYTES = 192 << 20
"""Size of OpenSlide's cache of decoded tiles: that of this program's cache, which is larger than its default."""


def rows(*, quick: bool) -> list[Row]:
    """Read tiles of 256 pixels from slides with stored tiles of 256 and of 240 pixels; the latter do not align.

    Parameters
    ----------
    quick : bool
        Whether to use smaller slides.
    """
    side, count = (8_000, 10) if quick else (20_000, 20)
    return [_row(side, stored, count, rounds=3) for stored in (256, 240)]


def _row(side: int, stored: int, count: int, rounds: int) -> Row:
    """Read the first `count` rows of tiles with both readers."""
    slide = generated(side, side, stored)
    grid = TileGrid(slide.width, slide.height, TILE)
    best = alternate(
        {
            "ours": lambda: used(partial(read_here, slide.path, grid, count)),
            "openslide": lambda: used(partial(read_by_openslide, slide.path, grid, count)),
        },
        rounds,
    )
    megapixels = slide.width * count * TILE / 1e6

    def rate(usage: Usage) -> str:
        return f"{megapixels / usage.cpu:.0f} Mpx per CPU second"

    ours, theirs = best["ours"], best["openslide"]
    return Row(
        f"reading, stored tiles of {stored}", rate(ours), f"OpenSlide {rate(theirs)}", theirs.cpu / ours.cpu, 5.0
    )


def read_here(path: Path, grid: TileGrid, count: int) -> None:
    """Read tiles with this program's reader.

    Parameters
    ----------
    path : pathlib.Path
        The slide.
    grid : TileGrid
        Its tiles.
    count : int
        How many rows of tiles to read.
    """
    out = np.empty((TILE, TILE, 3), np.uint8)
    with open_slide(path) as slide:
        for row in range(count):
            for column in range(grid.columns):
                if read_tile(slide, grid, row, column, out):
                    raise RuntimeError(f"{path} is damaged")


def read_by_openslide(path: Path, grid: TileGrid, count: int) -> None:
    """Read tiles with OpenSlide.

    Parameters
    ----------
    path : pathlib.Path
        The slide.
    grid : TileGrid
        Its tiles.
    count : int
        How many rows of tiles to read.
    """
    with openslide.OpenSlide(path) as slide:
        slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        for row in range(count):
            for column in range(grid.columns):
                region = grid.region(row, column)
                image = slide.read_region((region.x, region.y), 0, (TILE, TILE))
                np.asarray(image.convert("RGB"))
