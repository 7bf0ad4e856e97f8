"""Large slides made from the small sample: a piece of it, mirrored and repeated, in a pyramidal tiled JPEG TIFF.

A mirrored piece repeats after a whole number of tiles at every level, so few tiles are ever encoded, and a slide of any
size is written as fast as the disk takes it. Each tile has its own bytes in the file all the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import imagecodecs
import numpy as np
import openslide
import tifffile

from nuclei_segmentation.shared.batches import Pixels

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / ".cache" / "cmu_small_region.svs"
CACHE = ROOT / ".cache" / "bench"

QUALITY = 85
_SPAN = 8
"""Tiles along a side of the piece that is mirrored; twice this must be a power of two."""
_CORNER = (96, 96)
"""Where in the sample the piece is cut out."""


class Generated(NamedTuple):
    """A generated slide and its size in pixels."""

    path: Path
    width: int
    height: int

    @property
    def megapixels(self) -> float:
        """Of level 0."""
        return self.width * self.height / 1e6


def generated(width: int, height: int, tile: int = 256) -> Generated:
    """Return a slide of the given size, made when it is first asked for.

    Parameters
    ----------
    width, height : int
        In pixels.
    tile : int, optional
        Side of its stored tiles.
    """
    path = CACHE / f"{width}x{height}-{tile}.tif"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        _write(unfinished, width, height, tile)
        unfinished.rename(path)
    return Generated(path, width, height)


def pattern(tile: int = 256) -> tuple[Pixels, tuple[float, float]]:
    """Return what is repeated, (16 tiles, 16 tiles, 3) uint8 RGB, and the sample's micrometres per pixel in x and y."""
    side = _SPAN * tile
    with openslide.OpenSlide(SAMPLE) as slide:
        piece = np.asarray(slide.read_region(_CORNER, 0, (side, side)).convert("RGB"))
        x, y = (float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
    wide = np.concatenate([piece, piece[:, ::-1]], axis=1)
    return np.concatenate([wide, wide[::-1]]), (x, y)


def pixels(width: int, height: int) -> Pixels:
    """Return (height, width, 3) uint8 RGB: the pixels of a generated slide, before it is compressed."""
    repeated = pattern()[0]
    times = -(-height // repeated.shape[0]), -(-width // repeated.shape[1])
    return np.ascontiguousarray(np.tile(repeated, (*times, 1))[:height, :width])


def _write(path: Path, width: int, height: int, tile: int) -> None:
    image, (x, y) = pattern(tile)
    with tifffile.TiffWriter(path, bigtiff=width * height > 1 << 30, ome=False, shaped=False) as file:
        level = 0
        while True:
            factor = 1 << level
            size = -(-width // factor), -(-height // factor)
            file.write(
                _segments(image, size, tile),
                shape=(size[1], size[0], 3),
                dtype="uint8",
                tile=(tile, tile),
                photometric="ycbcr",
                compression="jpeg",
                subsampling=(2, 2),
                subfiletype=1 if level else 0,
                metadata=None,
                software=False,
                resolution=(1e4 / x / factor, 1e4 / y / factor),
                resolutionunit="CENTIMETER",
            )
            if max(size) <= tile:
                return
            level += 1
            image = _halved(image, tile)


def _segments(image: Pixels, size: tuple[int, int], tile: int) -> Iterator[bytes]:
    """Yield the encoded tiles of a level, row by row; beyond the level's border the pattern goes on unseen."""
    encoded = [
        [
            bytes(imagecodecs.jpeg8_encode(
                np.ascontiguousarray(image[top : top + tile, left : left + tile]),
                level=QUALITY, colorspace="RGB", outcolorspace="YCBCR", subsampling="420",
            ))
            for left in range(0, image.shape[1], tile)
        ]
        for top in range(0, image.shape[0], tile)
    ]  # fmt: skip
    for row in range(-(-size[1] // tile)):
        line = encoded[row % len(encoded)]
        yield from (line[column % len(line)] for column in range(-(-size[0] // tile)))


def _halved(image: Pixels, tile: int) -> Pixels:
    """Return the pattern of the next level; what is smaller than a tile by then is repeated to fill one."""
    half = np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    times = max(1, tile // half.shape[0])
    return np.ascontiguousarray(np.tile(half, (times, times, 1)))
