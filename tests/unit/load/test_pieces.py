"""Pieces of masks: the same pixels as scikit-image's functions."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import remove_small_holes, remove_small_objects

from nuclei_segmentation.operators.load.pieces import above_either, without_small_holes, without_small_pieces


def noise(seed: int) -> np.ndarray:
    """Return (h, w) float32: blobs of many sizes, some of which touch at corners only."""
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 150, 2).tolist()
    fine, coarse = (random.standard_normal((height, width), np.float32) for _ in range(2))
    return np.asarray(0.3 * fine + cv2.GaussianBlur(coarse, (0, 0), 2.0), np.float32)


@pytest.mark.parametrize("seed", range(12))
def test_pieces_are_those_of_scikit_image(seed: int) -> None:
    score = noise(seed)
    np.testing.assert_array_equal(above_either(score, 0.2, 0.6), apply_hysteresis_threshold(score, 0.2, 0.6))
    for size in (0, 1, 4, 60):
        mask = score > 0.1
        np.testing.assert_array_equal(without_small_pieces(mask, size), remove_small_objects(mask, max_size=size))
        np.testing.assert_array_equal(without_small_holes(mask, size), remove_small_holes(mask, max_size=size))


@pytest.mark.parametrize("value", [False, True])
def test_a_mask_of_one_value(value: bool) -> None:
    mask = np.full((5, 7), value)
    assert (without_small_pieces(mask, 4) == mask).all()
    assert (without_small_holes(mask, 4) == mask).all()
    assert (above_either(mask.astype(np.float32), 0.5, 0.7) == mask).all()
