"""An image in memory is a slide like any other."""

from __future__ import annotations

import numpy as np
import pytest

from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.slides.array_slide import ArraySlide


def test_what_is_read_belongs_to_the_caller() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    before = pixels.copy()
    with ArraySlide(pixels, (0.5, 0.5)) as slide:
        part = slide.read(Region(10, 5, 20, 8))
        assert np.array_equal(part.pixels, before[5:13, 10:30])
        assert not part.damaged
        part.pixels[...] = 0
    assert np.array_equal(pixels, before)
    assert slide.info.mpp == (0.5, 0.5)


@pytest.mark.parametrize("region", [Region(0, 0, 0, 1), Region(-1, 0, 4, 4), Region(58, 0, 3, 3), Region(0, 38, 3, 3)])
def test_a_region_outside_is_refused(region: Region) -> None:
    with ArraySlide(np.zeros((40, 60, 3), np.uint8)) as slide, pytest.raises(ValueError, match="not inside a slide"):
        slide.read(region)


def test_the_thumbnail_averages_areas() -> None:
    small = np.random.default_rng(1).integers(0, 256, (4, 6, 3), np.uint8)
    with ArraySlide(small.repeat(10, axis=0).repeat(10, axis=1)) as slide:
        assert np.array_equal(slide.thumbnail(24).pixels, small)
        assert slide.thumbnail(10**6).pixels.shape == (40, 60, 3)
