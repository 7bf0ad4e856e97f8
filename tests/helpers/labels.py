"""Label images made for one test."""

from __future__ import annotations

import cv2
import numpy as np

from training.data import LabelImage


def discs(size: int, count: int, radius: int, seed: int) -> LabelImage:
    rng = np.random.default_rng(seed)
    labels = np.zeros((size, size), np.uint16)
    for number in range(1, count + 1):
        x, y = rng.integers(radius, size - radius, 2)
        cv2.circle(labels, (int(x), int(y)), radius, number, -1)
    return labels
