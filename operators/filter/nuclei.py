"""Nuclei as objects: from maps to seeds, one in each nucleus, and from seeds to instances.

This is the only place that decides what one nucleus is. The count of a run (`operators.filter.count`) and the
evaluation of a model both go by its seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from skimage.measure import label

from nuclei_segmentation.shared.batches import Pixels

Labels = npt.NDArray[np.int32]

NUCLEUS = 127
"""A pixel is nucleus where its map is above this, a probability of one half."""
DEEP = 127
"""A pixel of a nucleus is in its seed where the map ``distance`` is above this, half-way from outline to middle."""
SPECK = 3
"""Seeds of fewer pixels than this are noise."""


def seeds(maps: Pixels, channels: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return the pixels that are in the middle of a nucleus.

    Parameters
    ----------
    maps : numpy.ndarray
        (h, w, C) uint8; channel 0 is the probability of nucleus.
    channels : Sequence of str
        Names of the maps. ``distance`` (depth within the nucleus: 0 at its outline, 255 in its middle) or else
        ``boundary`` (255 between nuclei) keeps nuclei apart that touch. Of a model with neither, nuclei that touch are
        one.

    Returns
    -------
    numpy.ndarray
        (h, w) bool; each nucleus has one connected piece, by edges or corners.
    """
    nuclei = maps[..., 0] > NUCLEUS
    if "distance" in channels:
        return nuclei & (maps[..., channels.index("distance")] > DEEP)
    if "boundary" in channels:
        return nuclei & (maps[..., channels.index("boundary")] <= NUCLEUS)
    return nuclei


def label_seeds(pieces: npt.NDArray[np.bool_]) -> Labels:
    """Return (h, w) int32: the connected pieces of (h, w) bool, numbered from 1, and 0 between them."""
    numbered: Labels = np.asarray(label(pieces, connectivity=2), np.int32)  # type: ignore[no-untyped-call] # no types
    return numbered


def instances(maps: Pixels, channels: Sequence[str]) -> Labels:
    """Divide the nucleus pixels among the seeds, by a watershed.

    Parameters
    ----------
    maps, channels : numpy.ndarray, Sequence of str
        As for `seeds`.

    Returns
    -------
    numpy.ndarray
        (h, w) int32: 0 is no nucleus, 1 … n are the nuclei. A piece of the map without a seed is none.
    """
    # Imported here: a run only counts, and need not load it.
    from skimage.segmentation import watershed

    markers = label_seeds(seeds(maps, channels))
    kept = np.bincount(markers.ravel()) >= SPECK
    kept[0] = False
    numbers = (np.cumsum(kept) * kept).astype(np.int32)
    if "distance" in channels:
        height = 255 - maps[..., channels.index("distance")]
    elif "boundary" in channels:
        height = maps[..., channels.index("boundary")]
    else:
        height = 255 - maps[..., 0]
    inside = maps[..., 0] > NUCLEUS
    divided: Labels = watershed(height, numbers[markers], mask=inside)  # type: ignore[no-untyped-call] # no types
    return divided
