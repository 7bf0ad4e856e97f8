"""Nuclei of drawn maps, found as a run finds them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from skimage.draw import polygon

from nuclei_segmentation.operators.stitch.objects.blocks import BlockGrid
from nuclei_segmentation.operators.stitch.objects.collect import NucleusCollector
from nuclei_segmentation.operators.stitch.objects.describe import Describer
from nuclei_segmentation.operators.stitch.objects.find import NucleusFinder
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.operators.stitch.objects.spool import NucleusSpool
from nuclei_segmentation.operators.stitch.objects.stains import HematoxylinTable
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.nuclei import NUCLEUS_LIMIT
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.slides.array_slide import ArraySlide

CHANNELS = ("nucleus", "distance")


@dataclass(frozen=True)
class Found:
    """What a run has found: chunks as they are handed over, and what was left out."""

    chunks: list[Nuclei]
    too_small: int
    too_large: int

    def all(self, name: str) -> npt.NDArray[np.generic]:
        return np.concatenate([getattr(chunk, name) for chunk in self.chunks])

    def outlines(self) -> list[npt.NDArray[np.int32]]:
        return [
            part for chunk in self.chunks for part in np.split(chunk.vertices, chunk.starts[1:-1]) if len(part)
        ]  # fmt: skip

    def painted(self, height: int, width: int) -> npt.NDArray[np.int32]:
        """(height, width), at each pixel the label of the nucleus whose outline its centre lies in."""
        image = np.zeros((height, width), np.int32)
        for label, outline in enumerate(self.outlines(), start=1):
            left, top = outline.min(axis=0) // 4
            box = image[top:, left:]
            rows, columns = polygon(*((outline - [4 * left, 4 * top] - 2).T[::-1] / 4), box.shape)
            box[rows, columns] = label
        return image


def find(
    folder: Path,
    maps: Pixels,
    *,
    tile: int = 256,
    overlap: int = 0,
    workers: int = 2,
    mpp: tuple[float, float] | None = (0.25, 0.25),
    smallest: float = 0,
    image: Pixels | None = None,
    damaged: Sequence[tuple[int, int]] = (),
    channels: Sequence[str] = CHANNELS,
) -> Found:
    """Find the nuclei of (h, w, C) maps, cut into tiles."""
    height, width = maps.shape[:2]
    grid = TileGrid(width, height, tile, overlap)
    slide = ArraySlide(image if image is not None else np.zeros((height, width, 3), np.uint8))
    stain = HematoxylinTable.of() if image is not None else None
    describe = Describer(grid, mpp, smallest, stain is not None)
    finder = NucleusFinder(slide, BlockGrid(grid.bounds), channels, (), NUCLEUS_LIMIT, describe, stain)
    with WorkerPool(workers) as pool, NucleusSpool(folder / "spool", finder.measurements, mpp) as spool:
        collector = NucleusCollector(finder, spool, pool)
        for row, column in grid:
            core = grid.core(row, column)
            part = np.moveaxis(maps[core.y : core.bottom, core.x : core.right], -1, 0)
            bad = (row, column) in damaged
            there = None if bad or not part[0].any() else np.ascontiguousarray(part)
            collector.add(row, core, there, damaged=bad)
        collector.finish()
        return Found([spool.read(chunk) for chunk in spool.chunks()], collector.left_out, collector.too_large)


def crowded(height: int, width: int, step: int, seed: int = 0) -> Pixels:
    """(height, width, 2) uint8, the maps of ellipses, about `step` pixels apart; many touch, some overlap."""
    random = np.random.default_rng(seed)
    nuclei, depth = (np.zeros((height + 80, width + 80), np.uint8) for _ in range(2))
    for y in range(0, height, step):
        for x in range(0, width, step):
            one = np.zeros((40, 40), np.uint8)
            axes = int(random.integers(5, 14)), int(random.integers(5, 12))
            cv2.ellipse(one, (20, 20), axes, float(random.integers(0, 180)), 0, 360, 255, -1)
            distance = cv2.distanceTransform(one, cv2.DIST_L2, 5)
            top, left = y + 20 + int(random.integers(-3, 4)), x + 20 + int(random.integers(-3, 4))
            box = np.s_[top : top + 40, left : left + 40]
            nuclei[box] = np.maximum(nuclei[box], one)
            depth[box] = np.maximum(depth[box], (distance / distance.max() * 255).astype(np.uint8))
    return np.dstack([nuclei, depth])[40:-40, 40:-40].copy()
