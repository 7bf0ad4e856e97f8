"""Where on the slide there is tissue."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from skimage import filters
from skimage.morphology import remove_small_holes

from nuclei_segmentation.operators.load import background
from nuclei_segmentation.operators.load.pen_marks import ink_mask

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

# Natural-log optical densities (0.04 is 10 of 250 levels) at which a pixel is tissue by itself. Half of them is
# enough for a pixel that hangs together with such a one.
_COLOUR = 0.025  # towards magenta, or between yellow and blue: no glass is that much more colourful than its mode
_DARKNESS = 0.12  # mean of the channels: shadows of bubbles and coverslips stay below
_GREYSCALE_DARKNESS = 0.05  # where there is no colour to go by
_WEAK = 0.5
_NOISE = 5.0  # the thresholds never fall below that many medians of the glass's own deviation

# Lengths are shares of the square root of the thumbnail's pixels, areas shares of its pixels: a thumbnail's scale in
# micrometres is often unknown, its number of pixels never.
_THICK = 0.003
_THICK_GREY = 0.006
_CLOSED_GAP = 0.008
_MARGIN = 0.003
_INK_HALO = 0.02  # JPEG smears the colour of ink this far
_SMALLEST_STROKE = 3e-3
_SMALLEST = 1e-5
_SMALLEST_GREY = 1.5e-3
_LARGEST_HOLE = 4e-3
_GREY = 0.25  # spread between the channels over the largest of them: stains have 0.3 and more
_STAIN_NOT_INK = 0.9  # more "ink" than this among all that is not glass is the slide's stain


def tissue_mask(thumbnail: npt.NDArray[np.uint8]) -> Mask:
    """Tell tissue from glass, ink, dust and fill on a brightfield slide, stained with H&E or by immunohistochemistry.

    The policy: losing nuclei is worse than inferring a tile for nothing. In doubt a pixel is tissue; all is tissue
    where no glass can be found, and where the background is dark (`looks_like_fluorescence`); and a margin of 0.3% of
    the thumbnail's mean side is added.

    Thresholds that split a histogram (Otsu, 1979, and its kin) assume two classes and put pale tissue with the glass
    where there is dark tissue, and half of the tissue with the glass where there is none. Here glass is described,
    and whatever is not like it is tissue:

    1. Unscanned fill is pure white or black with upright borders; it is left out (`background.unscanned`).
    2. The glass level and the illumination are fitted to the brightest mode of bright, flat, neutral pixels
       (`background.measure`); from here on colours are optical densities against that glass (Ruifrok and
       Johnston, 2001).
    3. Stain: density towards magenta or between yellow and blue, or plain darkness, by hysteresis (Canny, 1986) with
       thresholds that rise with the noise of the glass.
    4. Ink is told by its proportions of red, green and blue density (`ink.ink_mask`), unless it is nearly all there
       is: then it is a stain of that colour. Small patches of ink at tissue stay: that is how surgeons mark margins.
       What is thin and next to ink is the smear that JPEG makes of its border.
    5. Small or thin *grey* pieces are dust, hairs and coverslip edges. Coloured ones stay, down to 10 pixels in a
       million.
    6. Gaps and small holes are closed: fat cells are as pale as glass, and only the septa between them are stained.
       Then the margin is added.

    Sizes scale with the thumbnail. There is no randomness.

    Parameters
    ----------
    thumbnail : numpy.ndarray
        (h, w, 3) uint8 RGB, the whole slide at low resolution, of any size.

    Returns
    -------
    numpy.ndarray
        (h, w) bool, True on tissue.
    """
    _check(thumbnail)
    fill = background.unscanned(thumbnail)
    if fill.all() or _is_dark(thumbnail, ~fill):
        return ~fill
    absorption = background.measure(thumbnail, ~fill)
    density = absorption.density
    is_colour = _is_colour(thumbnail)
    found = ~fill
    if absorption.has_glass:
        found &= _stained(density, absorption.glass, is_colour)
    ink = _pen_strokes(found & ink_mask(density, is_colour), found)
    if np.count_nonzero(ink) <= _STAIN_NOT_INK * np.count_nonzero(found):
        found &= ~ink
        found &= _solid(found) | ~_grown(ink, _INK_HALO)
    if absorption.has_glass:
        found = _without_debris(found, density, is_colour)
        found = remove_small_holes(found, max_size=round(_LARGEST_HOLE * found.size))
        found = _shrunk(_grown(found, _CLOSED_GAP + _MARGIN), _CLOSED_GAP)
    else:
        found = _grown(found, _MARGIN)
    return found & ~fill


def looks_like_fluorescence(thumbnail: npt.NDArray[np.uint8]) -> bool:
    """Tell whether the background is dark, so that the thumbnail is no brightfield image.

    `tissue_mask` keeps all of such a slide, which is right but slow; the caller may say so.

    Parameters
    ----------
    thumbnail : numpy.ndarray
        (h, w, 3) uint8 RGB.
    """
    _check(thumbnail)
    return _is_dark(thumbnail, ~background.unscanned(thumbnail))


def _is_dark(thumbnail: npt.NDArray[np.uint8], scanned: Mask) -> bool:
    if not scanned.any():
        return False
    red, green, blue = cv2.split(thumbnail)
    # Half of a brightfield slide is never this dark: even dense haematoxylin passes a quarter of the blue light.
    return bool(np.median(cv2.max(cv2.max(red, green), blue)[scanned]) < 60)


def _check(thumbnail: npt.NDArray[np.uint8]) -> None:
    if thumbnail.dtype != np.uint8 or thumbnail.ndim != 3 or thumbnail.shape[2] != 3 or thumbnail.size == 0:
        raise ValueError(
            f"A thumbnail is an RGB image of uint8 with at least one pixel, not {thumbnail.shape} of {thumbnail.dtype}."
        )


def _is_colour(thumbnail: npt.NDArray[np.uint8]) -> bool:
    red, green, blue = cv2.split(thumbnail)
    return bool(np.percentile(cv2.max(cv2.absdiff(red, green), cv2.absdiff(green, blue)), 99.9) > 8)


def _stained(density: Floats, on_glass: Mask, is_colour: bool) -> Mask:
    red, green, blue = density
    darkness = (red + green + blue) / 3
    if is_colour:
        # A hue that absorbs green least is no stain in use here: it counts by its darkness alone.
        colour = cv2.magnitude(np.maximum(green - (red + blue) / 2, 0), blue - red)
        noise = float(np.median(colour[on_glass]))
        colour[darkness <= 0] = 0
        score = np.maximum(colour / max(_COLOUR, _NOISE * noise), darkness / _DARKNESS)
    else:
        noise = float(np.median(np.abs(darkness[on_glass])))
        score = darkness / max(_GREYSCALE_DARKNESS, _NOISE * noise)
    found: Mask = filters.apply_hysteresis_threshold(score, _WEAK, 1.0)  # type: ignore[no-untyped-call]  # untyped in skimage
    return found


def _pen_strokes(ink: Mask, found: Mask) -> Mask:
    """Return `ink` without its small pieces at tissue."""
    if not ink.any():
        return ink
    _, labels, stats, _ = cv2.connectedComponentsWithStats(ink.astype(np.uint8), connectivity=8)
    at_tissue = np.zeros(len(stats), np.bool_)
    at_tissue[labels[_grown(_solid(found & ~ink), _MARGIN)]] = True
    strokes = ~at_tissue | (stats[:, cv2.CC_STAT_AREA] >= _SMALLEST_STROKE * ink.size)
    kept: Mask = ink & strokes[labels]
    return kept


def _without_debris(found: Mask, density: Floats, is_colour: bool) -> Mask:
    """Drop grey pieces that are thin or small, and specks of any colour."""
    grey = np.zeros_like(found)
    if is_colour:
        most = density.max(axis=0)
        grey = found & (most - density.min(axis=0) < _GREY * most)
        lines = grey & ~_solid(found, _THICK_GREY)
        found = found & ~lines
        # On tinted glass JPEG leaves coloured crumbs along a grey line: they go with it.
        grey |= _grown(lines, _THICK)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    is_grey = 2 * np.bincount(labels[grey & found], minlength=count) > area
    keep = area >= np.where(is_grey, _SMALLEST_GREY, _SMALLEST) * found.size
    keep[0] = False
    kept: Mask = keep[labels]
    return kept


def _solid(mask: Mask, share: float = _THICK) -> Mask:
    """Return what is not thin."""
    return _grown(_shrunk(mask, share), share)


def _disc(mask: Mask, share: float) -> npt.NDArray[np.uint8]:
    radius = max(1, round(share * float(np.sqrt(mask.size))))
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)).astype(np.uint8)


def _grown(mask: Mask, share: float) -> Mask:
    """Dilate by `share` of the mask's mean side."""
    grown: Mask = cv2.dilate(mask.astype(np.uint8), _disc(mask, share)).astype(np.bool_)
    return grown


def _shrunk(mask: Mask, share: float) -> Mask:
    """Erode by `share` of the mask's mean side; beyond the border there is more of the same."""
    shrunk: Mask = cv2.erode(mask.astype(np.uint8), _disc(mask, share)).astype(np.bool_)
    return shrunk
