"""How large the image will be, and how long a tile of it takes: measured on a few tiles, before the work starts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.pyramid.segments import encode, whole
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.resources import MIB
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import JpegSettings
from nuclei_segmentation.shared.slides.slide import Slide

PROBES = 6
"""Tiles of each kind, with tissue and without, that are tried."""
MARGIN = 1.5
"""The image is smaller than this times what the probes say."""


@dataclass(frozen=True, slots=True)
class ImageEstimate:
    """What writing will need.

    Attributes
    ----------
    tile_seconds : float
        Worker seconds to read and encode a tile.
    image : int
        Bytes of image.tif; an upper bound, to be reserved.
    spool : int
        Bytes that are needed besides while it is written.
    """

    tile_seconds: float
    image: int

    @property
    def spool(self) -> int:
        """Bytes for the reduced levels, until they go into the image."""
        return self.image // 4


def estimate_image(
    slide: Slide, grid: TileGrid, foreground: npt.NDArray[np.int32], jpeg: JpegSettings, pool: WorkerPool
) -> ImageEstimate:
    """Encode a few tiles and extrapolate.

    Parameters
    ----------
    slide, grid, foreground, jpeg, pool : Slide, TileGrid, numpy.ndarray, JpegSettings, WorkerPool
        As for `stitch`.
    """
    numbers = foreground[:, 0].astype(np.int64) * grid.columns + foreground[:, 1]
    some = spread(len(grid), 8 * PROBES)
    others = some[~np.isin(some, numbers)]
    probe = partial(_probe, slide, grid, jpeg)
    front = list(pool.map("stitch", probe, numbers[spread(len(numbers))], ahead=PROBES))
    back = list(pool.map("stitch", probe, others[spread(len(others))], ahead=PROBES))
    n, rest = len(foreground), len(grid) - len(foreground)
    encoded = n * mean([size for _, size in front or back]) + rest * mean([size for _, size in back or front])
    # where tiles overlap, more of them are read than pixels written
    shrink = (grid.stride / grid.tile) ** 2
    # all reduced levels together are a third of level 0; then come the tables: offsets, sizes, tags
    image = int(encoded * shrink * 4 / 3 * MARGIN) + 64 * len(grid) + MIB
    return ImageEstimate(mean([seconds for seconds, _ in front + back]), image)


def mean(values: list[float] | list[int]) -> float:
    """Return the mean, 0 of nothing."""
    return sum(values) / len(values) if values else 0.0


def spread(count: int, most: int = PROBES) -> npt.NDArray[np.int64]:
    """Return at most `most` of the numbers below `count`, evenly spread."""
    return np.arange(min(count, most), dtype=np.int64) * count // max(1, min(count, most))


def _probe(slide: Slide, grid: TileGrid, jpeg: JpegSettings, number: np.int64) -> tuple[float, int]:
    """Read and encode one tile; return the seconds that took, and the encoded bytes."""
    start = time.perf_counter()
    region = grid.region(*divmod(int(number), grid.columns)).intersect(grid.bounds)
    size = len(encode(whole(slide.read(region).pixels, grid.tile), jpeg))
    return time.perf_counter() - start, size
