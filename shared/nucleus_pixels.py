"""Which pixels of a probability map are nucleus: those whose probability is above a threshold.

Maps are uint8, so a threshold from 0 to 1 becomes a limit from 0 to 255. A pixel is nucleus where its map is above the
limit.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels


def uint8_limit(threshold: float) -> int:
    """Return the largest value of a uint8 map that is not above a threshold.

    Parameters
    ----------
    threshold : float
        A probability, 0 to 1.

    Returns
    -------
    int
        0 to 255.
    """
    # repr gives the decimal that the user wrote, so the rounding error of a binary fraction cannot move the limit.
    return math.floor(Fraction(repr(threshold)) * 255)


def is_nucleus(probability: Pixels, limit: int) -> npt.NDArray[np.bool_]:
    """Return which pixels are nucleus.

    Parameters
    ----------
    probability : numpy.ndarray
        Probability maps, uint8 of any shape.
    limit : int
        From `uint8_limit`.

    Returns
    -------
    numpy.ndarray
        bool, of the same shape.
    """
    return probability > limit
