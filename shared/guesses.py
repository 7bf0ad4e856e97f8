"""Where tissue is only guessed, since the slide cannot be read there."""

from __future__ import annotations

import logging
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.geometry import Region, TileGrid

log = logging.getLogger(__name__)

LISTED: Final = 1000
"""Most places that are listed; more are counted in the area only."""
_LOGGED: Final = 3


def warn_of_guesses(guessed: npt.NDArray[np.bool_] | None, grid: TileGrid) -> tuple[Region, ...]:
    """Log where tissue is only guessed, and return these places.

    Parameters
    ----------
    guessed : numpy.ndarray or None
        (h, w) bool, over the whole slide; None or all False if nothing is guessed.
    grid : TileGrid
        Of the slide.

    Returns
    -------
    tuple of Region
        The bounding boxes of the connected places, from top to bottom; at most `LISTED`.
    """
    if guessed is None or not guessed.any():
        return ()
    height, width = guessed.shape
    _, _, stats, _ = cv2.connectedComponentsWithStats(guessed.astype(np.uint8), connectivity=8)
    places = []
    for x, y, w, h, _ in stats[1:].tolist():  # the first is what is not guessed
        left, top = x * grid.width // width, y * grid.height // height
        right, bottom = -(-(x + w) * grid.width // width), -(-(y + h) * grid.height // height)
        places.append(Region(left, top, right - left, bottom - top))
    places.sort(key=lambda place: (place.y, place.x))
    first = "; ".join(f"x {p.x} to {p.right - 1}, y {p.y} to {p.bottom - 1}" for p in places[:_LOGGED])
    log.warning(
        "%.2g%% of the slide cannot be read: that it is tissue is only guessed (%s%s)",
        100 * guessed.mean(),
        first,
        f"; and {len(places) - _LOGGED} more" if len(places) > _LOGGED else "",
    )
    return tuple(places[:LISTED])
