"""The baseline that needs no training: Otsu's threshold, and a watershed on the distance transform."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.color import rgb2gray
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from nuclei_segmentation.shared.batches import Pixels

LEAST_DISTANCE = 5
"""Least distance between the seeds of two nuclei, in pixels."""


def otsu(image: Pixels) -> npt.NDArray[np.int32]:
    """Segment nuclei by Otsu's threshold; whatever is more common, light or dark, is background.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB: light nuclei on black, or dark ones on white.

    Returns
    -------
    numpy.ndarray
        (h, w) int32 label image.
    """
    grey = ndimage.gaussian_filter(rgb2gray(image), 1.0)
    if grey.min() == grey.max():
        return np.zeros(grey.shape, np.int32)
    light = grey > threshold_otsu(grey)  # type: ignore[no-untyped-call] # no types
    mask = light if np.median(image) < 128 else ~light
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1.0)
    pieces, _ = ndimage.label(mask)
    markers = np.zeros(grey.shape, np.int32)
    seeds = peak_local_max(depth, min_distance=LEAST_DISTANCE, labels=pieces)  # type: ignore[no-untyped-call] # no types
    markers[tuple(seeds.T)] = np.arange(1, len(seeds) + 1)
    labels: npt.NDArray[np.int32] = watershed(-depth, markers, mask=mask)  # type: ignore[no-untyped-call] # no types
    return labels
