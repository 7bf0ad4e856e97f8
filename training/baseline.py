"""What needs no training: Otsu's threshold, and a watershed on the distance transform."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.color import rgb2gray
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.segmentation import watershed

from nuclei_segmentation.shared.batches import Pixels

APART = 5
"""Pixels by which the middles of two nuclei are apart at least."""


def otsu(image: Pixels) -> npt.NDArray[np.int32]:
    """Find nuclei as what is unlike most of the image.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB: light nuclei on black, or dark ones on white.

    Returns
    -------
    numpy.ndarray
        (h, w) int32: 0 is background, 1 … n are the nuclei.
    """
    grey = ndimage.gaussian_filter(rgb2gray(image), 1.0)
    if grey.min() == grey.max():
        return np.zeros(grey.shape, np.int32)
    light = grey > threshold_otsu(grey)  # type: ignore[no-untyped-call] # no types
    inside = light if np.median(image) < 128 else ~light
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), 1.0)
    pieces, _ = ndimage.label(inside)
    markers = np.zeros(grey.shape, np.int32)
    middles = peak_local_max(depth, min_distance=APART, labels=pieces)  # type: ignore[no-untyped-call] # no types
    markers[tuple(middles.T)] = np.arange(1, len(middles) + 1)
    divided: npt.NDArray[np.int32] = watershed(-depth, markers, mask=inside)  # type: ignore[no-untyped-call] # no types
    return divided
