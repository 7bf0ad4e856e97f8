"""Estimates the image's size, and the time that writing a tile takes, from a few tiles before the work starts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.pyramid.jpeg_segments import encode_jpeg
from nuclei_segmentation.operators.stitch.pyramid.levels import levels_of
from nuclei_segmentation.operators.stitch.pyramid.spans import pad_tile
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.resources import MIB
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import JpegSettings
from nuclei_segmentation.shared.slides.slide import Slide

PROBES = 6
"""Tiles of each kind, foreground and background, that are encoded for the estimate."""
MARGIN = 1.5
"""The image is assumed to be at most this many times as large as extrapolated."""


@dataclass(frozen=True, slots=True)
class ImageEstimate:
    """What writing the image will need.

    Attributes
    ----------
    tile_seconds : float
        Worker seconds to read and encode a tile.
    image : int
        Bytes of image.tif; an upper bound, which is reserved.
    """

    tile_seconds: float
    image: int

    @property
    def spool(self) -> int:
        """Bytes of the spool, needed in addition while the image is written."""
        return self.image // 4


def estimate_image(
    slide: Slide, grid: TileGrid, foreground: npt.NDArray[np.int32], jpeg: JpegSettings, pool: WorkerPool
) -> ImageEstimate:
    """Encode a few tiles and extrapolate.

    Parameters
    ----------
    slide : Slide
        The slide.
    grid : TileGrid
        Its grid of tiles.
    foreground : numpy.ndarray
        (n, 2) int32, row and column of each foreground tile.
    jpeg : JpegSettings
        How the image will be compressed.
    pool : WorkerPool
        The workers.
    """
    foreground_numbers = foreground[:, 0].astype(np.int64) * grid.columns + foreground[:, 1]
    some = spread(len(grid), 8 * PROBES)
    background_numbers = some[~np.isin(some, foreground_numbers)]
    probe = partial(_probe, slide, grid, jpeg)
    front = list(pool.map("stitch", probe, foreground_numbers[spread(len(foreground_numbers))], ahead=PROBES))
    back = list(pool.map("stitch", probe, background_numbers[spread(len(background_numbers))], ahead=PROBES))
    n, rest = len(foreground), len(grid) - len(foreground)
    encoded = n * mean([size for _, size in front or back]) + rest * mean([size for _, size in back or front])
    # where tiles overlap, more pixels are read than written
    shrink = (grid.stride / grid.tile) ** 2
    # all reduced levels together are a third of level 0; the rest is for colour profiles, offsets, sizes, tags
    pages = len(levels_of(grid.width, grid.height)) * len(slide.info.icc or b"")
    image = int(encoded * shrink * 4 / 3 * MARGIN) + pages + 64 * len(grid) + MIB
    return ImageEstimate(mean([seconds for seconds, _ in front + back]), image)


def mean(values: list[float] | list[int]) -> float:
    """Return the mean; 0 if there are no values."""
    return sum(values) / len(values) if values else 0.0


def spread(count: int, most: int = PROBES) -> npt.NDArray[np.int64]:
    """Return some of the numbers from 0 to `count` - 1, evenly spread.

    Parameters
    ----------
    count : int
        How many numbers there are.
    most : int, optional
        How many to return at most.

    Returns
    -------
    numpy.ndarray
        (min(count, most),) int64, ascending.
    """
    return np.arange(min(count, most), dtype=np.int64) * count // max(1, min(count, most))


def _probe(slide: Slide, grid: TileGrid, jpeg: JpegSettings, number: np.int64) -> tuple[float, int]:
    """Read and encode a tile, given by its number in the grid; return the seconds that took, and the encoded bytes."""
    start = time.perf_counter()
    region = grid.region(*divmod(int(number), grid.columns)).intersect(grid.bounds)
    size = len(encode_jpeg(pad_tile(slide.read(region).pixels, grid.tile), jpeg))
    return time.perf_counter() - start, size
