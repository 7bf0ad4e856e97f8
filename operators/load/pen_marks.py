"""Pen marks: blue, green, black and pure red ink, and the blurred edges of their strokes."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from skimage.morphology import remove_small_objects

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_SMALLEST_MARK = 4e-5  # share of the thumbnail; a smaller spot of that colour is no stroke
_REACH = 0.01  # of the thumbnail's mean side: how far the blurred edge of a stroke may spread
_EDGE_LIKENESS = 0.97  # cosine between an edge pixel's absorption and that of the ink next to it


def ink_mask(density: Floats, is_colour: bool) -> Mask:
    """Return the pixels that are pen rather than stain.

    Inks are told from stains by the direction of their optical density, the ratios between red, green and blue, which
    does not change with the amount of dye. The stains of nuclei and what is around them absorb green most
    (haematoxylin, eosin) or blue most (diaminobenzidine). Blue and green inks absorb red most, black ink absorbs all
    alike, and only red ink absorbs green and blue alike and almost no red.

    A blurred or anti-aliased edge is a mixture of ink and glass. A mixture is linear in the absorbed *fraction*, not
    in density: whatever the shares, its direction there is that of the ink. So near ink, pixels that absorb in the
    proportions of the nearest ink are ink, too.

    Parameters
    ----------
    density : numpy.ndarray
        (3, h, w) float32 optical density against glass, in red, green and blue.
    is_colour : bool
        False for a greyscale thumbnail, where black ink cannot be told from tissue.
    """
    red, green, blue = np.maximum(density, 0)
    seeds: Mask = (red > 0.5) & (red > 1.05 * green) & (blue < 0.3 * red)  # blue
    seeds |= (red > 0.4) & (red > 1.3 * green) & (blue < 0.6 * red)  # pale blue, cyan
    seeds |= (red > 0.25) & (green < 0.75 * red) & (green < 1.1 * blue)  # green, teal
    seeds |= (green > 0.7) & (red < 0.2 * green) & (blue > 0.75 * green) & (blue < 1.6 * green)  # red
    if is_colour:
        least, most = density.min(axis=0), density.max(axis=0)
        seeds |= (least > 0.8) & (most - least < 0.25 * most)  # black
    if not seeds.any():
        return seeds
    seeds = remove_small_objects(seeds, max_size=max(4, round(_SMALLEST_MARK * seeds.size)))
    if seeds.any():
        seeds |= _edges(density, seeds)
    return seeds


def _edges(density: Floats, seeds: Mask) -> Mask:
    """Return the pixels near `seeds` that absorb in the proportions of the nearest seed."""
    distance, nearest = cv2.distanceTransformWithLabels(
        (~seeds).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    near = (distance <= max(3.0, _REACH * float(np.sqrt(seeds.size)))) & ~seeds
    # OpenCV numbers the seeds in an order of its own: look the numbers up.
    ink = np.zeros((3, int(nearest.max()) + 1), np.float32)
    ink[:, nearest[seeds]] = _absorbed(density[:, seeds])
    here, there = _absorbed(density[:, near]), ink[:, nearest[near]]
    norms = np.linalg.norm(here, axis=0) * np.linalg.norm(there, axis=0)
    edges = np.zeros_like(seeds)
    edges[near] = (here * there).sum(axis=0) > _EDGE_LIKENESS * norms
    return edges


def _absorbed(density: Floats) -> Floats:
    return 1 - np.exp(-np.maximum(density, 0))
