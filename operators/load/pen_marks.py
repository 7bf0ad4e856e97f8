"""Pen marks: blue, green, black and pure red ink, and the blurred edges of their strokes."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.load.pieces import without_small_pieces

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

_SMALLEST_MARK = 4e-5  # share of the thumbnail; a smaller spot of that colour is not a pen mark
_EDGE_WIDTH = 0.01  # widest blurred edge of a stroke, as a share of the mean side of the thumbnail
_EDGE_LIKENESS = 0.97  # cosine between the absorption of an edge pixel and that of the ink next to it


def pen_mark_mask(density: Floats, is_colour: bool) -> Mask:
    """Return the pixels that are pen marks rather than stain.

    Inks differ from stains in the direction of their optical density, that is, in the ratios of red, green and blue,
    which do not depend on the amount of dye. Stains of nuclei and their surroundings absorb green most (haematoxylin,
    eosin) or blue most (diaminobenzidine). Blue and green inks absorb red most, black ink absorbs all three equally,
    and only red ink absorbs green and blue equally and almost no red.

    A blurred or anti-aliased edge is a mixture of ink and glass. The *fraction* of light that a mixture absorbs is
    proportional to that of the ink, whatever the shares; its density is not. So a pixel near a pen mark belongs to the
    mark if it absorbs red, green and blue in the proportions of the nearest ink.

    Parameters
    ----------
    density : numpy.ndarray
        (3, h, w) float32; optical density relative to the background, in red, green and blue.
    is_colour : bool
        False for a greyscale thumbnail, in which black ink cannot be told from tissue.

    Returns
    -------
    numpy.ndarray
        (h, w) bool; True on pen marks.
    """
    red, green, blue = np.maximum(density, 0)
    marks: Mask = (red > 0.5) & (red > 1.05 * green) & (blue < 0.3 * red)  # blue
    marks |= (red > 0.4) & (red > 1.3 * green) & (blue < 0.6 * red)  # pale blue, cyan
    marks |= (red > 0.25) & (green < 0.75 * red) & (green < 1.1 * blue)  # green, teal
    marks |= (green > 0.7) & (red < 0.2 * green) & (blue > 0.75 * green) & (blue < 1.6 * green)  # red
    if is_colour:
        least, most = density.min(axis=0), density.max(axis=0)
        marks |= (least > 0.8) & (most - least < 0.25 * most)  # black
    if not marks.any():
        return marks
    marks = without_small_pieces(marks, max(4, round(_SMALLEST_MARK * marks.size)))
    if marks.any():
        marks |= _edges(density, marks)
    return marks


def _edges(density: Floats, marks: Mask) -> Mask:
    """Return the pixels near `marks` that absorb in the proportions of the nearest mark."""
    distance, nearest = cv2.distanceTransformWithLabels(
        (~marks).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    near = (distance <= max(3.0, _EDGE_WIDTH * float(np.sqrt(marks.size)))) & ~marks
    # OpenCV chooses the label of each marked pixel; `nearest` holds it.
    ink = np.zeros((3, int(nearest.max()) + 1), np.float32)
    ink[:, nearest[marks]] = _absorbed(density[:, marks])
    here, there = _absorbed(density[:, near]), ink[:, nearest[near]]
    norms = np.linalg.norm(here, axis=0) * np.linalg.norm(there, axis=0)
    edges = np.zeros_like(marks)
    edges[near] = (here * there).sum(axis=0) > _EDGE_LIKENESS * norms
    return edges


def _absorbed(density: Floats) -> Floats:
    return 1 - np.exp(-np.maximum(density, 0))
