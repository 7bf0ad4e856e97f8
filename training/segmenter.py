"""From an image in memory to maps, by the program's own way: load's tiles, filter's engine, count and watershed."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.filter.count import NucleusCount
from nuclei_segmentation.operators.filter.inference import Engine, open_engine
from nuclei_segmentation.operators.filter.nuclei import NUCLEUS_LIMIT, Labels, instances
from nuclei_segmentation.operators.filter.stage import infer
from nuclei_segmentation.operators.load.stage import load
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.slides.slide import RegionPixels, Slide, SlideInfo

LARGEST = 1024
"""Images up to this side are one tile; larger ones are tiles of this side."""


@dataclass(frozen=True, slots=True)
class Segmented:
    """What was found in an image.

    Attributes
    ----------
    maps : numpy.ndarray
        (h, w, C) uint8.
    labels : numpy.ndarray
        (h, w) int32, the instances.
    count : int
        Nuclei, as the summary of a run has them.
    """

    maps: Pixels
    labels: Labels
    count: int

    @property
    def nucleus(self) -> npt.NDArray[np.bool_]:
        """(h, w), which pixels are nucleus at all."""
        return self.maps[..., 0] > NUCLEUS_LIMIT


class Segmenter:
    """Segments images; any thread may do so at any time.

    Parameters
    ----------
    settings : Settings
        Which model and engine.
    tile, overlap : int or None, int
        Of the grid. Without them an image is one tile, or larger tiles with as much overlap as makes borders exact.
    """

    def __init__(self, settings: Settings, tile: int | None = None, overlap: int = 0) -> None:
        self._settings, self._tile, self._overlap = settings, tile, overlap
        self._engines: dict[int, Engine] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for engine in self._engines.values():
            engine.close()

    def __call__(self, image: Pixels) -> Segmented:
        """Segment an image.

        Parameters
        ----------
        image : numpy.ndarray
            (h, w, 3) uint8 RGB.

        Raises
        ------
        ModelError
            The model is missing or unfit.
        """
        height, width = image.shape[:2]
        side = -(-max(height, width) // 16) * 16
        tile = self._tile or min(side, LARGEST)
        engine = self._engine(tile)
        overlap = self._overlap
        if self._tile is None and side > tile:
            step = engine.info.grid or 16
            overlap = -(-2 * (engine.info.halo or 128) // step) * step
        grid = TileGrid(width, height, tile, overlap)
        places = np.array(list(grid), np.int32)
        channels = engine.info.channels
        count = NucleusCount(grid, places, channels)
        maps = np.empty((height, width, len(channels)), np.uint8)
        with WorkerPool(1) as pool:
            tiles = load(_Image(image), grid, places, pool, engine.info.batch)
            for batch in infer(tiles, engine, _Nothing(), pool, count):
                for index, found in zip(batch.tile_ids.tolist(), batch.maps, strict=True):
                    row, column = places[index].tolist()
                    region, core = grid.region(row, column), grid.core(row, column)
                    top, left = core.y - region.y, core.x - region.x
                    part = found[top : top + core.height, left : left + core.width]
                    maps[core.y : core.bottom, core.x : core.right] = part
        return Segmented(maps, instances(maps, channels), count.total)

    def _engine(self, tile: int) -> Engine:
        with self._lock:
            if tile not in self._engines:
                self._engines[tile] = open_engine(replace(self._settings, tile_size=tile))
            return self._engines[tile]


class _Image(Slide):
    """An image in memory, as a slide."""

    def __init__(self, pixels: Pixels) -> None:
        height, width = pixels.shape[:2]
        self._pixels = pixels
        self.info = SlideInfo(Path(), "image", "memory", width, height, ((width, height),), None, "absent", None, None)

    def read(self, region: Region) -> RegionPixels:
        part = self._pixels[region.y : region.bottom, region.x : region.right]
        return RegionPixels(part.copy(), damaged=False)

    def thumbnail(self, limit: int) -> Pixels:
        raise NotImplementedError("an image has no tissue mask: all of it is segmented")

    def close(self) -> None:
        """Nothing is open."""


class _Nothing:
    """Keeps no maps."""

    def get(self, index: int) -> Pixels | None:
        return None

    def add(self, index: int, maps: Pixels) -> None:
        pass
