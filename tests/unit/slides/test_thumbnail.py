"""The thumbnail of a slide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.shared.slides.thumbnail import Shrinker, pick_level, thumbnail_size
from tests.helpers.slides import tissue_like


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.integers(1, 1 << 21))
def test_the_size_respects_the_limit_and_the_aspect_ratio(width, height, limit):
    w, h = thumbnail_size(width, height, limit)
    assert 1 <= w <= width
    assert 1 <= h <= height
    assert w * h <= limit
    if min(w, h) > 20:
        assert w / h == pytest.approx(width / height, rel=0.1)


def exact(image, size):
    """Return area averages, computed directly from the definition."""

    def weights(n, m):
        edges = np.arange(m + 1) * n / m
        pixel = np.arange(n)
        low, high = np.maximum(edges[:-1, None], pixel), np.minimum(edges[1:, None], pixel + 1)
        return np.clip(high - low, 0, None) * m / n

    return np.einsum(
        "ij,jkc,lk->ilc", weights(image.shape[0], size[1]), image.astype(float), weights(image.shape[1], size[0])
    )


@pytest.mark.parametrize("size", [(37, 29), (100, 80), (1, 1), (99, 79), (50, 40), (100, 1)])
@pytest.mark.parametrize("step", [1, 7, 80])
def test_shrinker_averages_areas_whatever_the_stripes(size, step):
    image = tissue_like(100, 80)
    shrinker = Shrinker(100, 80, size)
    for row in range(0, 80, step):
        shrinker.add(image[row : row + step])
    assert np.abs(shrinker.result() - exact(image, size)).max() <= 0.5 + 1e-6


def test_the_shrinker_needs_all_rows():
    with pytest.raises(ValueError, match="0 of 80"):
        Shrinker(100, 80, (10, 8)).result()


def test_the_smallest_level_that_is_large_enough_is_read():
    levels = ((4000, 2000), (1000, 500), (250, 125))
    assert [pick_level(levels, size) for size in ((4000, 2000), (1001, 500), (1000, 500), (100, 50))] == [0, 0, 1, 2]


@pytest.mark.parametrize("limit", [1, 100, 5000, 40_000, 1 << 20])
def test_readers_agree(sample_slide, opened, limit):
    """Only nearly: the fast reader averages 2, 4 or 8 pixels while decoding, in the colour space that is stored."""
    images = [opened(sample_slide, reader).thumbnail(limit).pixels.astype(int) for reader in ("jpeg", "openslide")]
    assert images[0].shape == images[1].shape
    assert images[0].shape[0] * images[0].shape[1] <= limit
    assert np.abs(images[0] - images[1]).mean() < 3


@pytest.mark.parametrize("tile", [240, 256, 272])
def test_scaled_decoding_keeps_positions(make_vips, opened, tile):
    """An edge in the image must be where it is in OpenSlide's thumbnail, to a fraction of a pixel."""
    image = np.full((1500, 2000, 3), 255, np.uint8)
    image[700:, 900:] = (180, 60, 140)
    path = make_vips(image, tile_width=tile, tile_height=tile, Q=95)
    fast, slow = (opened(path, reader).thumbnail(12_000).pixels.astype(int) for reader in ("jpeg", "openslide"))
    assert np.abs(fast - slow).max() <= 12


def test_pyramid_is_used(make_vips, opened, monkeypatch):
    slide = opened(make_vips(tissue_like(1600, 1200), pyramid=True))
    used = []
    plain = slide._reduced_tile
    monkeypatch.setattr(slide, "_reduced_tile", lambda level, *rest: used.append(level) or plain(level, *rest))
    slide.thumbnail(200 * 150)
    assert set(used) == {len(slide.info.levels) - 1}
