"""How far the nearest other nucleus is, from centroid to centroid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

WITHIN = 100.0
"""Micrometres that neighbours are looked for in."""
WITHIN_PIXELS = 400.0
"""Pixels, where the pixel size is not known: as many micrometres at 0.25 µm per pixel."""


def reach(mpp: tuple[float, float] | None) -> tuple[float, float]:
    """Return how many pixels neighbours are looked for in, in x and y."""
    return (WITHIN_PIXELS, WITHIN_PIXELS) if mpp is None else (WITHIN / mpp[0], WITHIN / mpp[1])


def nearest_distances(centroids: Floats, all_around: Floats, mpp: tuple[float, float] | None) -> Floats:
    """Return the distance from each nucleus to the nearest other.

    Parameters
    ----------
    centroids : numpy.ndarray
        (n, 2) float64, x and y in pixels.
    all_around : numpy.ndarray
        (m, 2) float64, those of all nuclei within `reach`, these n included.
    mpp : tuple of float or None
        Micrometres per pixel in x and y.

    Returns
    -------
    numpy.ndarray
        (n,) float64 in micrometres, or pixels without `mpp`; NaN where no other is within reach.
    """
    from scipy.spatial import KDTree  # SciPy takes a tenth of a second, which other runs save

    scale = np.array(mpp or (1.0, 1.0))
    limit = WITHIN_PIXELS if mpp is None else WITHIN
    found, _ = KDTree(all_around * scale).query(centroids * scale, k=[2], distance_upper_bound=limit)
    distances: Floats = np.where(np.isfinite(found[:, 0]), found[:, 0], np.nan)
    return distances
