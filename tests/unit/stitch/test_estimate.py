"""What is announced before an image is written."""

from __future__ import annotations

import numpy as np

from nuclei_segmentation.operators.stitch.estimate import estimate_image
from nuclei_segmentation.operators.stitch.pyramid.levels import levels_of
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import JpegSettings
from nuclei_segmentation.shared.slides.array_slide import ArraySlide


def test_the_colour_profile_of_every_page_is_in_the_announced_size() -> None:
    pixels, grid = np.zeros((1100, 900, 3), np.uint8), TileGrid(900, 1100, 256, 0)
    foreground = np.array([(0, 0)], np.int32)
    with WorkerPool(1) as pool:
        plain, with_profile = (
            estimate_image(ArraySlide(pixels, icc=icc), grid, foreground, JpegSettings(), pool).image
            for icc in (None, bytes(1 << 20))
        )
    assert with_profile - plain == len(levels_of(900, 1100)) << 20
