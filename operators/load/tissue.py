"""The tissue mask: where the thumbnail of a slide shows tissue."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.load import background
from nuclei_segmentation.operators.load.pen_marks import pen_mark_mask
from nuclei_segmentation.operators.load.pieces import above_either, without_small_holes

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Natural-log optical densities (0.04 is 10 of 250 levels) from which a pixel is tissue in its own right. A pixel
# connected to such a pixel needs only _WEAK times as much.
_COLOUR = 0.025  # towards magenta, or between yellow and blue; background never deviates that much from its mode
_DARKNESS = 0.12  # mean of the channels; shadows of bubbles and coverslips stay below it
_GREYSCALE_DARKNESS = 0.05  # for a thumbnail without colour
_WEAK = 0.5
_NOISE = 5.0  # the thresholds are at least this many medians of the deviation of the background

# Lengths are shares of the square root of the number of pixels, areas are shares of the number of pixels: the scale of
# a thumbnail in micrometres is often unknown.
_THICK = 0.003
_THICK_GREY = 0.006
_CLOSED_GAP = 0.008
_MARGIN = 0.003
_PEN_SMEAR = 0.02  # JPEG smears the colour of ink this far
_SMALLEST_STROKE = 3e-3
_SMALLEST = 1e-5
_SMALLEST_GREY = 1.5e-3
_LARGEST_HOLE = 4e-3
_GREY = 0.25  # spread between the channels divided by the largest of them; 0.3 and more in stains
_STAIN_NOT_PEN = 0.9  # share of the stained pixels; if more have the colour of ink, it is the stain


def tissue_mask(thumbnail: npt.NDArray[np.uint8], unknown: Mask | None = None) -> Mask:
    """Separate tissue from background, pen marks and dust on a brightfield slide (H&E or immunohistochemistry).

    The policy: losing nuclei is worse than inferring a tile for nothing. When in doubt, a pixel is tissue. Everything
    that was scanned is tissue if no background is found, or if the background is dark (`looks_like_fluorescence`). A
    margin of 0.3% of the mean side of the thumbnail is added. So is what is unknown: it may hide tissue. It plays no
    part in measuring the background, and a piece of tissue that it cuts counts as if it went on there.

    Thresholds that split a histogram in two (Otsu, 1979, and its successors) assign pale tissue to the background if
    there is also dark tissue, and half of the tissue to the background if there is no background. Here the background
    is modelled instead, and whatever does not fit the model is tissue:

    1. Areas that the scanner left out are pure white or black with straight borders. They are background
       (`background.unscanned`).
    2. The level and the illumination of the background are fitted to the brightest mode of the bright, flat, neutral
       pixels (`background.measure`). All later steps work on optical densities relative to it (Ruifrok and Johnston,
       2001).
    3. A pixel is stained if its density tends towards magenta, yellow or blue, or if it is dark. Hysteresis (Canny,
       1986) is used, with thresholds that rise with the noise of the background.
    4. Pen marks are recognised by their ratios of red, green and blue density (`pen_marks.pen_mark_mask`). If nearly
       everything has such a colour, it is the stain. Small patches of ink on tissue are kept, since surgeons mark
       margins with them. Thin structures next to a pen mark are dropped: JPEG smears the border of the mark.
    5. Small or thin *grey* pieces are dust, hairs and coverslip edges, and are dropped. Coloured pieces are kept, down
       to 10 pixels in a million.
    6. Gaps and small holes are closed: fat cells are as pale as glass, and only the septa between them are stained.
       Then the margin is added.

    All sizes scale with the thumbnail. The result is deterministic.

    Parameters
    ----------
    thumbnail : numpy.ndarray
        (h, w, 3) uint8 RGB; the whole slide at low resolution, of any size.
    unknown : numpy.ndarray or None, optional
        (h, w) bool; True where the pixels have no meaning, since the slide cannot be read there.

    Returns
    -------
    numpy.ndarray
        (h, w) bool; True on tissue.

    Raises
    ------
    ValueError
        The thumbnail is empty, or not an RGB image of uint8.
    """
    _check(thumbnail)
    known = np.ones(thumbnail.shape[:2], np.bool_) if unknown is None else ~unknown
    thumbnail = background.filled(thumbnail, known)
    scanned = ~background.unscanned(thumbnail, known)
    measured = scanned & known
    if not measured.any() or _is_dark(thumbnail, measured):
        return scanned
    absorption = background.measure(thumbnail, measured)
    density = absorption.density
    is_colour = _is_colour(thumbnail)
    tissue = scanned.copy()
    if absorption.has_background:
        tissue &= _stained(density, absorption.background, is_colour, ~known)
    pen_marks = _without_margin_ink(tissue & known & pen_mark_mask(density, is_colour), tissue)
    if np.count_nonzero(pen_marks) <= _STAIN_NOT_PEN * np.count_nonzero(tissue & known):
        tissue &= ~pen_marks
        tissue &= _opened(tissue) | ~_dilated(pen_marks, _PEN_SMEAR) | ~known
    if absorption.has_background:
        tissue = _without_debris(tissue, density, is_colour, ~known)
        tissue = without_small_holes(tissue, round(_LARGEST_HOLE * tissue.size))
        tissue = _eroded(_dilated(tissue, _CLOSED_GAP + _MARGIN), _CLOSED_GAP)
    else:
        tissue = _dilated(tissue, _MARGIN)
    return tissue & scanned


def looks_like_fluorescence(thumbnail: npt.NDArray[np.uint8], unknown: Mask | None = None) -> bool:
    """Tell whether the background is dark, so that the thumbnail is not a brightfield image.

    `tissue_mask` keeps all that was scanned of such a slide; the caller may want to warn.

    Parameters
    ----------
    thumbnail : numpy.ndarray
        (h, w, 3) uint8 RGB.
    unknown : numpy.ndarray or None, optional
        (h, w) bool; True where the pixels have no meaning.

    Returns
    -------
    bool
        Whether the median pixel is dark.
    """
    _check(thumbnail)
    known = np.ones(thumbnail.shape[:2], np.bool_) if unknown is None else ~unknown
    return _is_dark(thumbnail, known & ~background.unscanned(thumbnail, known))


def _is_dark(thumbnail: npt.NDArray[np.uint8], scanned: Mask) -> bool:
    if not scanned.any():
        return False
    red, green, blue = cv2.split(thumbnail)
    # At most half of a brightfield slide is this dark: even dense haematoxylin transmits a quarter of the blue light.
    return bool(np.median(cv2.max(cv2.max(red, green), blue)[scanned]) < 60)


def _check(thumbnail: npt.NDArray[np.uint8]) -> None:
    if thumbnail.dtype != np.uint8 or thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.size == 0:
        raise ValueError(
            f"a thumbnail must be a non-empty RGB image of uint8, not an array {thumbnail.shape} of {thumbnail.dtype}"
        )


def _is_colour(thumbnail: npt.NDArray[np.uint8]) -> bool:
    red, green, blue = cv2.split(thumbnail)
    return bool(np.percentile(cv2.max(cv2.absdiff(red, green), cv2.absdiff(green, blue)), 99.9) > 8)


def _stained(density: Floats, background_pixels: Mask, is_colour: bool, unknown: Mask) -> Mask:
    red, green, blue = density
    darkness = (red + green + blue) / 3
    if is_colour:
        # No stain absorbs green least: such a hue counts by its darkness alone.
        colour = cv2.magnitude(np.maximum(green - (red + blue) / 2, 0), blue - red)
        noise = float(np.median(colour[background_pixels]))
        colour[darkness <= 0] = 0
        score = np.maximum(colour / max(_COLOUR, _NOISE * noise), darkness / _DARKNESS)
    else:
        noise = float(np.median(np.abs(darkness[background_pixels])))
        score = darkness / max(_GREYSCALE_DARKNESS, _NOISE * noise)
    score[unknown] = np.inf
    return above_either(score, _WEAK, 1.0)


def _without_margin_ink(pen_marks: Mask, tissue: Mask) -> Mask:
    """Return the pen marks without small pieces that touch tissue, with which surgeons mark margins."""
    if not pen_marks.any():
        return pen_marks
    _, labels, stats, _ = cv2.connectedComponentsWithStats(pen_marks.astype(np.uint8), connectivity=8)
    at_tissue = np.zeros(len(stats), np.bool_)
    at_tissue[labels[_dilated(_opened(tissue & ~pen_marks), _MARGIN)]] = True
    strokes = ~at_tissue | (stats[:, cv2.CC_STAT_AREA] >= _SMALLEST_STROKE * pen_marks.size)
    kept: Mask = pen_marks & strokes[labels]
    return kept


def _without_debris(tissue: Mask, density: Floats, is_colour: bool, unknown: Mask) -> Mask:
    """Drop grey pieces that are thin or small, and specks of any colour, but none that goes on in the unknown."""
    grey = np.zeros_like(tissue)
    if is_colour:
        most = density.max(axis=0)
        grey = tissue & ~unknown & (most - density.min(axis=0) < _GREY * most)
        lines = grey & ~_opened(tissue, _THICK_GREY)
        tissue = tissue & ~lines
        # On tinted glass, JPEG leaves coloured specks along a grey line: they count as grey.
        grey |= _dilated(lines, _THICK)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(tissue.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    is_grey = 2 * np.bincount(labels[grey & tissue], minlength=count) > area
    keep = area >= np.where(is_grey, _SMALLEST_GREY, _SMALLEST) * tissue.size
    keep[labels[unknown]] = True
    keep[0] = False
    kept: Mask = keep[labels]
    return kept


def _opened(mask: Mask, share: float = _THICK) -> Mask:
    """Open the mask: drop what is thin."""
    return _dilated(_eroded(mask, share), share)


def _disc(mask: Mask, share: float) -> npt.NDArray[np.uint8]:
    radius = max(1, round(share * float(np.sqrt(mask.size))))
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)).astype(np.uint8)


def _dilated(mask: Mask, share: float) -> Mask:
    """Dilate by `share` of the mean side of the mask."""
    dilated: Mask = cv2.dilate(mask.astype(np.uint8), _disc(mask, share)).astype(np.bool_)
    return dilated


def _eroded(mask: Mask, share: float) -> Mask:
    """Erode by `share` of the mean side of the mask; the border of the image erodes nothing."""
    eroded: Mask = cv2.erode(mask.astype(np.uint8), _disc(mask, share)).astype(np.bool_)
    return eroded
