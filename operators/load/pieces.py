"""Connected pieces of masks, joined by edges: scikit-image's results, without its second of start-up."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_EDGES = 4
"""Pixels are connected by their edges, not by their corners."""


def above_either(score: Floats, low: float, high: float) -> Mask:
    """Return the pieces above `low` that have a pixel above `high`: hysteresis (Canny, 1986).

    Parameters
    ----------
    score : numpy.ndarray
        (h, w) float32.
    low : float
        What every pixel of a piece exceeds.
    high : float
        What one pixel of each piece exceeds.

    Returns
    -------
    numpy.ndarray
        (h, w) bool.
    """
    count, labels = cv2.connectedComponents((score > low).view(np.uint8), connectivity=_EDGES)
    kept = np.zeros(count, bool)
    kept[labels[score > high]] = True
    kept[0] = False
    found: Mask = kept[labels]
    return found


def without_small_pieces(mask: Mask, max_size: int) -> Mask:
    """Drop pieces of at most `max_size` pixels.

    Parameters
    ----------
    mask : numpy.ndarray
        (h, w) bool.
    max_size : int
        In pixels.

    Returns
    -------
    numpy.ndarray
        (h, w) bool.
    """
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=_EDGES)
    kept = stats[:, cv2.CC_STAT_AREA] > max_size
    kept[0] = False
    found: Mask = kept[labels]
    return found


def without_small_holes(mask: Mask, max_size: int) -> Mask:
    """Fill holes of at most `max_size` pixels.

    Parameters
    ----------
    mask : numpy.ndarray
        (h, w) bool.
    max_size : int
        In pixels.

    Returns
    -------
    numpy.ndarray
        (h, w) bool.
    """
    filled: Mask = ~without_small_pieces(~mask, max_size)
    return filled
