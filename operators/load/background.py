"""The background of a thumbnail: areas that the scanner left out, and glass with nothing on it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# The background is bright, nearly neutral and flat. Levels are 0–255; tints are differences of natural logarithms.
_DARKEST = 140.0
_PINKEST = 0.045  # green below the mean of red and blue: typical of eosin and haematoxylin, rare in glass
_MOST_TINTED = 0.16  # any other tint: yellowed mounting medium, a warm lamp, a green filter
_ROUGHEST = 4.0  # standard deviation in 5 × 5 smoothed pixels; JPEG and sensor noise stay below it
_SMALLEST = 0.002  # share of the scanned area; a smaller area is a lumen, not the glass around the tissue
_BRIGHTEST_SHARE = 0.05  # share of the candidate pixels that must lie around the brightest mode
_LIGHT_FALLOFF = 0.3  # log units between the brightest and the darkest place under the lamp
_OUTLIER = 0.05  # log units from the fitted illumination beyond which a pixel is not background

_BLOCKS = 48  # along the longer side; the illumination is fitted to their means
_ENVELOPE_WEIGHT = 0.02  # of a block darker than the fit; a brighter one has weight 1


@dataclass(frozen=True, slots=True)
class Absorption:
    """The optical density of a thumbnail relative to its own background.

    Attributes
    ----------
    density : numpy.ndarray
        (3, h, w) float32; optical density ln(background / pixel) in red, green and blue, 0 on background. Smoothed
        with a Gaussian of 1 pixel.
    background : numpy.ndarray
        (h, w) bool; the pixels from which the level of the background was measured. All False if none were found.
    """

    density: Floats
    background: Mask

    @property
    def has_background(self) -> bool:
        """Whether any background was found."""
        return bool(self.background.any())


def filled(thumbnail: npt.NDArray[np.uint8], known: Mask) -> npt.NDArray[np.uint8]:
    """Give pixels without a meaning the colour of the nearest one that has a meaning.

    So they look neither like glass nor like tissue of their own, and do not change their neighbours by smoothing.

    Parameters
    ----------
    thumbnail : numpy.ndarray
        (h, w, 3) uint8 RGB.
    known : numpy.ndarray
        (h, w) bool; False where the pixels have no meaning.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) uint8 RGB; the thumbnail itself if all pixels are known, or none.
    """
    if known.all() or not known.any():
        return thumbnail
    sources = (~known).astype(np.uint8)  # OpenCV looks for the nearest zero
    _, labels = cv2.distanceTransformWithLabels(sources, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colours = np.empty((labels.max() + 1, 3), np.uint8)
    colours[labels[known]] = thumbnail[known]
    pixels: npt.NDArray[np.uint8] = colours[labels]
    return pixels


def unscanned(thumbnail: npt.NDArray[np.uint8], known: Mask | None = None) -> Mask:
    """Return the areas that the scanner left out: pure white or pure black, with horizontal and vertical borders.

    Scanners fill skipped rectangles with a single value. Glass that is saturated to pure white has the same value, but
    its border with the tissue is never made of long horizontal and vertical runs. So the border decides.

    Parameters
    ----------
    thumbnail : numpy.ndarray
        (h, w, 3) uint8 RGB.
    known : numpy.ndarray or None, optional
        (h, w) bool; False where the pixels have no meaning.

    Returns
    -------
    numpy.ndarray
        (h, w) bool; True where the scanner left something out.
    """
    known = np.ones(thumbnail.shape[:2], np.bool_) if known is None else known
    channels = cv2.split(thumbnail)
    darkest = cv2.min(cv2.min(channels[0], channels[1]), channels[2])
    brightest = cv2.max(cv2.max(channels[0], channels[1]), channels[2])
    found = np.zeros(thumbnail.shape[:2], np.bool_)
    for flat in (darkest >= 254, brightest <= 3):
        # The opening removes areas less than 5 pixels wide: specks of a single value are not fill.
        area = cv2.morphologyEx(flat.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).astype(bool)
        area &= known
        if area.any() and _has_straight_border(area, known):
            found |= area
    return found


def measure(thumbnail: npt.NDArray[np.uint8], scanned: Mask) -> Absorption:
    """Measure the level of the background, and the optical density of every pixel relative to it.

    Optical density makes the amounts of stain additive and cancels the illumination (Ruifrok and Johnston,
    "Quantification of histochemical staining by color deconvolution", 2001). The background is the brightest mode of
    the bright, flat, nearly neutral pixels. A quadratic surface through the logarithms of their levels follows
    vignetting and a tilted lamp. It is fitted to the upper envelope by asymmetric least squares (Eilers and Boelens,
    "Baseline correction with asymmetric least squares smoothing", 2005), so that pale tissue, which is darker, does not
    pull it down.

    If nothing looks like background, the reference is the 99.5th percentile of each channel, and
    `Absorption.background` is all False.

    Parameters
    ----------
    thumbnail : numpy.ndarray
        (h, w, 3) uint8 RGB.
    scanned : numpy.ndarray
        (h, w) bool; False for pixels to ignore, which the scanner left out.

    Returns
    -------
    Absorption
        The optical density, and the background that it is relative to.
    """
    smooth = cv2.GaussianBlur(thumbnail, (0, 0), 1.0)
    table = np.log(np.maximum(np.arange(256, dtype=np.float32), 1))
    logs = np.stack([cv2.LUT(plane, table) for plane in cv2.split(smooth)]).astype(np.float32, copy=False)
    grey = cv2.transform(smooth, np.full((1, 3), 1 / 3, np.float32)).reshape(smooth.shape[:2])
    enough = max(1, _SMALLEST * scanned.sum())
    candidates = _looks_like_background(logs, grey.astype(np.float32)) & scanned
    if candidates.sum() >= enough:
        level = _brightest_mode(grey[candidates])
        candidates &= (grey > level * np.exp(-_LIGHT_FALLOFF)) & (grey < level * 1.1)
        density = _illumination(logs, candidates) - logs
        background = candidates & (np.abs(density.mean(axis=0)) < _OUTLIER)
        if background.sum() >= enough:
            return Absorption(density, background)
    seen = logs[:, scanned] if scanned.any() else logs.reshape(3, -1)
    reference = np.percentile(seen, 99.5, axis=1).astype(np.float32)
    return Absorption(reference[:, None, None] - logs, np.zeros_like(scanned))


def _has_straight_border(area: Mask, known: Mask) -> bool:
    """Tell whether the border of an area is mostly straight; where it meets the unknown is not its border."""
    run = max(8, min(area.shape) // 40)
    border = straight = 0
    for image, seen in ((area, known), (area.T, known.T)):
        steps = ((image[1:] != image[:-1]) & seen[1:] & seen[:-1]).astype(np.uint8)
        if steps.size and steps.shape[1] >= run:
            border += int(np.count_nonzero(steps))
            straight += int(np.count_nonzero(cv2.morphologyEx(steps, cv2.MORPH_OPEN, np.ones((1, run), np.uint8))))
    # A thumbnail that has one value everywhere has no border; it is fill, too.
    return straight >= 0.6 * border


def _looks_like_background(logs: Floats, grey: Floats) -> Mask:
    mean = cv2.blur(grey, (5, 5))
    roughness = cv2.blur(grey * grey, (5, 5)) - mean * mean
    red, green, blue = logs
    pink = (red + blue) / 2 - green
    tint = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)
    found: Mask = (grey >= _DARKEST) & (roughness < _ROUGHEST**2)
    found &= (pink < _PINKEST) & (tint < _MOST_TINTED)
    return found


def _brightest_mode(levels: npt.NDArray[np.uint8]) -> float:
    counts = np.bincount(levels, minlength=256).astype(np.float64)
    # 7 levels are as wide as the noise of the background.
    gathered = np.convolve(counts, np.ones(7), mode="same")
    enough = np.flatnonzero(gathered >= _BRIGHTEST_SHARE * counts.sum())
    top = int(enough[-1]) if len(enough) else int(gathered.argmax())
    # Walk from the bright foot of the mode to its peak.
    while top > 0 and gathered[top - 1] >= gathered[top]:
        top -= 1
    return float(top)


def _illumination(logs: Floats, candidates: Mask) -> Floats:
    """Return ``a + bx + cy + dx² + exy + fy²``, fitted to the background of each channel, (3, h, w) float32."""
    height, width = candidates.shape
    side = max(1, -(-max(height, width) // _BLOCKS))  # of a block
    size = -(-width // side), -(-height // side)
    # INTER_AREA takes the mean of each block, once the image is padded to a whole number of blocks.
    pad = (0, size[1] * side - height, 0, size[0] * side - width, cv2.BORDER_CONSTANT)
    weight = cv2.resize(cv2.copyMakeBorder(candidates.astype(np.float32), *pad), size, interpolation=cv2.INTER_AREA)
    used = weight >= 0.125
    if not used.any():
        used = weight > 0
    levels = np.empty((np.count_nonzero(used), 3))
    for channel in range(3):
        masked = cv2.copyMakeBorder(logs[channel] * candidates, *pad)
        levels[:, channel] = cv2.resize(masked, size, interpolation=cv2.INTER_AREA)[used] / weight[used]
    y, x = np.nonzero(used)
    terms = _terms(2 * (x + 0.5) * side / width - 1, 2 * (y + 0.5) * side / height - 1)
    brightness = levels.mean(axis=1)
    weights = np.ones(len(brightness))
    for _ in range(15):
        residual = brightness - terms @ _solve(terms, brightness, weights)
        weights = np.where(residual >= 0, 1.0, np.where(residual > -_OUTLIER, _ENVELOPE_WEIGHT, 1e-4))
    on_surface = np.abs(residual) < _OUTLIER / 2
    if not on_surface.any():
        on_surface[:] = True
    across, down = (2 * (np.arange(length) + 0.5) / length - 1 for length in (width, height))
    surface = np.empty_like(logs)
    for channel in range(3):
        a, b, c, d, e, f = _solve(terms, levels[:, channel], on_surface + 1e-6)
        row = (a + b * across + d * across**2).astype(np.float32)
        column = (c * down + f * down**2).astype(np.float32)
        surface[channel] = row + column[:, None] + np.outer(down.astype(np.float32), (e * across).astype(np.float32))
        # Far from the background a quadratic may run away: clip it to the measured levels.
        seen = levels[on_surface, channel]
        np.clip(surface[channel], seen.min() - 0.02, seen.max() + 0.02, out=surface[channel])
    return surface


def _terms(x: Doubles, y: Doubles) -> Doubles:
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def _solve(terms: Doubles, values: Doubles, weights: Doubles) -> Doubles:
    weighted = terms * weights[:, None]
    # The ridge keeps slopes near 0 that the blocks do not determine.
    ridge = np.diag([0.0] + [1e-5] * 5) * weights.sum()
    solution: Doubles = np.linalg.lstsq(weighted.T @ terms + ridge, weighted.T @ values, rcond=None)[0]
    return solution
