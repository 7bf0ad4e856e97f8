"""Reading all tiles of a slide: our reader beside OpenSlide, one thread each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import openslide

from benchmarks.slides import generated
from benchmarks.table import Row
from benchmarks.timing import Usage, in_turns, used
from nuclei_segmentation.operators.load.stage import read_tile
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.slides import open_slide

TILE = 256
CACHE_BYTES = 192 << 20
"""OpenSlide's cache of decoded tiles: as large as ours, not its small default."""


def rows(*, quick: bool) -> list[Row]:
    """Read tiles of 256 from slides that store tiles of 256, and of 240, which fit no tile of ours."""
    side, count = (8_000, 10) if quick else (20_000, 20)
    return [_row(side, stored, count, rounds=3) for stored in (256, 240)]


def _row(side: int, stored: int, count: int, rounds: int) -> Row:
    """Read the first `count` rows of tiles both ways."""
    slide = generated(side, side, stored)
    grid = TileGrid(slide.width, slide.height, TILE)
    best = in_turns(
        {
            "ours": lambda: used(partial(_ours, slide.path, grid, count)),
            "openslide": lambda: used(partial(_openslide, slide.path, grid, count)),
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


def _ours(path: Path, grid: TileGrid, count: int) -> None:
    out = np.empty((TILE, TILE, 3), np.uint8)
    with open_slide(path) as slide:
        for row in range(count):
            for column in range(grid.columns):
                if read_tile(slide, grid, row, column, out):
                    raise RuntimeError(f"{path} is damaged")


def _openslide(path: Path, grid: TileGrid, count: int) -> None:
    with openslide.OpenSlide(path) as slide:
        slide.set_cache(openslide.OpenSlideCache(CACHE_BYTES))
        for row in range(count):
            for column in range(grid.columns):
                region = grid.region(row, column)
                image = slide.read_region((region.x, region.y), 0, (TILE, TILE))
                np.asarray(image.convert("RGB"))
