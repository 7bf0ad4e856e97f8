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
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.slides import Slide, open_slide
from tests.helpers.slides import Make, read_all


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
