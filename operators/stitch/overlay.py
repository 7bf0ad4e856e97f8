"""Draws nuclei: a pixel is nucleus where its map is above the threshold.

All arithmetic is in integers, so the result is the same on every machine. Pixels outside nuclei are never changed.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.nucleus_pixels import is_nucleus, uint8_limit
from nuclei_segmentation.shared.settings import OverlaySettings

Mask = npt.NDArray[np.uint8]
"""1 in nuclei and 0 elsewhere, one byte a pixel as OpenCV takes it."""

_PIXEL = np.dtype("V3")


class OverlayPainter:
    """Paints nuclei in one style.

    Parameters
    ----------
    settings : OverlaySettings
        Style, colour, opacity and threshold.

    Attributes
    ----------
    threshold : int
        A pixel whose map is above it, on the scale of 0 to 255, is nucleus.
    margin : int
        How many pixels around a region must be known to paint the region: an outline depends on its neighbours.
    """

    def __init__(self, settings: OverlaySettings) -> None:
        self.threshold = uint8_limit(settings.threshold)
        self.margin = 1 if settings.style == "outline" else 0
        self._table = _blend(settings.color, settings.opacity)

    def nuclei(self, maps: Pixels) -> npt.NDArray[np.bool_]:
        """Return where maps, uint8 of any shape, are nucleus."""
        return is_nucleus(maps, self.threshold)

    def paint(self, pixels: Pixels, nuclei: Mask) -> None:
        """Draw nuclei into pixels, in place.

        Parameters
        ----------
        pixels : numpy.ndarray
            (h, w, 3) uint8 RGB, C-contiguous.
        nuclei : numpy.ndarray
            (h + 2 m, w + 2 m) uint8, 1 in nuclei and 0 elsewhere, with m = `margin`.
        """
        drawn = _contour(nuclei) if self.margin else nuclei
        # As bool: NumPy finds the nonzero items of bools several times faster than those of bytes.
        indices = np.flatnonzero(drawn.view(np.bool_))
        if len(indices) == 0:
            return
        if 4 * len(indices) < drawn.size:
            # As items of three bytes, so that NumPy moves one item a pixel instead of three.
            flat = pixels.reshape(-1).view(_PIXEL)
            chosen = flat.take(indices).view(np.uint8).reshape(1, -1, 3)
            flat[indices] = _look_up(chosen, self._table).reshape(-1).view(_PIXEL)
        else:
            cv2.copyTo(_look_up(pixels, self._table), np.ascontiguousarray(drawn), pixels)


def _contour(nuclei: Mask) -> Mask:
    """Return the nucleus pixels of which a neighbour (left, right, above or below) is not nucleus."""
    enclosed = nuclei[:-2, 1:-1] & nuclei[2:, 1:-1]
    enclosed &= nuclei[1:-1, :-2]
    enclosed &= nuclei[1:-1, 2:]
    result: Mask = np.greater(nuclei[1:-1, 1:-1], enclosed).view(np.uint8)
    return result


def _blend(color: tuple[int, int, int], opacity: float) -> Pixels:
    """Return (1, 256, 3) uint8: what each value of each channel becomes under the colour."""
    part = round(opacity * 256)
    values = np.arange(256, dtype=np.int32)[:, None]
    table = (values * (256 - part) + np.array(color, np.int32) * part + 128) >> 8
    return table.astype(np.uint8)[None]


def _look_up(pixels: Pixels, table: Pixels) -> Pixels:
    result: Any = cv2.LUT(pixels, table)
    return np.asarray(result, np.uint8)
