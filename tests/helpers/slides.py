"""Slides made for one test, and their pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
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


def marked_jpeg(
    image: Pixels, colours: str, marks: str, *, ids: bytes = b"\x01\x02\x03", subsampling: str = "444"
) -> bytes:
    """Return a JPEG image whose components and whose signs of them are chosen apart.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB.
    colours : str
        What is stored: ``rgb`` or ``ycbcr``.
    marks : str
        The application markers, in their order: any of ``jfif``, ``adobe0``, ``adobe1``, separated by ``+``.
    ids : bytes, optional
        Names of the three components.
    subsampling : str, optional
        Of the second and third component: ``444``, ``422`` or ``420``.
    """
    options = {"outcolorspace": colours, "subsampling": subsampling}
    data = imagecodecs.jpeg8_encode(image, 92, **options)
    at, parts = 2, [b"\xff\xd8"]
    known = {
        "jfif": b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00",
        "adobe0": b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00",
        "adobe1": b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01",
    }
    parts += [known[mark] for mark in marks.split("+") if mark]
    while True:
        marker, after = data[at + 1], at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        part = bytearray(data[at:after])
        if marker == 0xC0:
            part[10::3] = ids
        if marker == 0xDA:
            part[5:11:2] = ids
        if not 0xE0 <= marker <= 0xEF:
            parts.append(bytes(part))
        at = after
        if marker == 0xDA:
            return b"".join(parts) + data[at:]
