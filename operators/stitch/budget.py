"""What stitch needs of memory and disk, known before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from operators.stitch.levels import RUN, SIDE, levels_of
from shared.geometry import TileGrid
from shared.settings import JpegSettings

_BATCH = 16 << 20
"""Bytes of a batch of tiles and maps."""


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes of disk: the image, and the spool beside it until the image is complete."""

    target: int
    spool: int

    @property
    def total(self) -> int:
        """Both."""
        return self.target + self.spool


def ahead(workers: int) -> int:
    """Return how many runs are under way at once: enough that no worker waits for the thread that writes."""
    return 2 * workers + 2


def memory_needed(grid: TileGrid, workers: int, side: int = SIDE) -> int:
    """Return the most bytes of anonymous memory that `stitch` takes.

    Parameters
    ----------
    grid
        The slide's size, tile and overlap.
    workers
        Threads of the crew.
    side
        Side of the file's tiles.
    """
    run = RUN * side * side * 3
    levels = levels_of(grid.width, grid.height, side)
    tiles = sum(level.rows * level.columns for level in levels)
    halves = sum(level.width * side // 2 * 3 for level in levels[1:])
    same = grid.tile == side and grid.overlap == 0
    # A row of tiles waits for the row below, which an outline must know; both may hold a batch that is mostly used up.
    pixels = (grid.width + 2 * RUN * side) * grid.tile * 3 if same else 0
    nuclei = 3 * grid.width * (grid.tile + 8) // 8
    # Under way: pixels, half, segments. Running: what the reader holds, a tile and its overlay, nuclei one byte each.
    tasks = 2 * ahead(workers) * 2 * run + workers * 3 * run
    tables = tiles * 64 + len(grid) * 16
    return halves + pixels + nuclei + tasks + tables + 2 * _BATCH


def space_needed(grid: TileGrid, jpeg: JpegSettings, side: int = SIDE) -> Space:
    """Return the bytes of disk that `stitch` reserves: more than tissue takes, less than noise would.

    Parameters
    ----------
    grid
        The slide's size.
    jpeg
        Quality and subsampling.
    side
        Side of the file's tiles.
    """
    base, *others = (level.rows * level.columns * side * side for level in levels_of(grid.width, grid.height, side))
    rate = _bytes_per_pixel(jpeg)
    fixed = 1 << 16
    return Space(target=int((base + sum(others)) * rate) + fixed, spool=int(sum(others) * rate) + fixed)


def _bytes_per_pixel(jpeg: JpegSettings) -> float:
    colour = {"444": 1.5, "422": 1.2, "420": 1.0}[jpeg.subsampling]
    return colour * 0.04 * (1 + 100 / (105 - jpeg.quality))
