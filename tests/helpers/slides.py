"""Slides made for one test, and their pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import tifffile

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.slides import Slide

Make = Callable[..., Path]


def tissue_like(width: int, height: int, seed: int = 0) -> Pixels:
    """Return an image with the colours and the unrest of tissue."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return np.clip(np.array([200, 140, 180]) + 160 * soft.reshape(height, width, 3), 0, 255).astype(np.uint8)


def read_all(slide: Slide, tile: int = 256) -> Pixels:
    """Return level 0, read tile by tile; nothing of it may be damaged."""
    grid = TileGrid(slide.info.width, slide.info.height, tile)
    pixels = np.zeros((slide.info.height, slide.info.width, 3), np.uint8)
    for row, column in grid:
        region = grid.region(row, column).intersect(grid.bounds)
        read = slide.read(region)
        assert not read.damaged, region
        pixels[region.y : region.bottom, region.x : region.right] = read.pixels
    return pixels


def damaged_tiles(slide: Slide, tile: int) -> set[tuple[int, int]]:
    """Return (row, column) of the grid's tiles that cannot be read."""
    grid = TileGrid(slide.info.width, slide.info.height, tile)
    return {at for at in grid if slide.read(grid.region(*at).intersect(grid.bounds)).damaged}


def tiff(path: Path, pixels: np.ndarray, tile: int = 240) -> None:
    tifffile.imwrite(
        path, pixels, tile=(tile, tile), photometric="rgb", compression="jpeg", compressionargs={"level": 90},
        resolution=(20000, 20000), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip


def tissue(crop: np.ndarray, folder: Path) -> None:
    tiff(folder / "slide.tif", crop)


def glass(crop: np.ndarray, folder: Path) -> None:
    tiff(folder / "slide.tif", np.full((500, 700, 3), 243, np.uint8))
