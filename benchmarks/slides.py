"""Large slides generated from the sample slide: a crop of it, mirrored and repeated, as a pyramidal tiled JPEG TIFF.

The mirrored crop repeats after an integer number of tiles at every level. Only a few tiles have to be encoded, so a
slide of any size is written as fast as the disk allows. Each tile still has its own bytes in the file.
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
"""Side of the crop that is mirrored, in tiles; twice this must be a power of two."""
_CORNER = (96, 96)
"""x and y of the crop in the sample slide, in level-0 pixels."""


class Generated(NamedTuple):
    """A generated slide and its size in level-0 pixels."""

    path: Path
    width: int
    height: int

    @property
    def megapixels(self) -> float:
        """Megapixels of level 0."""
        return self.width * self.height / 1e6


def generated(width: int, height: int, tile: int = 256) -> Generated:
    """Return a slide of the given size; it is written on first use.

    Parameters
    ----------
    width : int
        Width in level-0 pixels.
    height : int
        Height in level-0 pixels.
    tile : int, optional
        Side of the stored tiles, in pixels.
    """
    path = CACHE / f"{width}x{height}-{tile}.tif"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        _write(unfinished, width, height, tile)
        unfinished.rename(path)
    return Generated(path, width, height)


def pattern(tile: int = 256) -> tuple[Pixels, tuple[float, float]]:
    """Return the pattern that is repeated, and the mpp of the sample slide in x and y.

    The pattern is (16 * tile, 16 * tile, 3) uint8 RGB.
    """
    side = _SPAN * tile
    with openslide.OpenSlide(SAMPLE) as slide:
        crop = np.asarray(slide.read_region(_CORNER, 0, (side, side)).convert("RGB"))
        x, y = (float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy")
    wide = np.concatenate([crop, crop[:, ::-1]], axis=1)
    return np.concatenate([wide, wide[::-1]]), (x, y)


def pixels(width: int, height: int) -> Pixels:
    """Return the pixels of a generated slide before compression.

    Parameters
    ----------
    width : int
        Width in pixels.
    height : int
        Height in pixels.

    Returns
    -------
    numpy.ndarray
        (height, width, 3) uint8 RGB.
    """
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
    """Yield the JPEG segments of a level, row by row; the pattern continues beyond the border of the level."""
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
    """Return the pattern of the next level, repeated if it is smaller than a tile."""
    half = np.asarray(cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    times = max(1, tile // half.shape[0])
    return np.ascontiguousarray(np.tile(half, (times, times, 1)))
