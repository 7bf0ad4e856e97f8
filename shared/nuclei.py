"""Nuclei as objects: from maps to seeds, one in each nucleus.

Only this module decides what one nucleus is. The count of a run (`operators.stitch.count`) and the instances by which a
model is evaluated (`shared.instances`) both use its seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.nucleus_pixels import is_nucleus, uint8_limit

Labels = npt.NDArray[np.int32]

NUCLEUS_LIMIT = uint8_limit(0.5)
"""A pixel is nucleus where its probability map is above this value, if `overlay.threshold` says nothing else."""
DISTANCE_LIMIT = uint8_limit(0.5)
"""A nucleus pixel belongs to the seed where the map ``distance`` is above this: half-way from outline to middle."""
BOUNDARY_LIMIT = uint8_limit(0.5)
"""Without ``distance``, a nucleus pixel belongs to the seed where the map ``boundary`` is not above this."""
SMALLEST_SEED = 3
"""Pixels. Smaller seeds are noise."""


def seed_pixels(maps: Pixels, channels: Sequence[str], limit: int = NUCLEUS_LIMIT) -> npt.NDArray[np.bool_]:
    """Return the pixels that are in the middle of a nucleus.

    Parameters
    ----------
    maps : numpy.ndarray
        (h, w, C) uint8; channel 0 is the probability of nucleus.
    channels : Sequence of str
        Names of the maps. Touching nuclei are kept apart by ``distance`` (depth in the nucleus: 0 at its outline, 255
        in its middle) or, without it, by ``boundary`` (255 between nuclei). With neither, touching nuclei are one.
    limit : int, optional
        A pixel is nucleus where the probability is above this.

    Returns
    -------
    numpy.ndarray
        (h, w) bool. Each nucleus has one connected piece; pixels are connected by edges or corners.
    """
    nuclei = is_nucleus(channel(maps, 0), limit)
    if "distance" in channels:
        nuclei &= channel(maps, channels.index("distance")) > DISTANCE_LIMIT
    elif "boundary" in channels:
        nuclei &= channel(maps, channels.index("boundary")) <= BOUNDARY_LIMIT
    return nuclei


def channel(maps: Pixels, number: int) -> Pixels:
    """Return one of the maps, contiguous.

    Parameters
    ----------
    maps : numpy.ndarray
        (h, w, C) uint8.
    number : int
        Which of the C maps.

    Returns
    -------
    numpy.ndarray
        (h, w) uint8; a view where the maps lie one after the other in memory.
    """
    plane = maps[..., number]
    if plane.flags.c_contiguous:
        return plane
    # NumPy reads every C-th byte one by one; OpenCV separates interleaved channels with vector instructions.
    return np.asarray(cv2.extractChannel(maps, number), np.uint8)


def label_seeds(seeds: npt.NDArray[np.bool_]) -> Labels:
    """Return (h, w) int32: the connected pieces of (h, w) bool, numbered from 1 row by row, and 0 between them."""
    # Of OpenCV's algorithms, those that look at blocks of pixels are faster, but number the pieces in another order.
    pixels = np.ascontiguousarray(seeds).view(np.uint8)
    return np.asarray(cv2.connectedComponentsWithAlgorithm(pixels, 8, cv2.CV_32S, cv2.CCL_SAUF)[1], np.int32)
