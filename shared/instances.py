"""Nuclei as instances: the nucleus pixels divided among the seeds of `shared.nuclei`, by a watershed.

A run only counts nuclei and does not need it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from skimage.segmentation import watershed

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.nuclei import NUCLEUS_LIMIT, SMALLEST_SEED, Labels, label_seeds, seed_pixels
from nuclei_segmentation.shared.nucleus_pixels import is_nucleus


def instances(maps: Pixels, channels: Sequence[str]) -> Labels:
    """Divide the nucleus pixels among the seeds by a watershed.

    Parameters
    ----------
    maps : numpy.ndarray
        (h, w, C) uint8; see `seed_pixels`.
    channels : Sequence of str
        Names of the maps; see `seed_pixels`.

    Returns
    -------
    numpy.ndarray
        (h, w) int32: 0 is no nucleus, 1 … n are the nuclei. Nucleus pixels that are connected to no seed are 0.
    """
    markers = label_seeds(seed_pixels(maps, channels))
    large_enough = np.bincount(markers.ravel()) >= SMALLEST_SEED
    large_enough[0] = False
    new_labels = (np.cumsum(large_enough) * large_enough).astype(np.int32)
    if "distance" in channels:
        height = 255 - maps[..., channels.index("distance")]
    elif "boundary" in channels:
        height = maps[..., channels.index("boundary")]
    else:
        height = 255 - maps[..., 0]
    nuclei = is_nucleus(maps[..., 0], NUCLEUS_LIMIT)
    labels: Labels = watershed(height, new_labels[markers], mask=nuclei)  # type: ignore[no-untyped-call] # no types
    return labels
