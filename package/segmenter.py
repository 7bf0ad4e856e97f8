"""Segments images in memory with the stages that a run uses: load's tiles, filter's engine, count and watershed."""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.filter.inference import Engine, open_engine
from nuclei_segmentation.operators.filter.stage import infer
from nuclei_segmentation.operators.load.stage import load
from nuclei_segmentation.operators.stitch.count import NucleusCount, find_pieces
from nuclei_segmentation.operators.stitch.objects.collect import NucleusCollector
from nuclei_segmentation.operators.stitch.objects.find import NucleusFinder
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.operators.stitch.objects.spool import NucleusSpool
from nuclei_segmentation.operators.stitch.outputs.chunks import join
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.instances import instances
from nuclei_segmentation.shared.nuclei import Labels
from nuclei_segmentation.shared.nucleus_pixels import is_nucleus, uint8_limit
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.config_file import check
from nuclei_segmentation.shared.slides.array_slide import ArraySlide

LARGEST = 1024
"""Images up to this side are one tile; larger ones are tiles of this side."""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What was found in an image.

    Attributes
    ----------
    maps : numpy.ndarray
        (H, W, C) uint8, the model's maps; channel 0 is the probability of nucleus times 255.
    channels : tuple of str
        Names of the maps; the first is ``nucleus``.
    labels : numpy.ndarray
        (H, W) int32 label image: 0 is no nucleus, 1 … n are the nuclei.
    count : int
        Number of nuclei, as the summary of a run counts them.
    image : numpy.ndarray
        (H, W, 3) uint8, the image.
    settings : Settings
        Of the segmenter.
    """

    maps: Pixels
    channels: tuple[str, ...]
    labels: Labels
    count: int
    image: Pixels
    settings: Settings

    @property
    def probability(self) -> npt.NDArray[np.float32]:
        """(H, W) float32, the probability of nucleus, 0 to 1."""
        return self.maps[..., 0].astype(np.float32) / np.float32(255)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """(H, W) bool, where the probability of nucleus is above `overlay.threshold`, by default one half."""
        return is_nucleus(self.maps[..., 0], uint8_limit(self.settings.overlay.threshold))

    def nuclei(self, mpp: tuple[float, float] | None = None) -> Nuclei:
        """Return the nuclei as objects: those that the files of a run hold, with outlines and measurements.

        Parameters
        ----------
        mpp : tuple of float, optional
            Micrometres per pixel in x and y; by default those of the settings. Without a pixel size, lengths are in
            pixels, and nuclei of any size are kept.
        """
        slide = ArraySlide(self.image, mpp or self.settings.mpp)
        height, width = self.image.shape[:2]
        grid = TileGrid(width, height, -(-max(height, width) // 16) * 16)
        finder = NucleusFinder.of(slide, grid, self.channels, self.settings)
        planes = np.ascontiguousarray(np.moveaxis(self.maps, -1, 0))
        with (
            tempfile.TemporaryDirectory() as folder,
            WorkerPool(self.settings.num_workers) as pool,
            NucleusSpool(Path(folder, "nuclei"), finder.measurements, slide.info.mpp) as spool,
            NucleusCollector(finder, spool, pool) as collector,
        ):
            collector.add(0, grid.bounds, planes)
            collector.finish()
            none = replace(finder.none, measurements=dict.fromkeys(spool.measurements, np.empty(0)))
            return join([spool.read(chunk) for chunk in spool.chunks()] or [none])


class Segmenter:
    """Segments images of any size. Several threads may use one segmenter at once.

    Parameters
    ----------
    model : str or pathlib.Path, optional
        A model's name; or the folder of a model in Triton's layout, ``<folder>/1/model.onnx``. By default the model of
        `settings`, which is the one that comes with the program.
    settings : Settings, optional
        Engine, precision and the rest.
    tile_size : int, optional
        Side of the tiles in pixels. By default an image is one tile, and a large one is cut into tiles of 1024 pixels
        that overlap by as much as the model's receptive field needs to be exact.
    overlap : int, optional
        Pixels that neighbouring tiles share, if `tile_size` is given.

    Raises
    ------
    ConfigError
        A value of `settings` is wrong.

    Examples
    --------
    >>> with Segmenter() as segmenter:
    ...     found = segmenter(image)  # (H, W, 3) uint8 RGB
    >>> found.count, found.labels.max()
    """

    def __init__(
        self,
        model: str | Path | None = None,
        settings: Settings | None = None,
        *,
        tile_size: int | None = None,
        overlap: int = 0,
    ) -> None:
        settings = check(settings if settings is not None else Settings())
        if isinstance(model, os.PathLike):
            folder = Path(model)
            settings = replace(
                settings, model_name=folder.name, models=replace(settings.models, repository=folder.parent)
            )
        elif model is not None:
            settings = replace(settings, model_name=model)
        self._settings, self._tile_size, self._overlap = settings, tile_size, overlap
        self._engines: dict[int, Engine] = {}
        self._lock = threading.Lock()

    def __call__(self, image: Pixels) -> Segmentation:
        """Segment an image.

        Parameters
        ----------
        image : numpy.ndarray
            (H, W, 3) uint8 RGB.

        Returns
        -------
        Segmentation
            Maps and labels of the image's size.

        Raises
        ------
        UsageError
            `image` is something else.
        ModelError
            The model is missing or unfit.
        InferenceUnavailable
            The Triton server does not answer.
        """
        if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
            raise UsageError(f"an image is a NumPy array (height, width, 3) of uint8, RGB; not {found}")
        height, width = image.shape[:2]
        if not height or not width:
            raise UsageError("an image has at least one pixel")
        side = -(-max(height, width) // 16) * 16
        tile_size = self._tile_size or min(side, LARGEST)
        engine = self._engine(tile_size)
        overlap = self._overlap
        if self._tile_size is None and side > tile_size:
            step = engine.info.grid or 16
            overlap = -(-2 * (engine.info.halo or 128) // step) * step
        return self._segment(image, engine, TileGrid(width, height, tile_size, overlap))

    def close(self) -> None:
        """Give back what the engines hold."""
        for engine in self._engines.values():
            engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _segment(self, image: Pixels, engine: Engine, grid: TileGrid) -> Segmentation:
        positions = np.array(list(grid), np.int32)
        channels = engine.info.channels
        count, limit = NucleusCount(grid), uint8_limit(self._settings.overlay.threshold)
        maps = np.empty((grid.height, grid.width, len(channels)), np.uint8)
        with WorkerPool(self._settings.num_workers) as pool:
            tiles = load(ArraySlide(image), grid, positions, pool, engine.info.batch)
            for batch in infer(tiles, engine, _NoStore(), pool):
                for tile_id, found in zip(batch.tile_ids.tolist(), batch.maps, strict=True):
                    row, column = positions[tile_id].tolist()
                    region, core = grid.region(row, column), grid.core(row, column)
                    top, left = core.y - region.y, core.x - region.x
                    part = found[top : top + core.height, left : left + core.width]
                    maps[core.y : core.bottom, core.x : core.right] = part
                    count.add(row, column, find_pieces(part, channels, limit))
        labels = instances(maps, channels, limit)
        return Segmentation(maps, channels, labels, count.total, image, self._settings)

    def _engine(self, tile_size: int) -> Engine:
        with self._lock:
            if tile_size not in self._engines:
                self._engines[tile_size] = open_engine(replace(self._settings, tile_size=tile_size))
            return self._engines[tile_size]


class _NoStore:
    """Keeps no maps: an image is segmented in one go."""

    def get(self, tile_id: int) -> Pixels | None:
        return None

    def add(self, tile_id: int, maps: Pixels) -> None:
        pass
