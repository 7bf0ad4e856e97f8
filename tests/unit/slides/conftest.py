"""Slides made for one test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import pyvips
import tifffile

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.slides import Slide, open_slide

Make = Callable[..., Path]


def tissue_like(width: int, height: int, seed: int = 0) -> Pixels:
    """Return an image with the colours and the texture of tissue."""
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 2.5)
    return np.clip(np.array([200, 140, 180]) + 160 * soft.reshape(height, width, 3), 0, 255).astype(np.uint8)


def read_all(slide: Slide, tile: int = 256) -> Pixels:
    """Return level 0, read tile by tile; no tile may be damaged."""
    grid = TileGrid(slide.info.width, slide.info.height, tile)
    pixels = np.zeros((slide.info.height, slide.info.width, 3), np.uint8)
    for row, column in grid:
        region = grid.region(row, column).intersect(grid.bounds)
        region_pixels = slide.read(region)
        assert not region_pixels.damaged, region
        pixels[region.y : region.bottom, region.x : region.right] = region_pixels.pixels
    return pixels


def damaged_tiles(slide: Slide, tile: int) -> set[tuple[int, int]]:
    """Return the positions (row, column) of the tiles that cannot be read."""
    grid = TileGrid(slide.info.width, slide.info.height, tile)
    return {position for position in grid if slide.read(grid.region(*position).intersect(grid.bounds)).damaged}


@pytest.fixture
def make_tiff(tmp_path: Path) -> Make:
    """Return a function that writes a TIFF file with tifffile: each tile has its own JPEG tables."""

    def make(image: Pixels, name: str = "slide.tif", levels: int = 1, **options: Any) -> Path:
        path = tmp_path / name
        options = {"tile": (256, 256), "photometric": "rgb", **options}
        description = options.pop("description", None)
        with tifffile.TiffWriter(
            path, bigtiff=options.pop("bigtiff", False), byteorder=options.pop("order", "<")
        ) as tiff:
            for level in range(levels):
                part = image
                if level:
                    part = cv2.resize(image, None, fx=0.5**level, fy=0.5**level, interpolation=cv2.INTER_AREA)
                tiff.write(
                    part,
                    subfiletype=min(level, 1),
                    metadata=None,
                    description=None if level else description,
                    **options,
                )
        return path

    return make


@pytest.fixture
def make_vips(tmp_path: Path) -> Make:
    """Return a function that writes a TIFF file with libvips and libtiff: tiles share their JPEG tables."""

    def make(image: Pixels, name: str = "vips.tif", **options: Any) -> Path:
        path = tmp_path / name
        options = {"tile": True, "compression": "jpeg", "tile_width": 256, "tile_height": 256, **options}
        pyvips.Image.new_from_array(image).tiffsave(str(path), **options)
        return path

    return make


@pytest.fixture
def opened() -> Iterator[Callable[..., Slide]]:
    """Return a function that opens a slide. It is closed after the test."""
    slides: list[Slide] = []

    def open_it(path: Path, reader: str | None = None) -> Slide:
        slides.append(open_slide(path, reader=reader))
        return slides[-1]

    yield open_it
    for slide in slides:
        slide.close()


@pytest.fixture
def same_pixels(opened: Callable[..., Slide]) -> Callable[..., Slide]:
    """Return a function that checks that the fast reader and OpenSlide agree in every byte of a file."""

    def check(path: Path, regions: tuple[Region, ...] = ()) -> Slide:
        fast, slow = opened(path), opened(path, "openslide")
        assert fast.info.reader.startswith("stored JPEG")
        assert (fast.info.width, fast.info.height) == (slow.info.width, slow.info.height)
        for tile in (256, 240, 224):
            assert np.array_equal(read_all(fast, tile), read_all(slow, tile))
        for region in regions:
            assert np.array_equal(fast.read(region).pixels, slow.read(region).pixels)
        return fast

    return check
