"""What of a thumbnail is empty: unscanned fill, and the glass that light passes with nothing in its way."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

# Glass is bright, nearly neutral and flat. Levels are 0–255, tints are differences of natural logarithms.
_DARKEST_GLASS = 140.0
_PINKEST_GLASS = 0.045  # green below the mean of red and blue: the sign of eosin and haematoxylin, rare in glass
_TINTED_GLASS = 0.16  # any other tint: yellowed mounting medium, a warm lamp, a green filter
_ROUGHEST_GLASS = 4.0  # standard deviation in 5 × 5 smoothed pixels: JPEG and sensor noise stay below
_SMALLEST_GLASS = 0.002  # share of the scanned area; less is a lumen, not the glass around tissue
_BRIGHTEST_SHARE = 0.05  # share of the glass-like pixels that must gather around the brightest mode
_FALL_OF_LIGHT = 0.3  # log units that the lamp may lose from its brightest place to its darkest
_OUTLIER = 0.05  # log units from the fitted illumination at which a pixel is no glass

_BLOCKS = 48  # blocks along the longer side, to which the illumination is fitted
_ENVELOPE_WEIGHT = 0.02  # of a block darker than the fit, against 1 for a brighter one


@dataclass(frozen=True, slots=True)
class Absorption:
    """A thumbnail against its own glass.

    Attributes
    ----------
    density : numpy.ndarray
        (3, h, w) float32; natural-log optical density ln(glass / pixel) in red, green and blue: 0 on glass. Smoothed
        by a Gaussian of 1 pixel.
    glass : numpy.ndarray
        (h, w) bool; pixels that the glass was measured on. All False if the thumbnail shows no glass.
    """

    density: Floats
    glass: Mask

    @property
    def has_glass(self) -> bool:
        """Tell whether there was glass to measure against."""
        return bool(self.glass.any())


def unscanned(thumbnail: npt.NDArray[np.uint8]) -> Mask:
    """Return the pixels that the scanner never saw: pure white or pure black areas with straight, upright borders.

    Scanners fill what they skip with one value, in rectangles. Glass that is saturated to pure white looks the same
    but for its border with the tissue, which is never a staircase of long upright runs; so the border decides.

    Parameters
    ----------
    thumbnail : numpy.ndarray
        (h, w, 3) uint8 RGB.

    Returns
    -------
    numpy.ndarray
        (h, w) bool.
    """
    channels = cv2.split(thumbnail)
    darkest = cv2.min(cv2.min(channels[0], channels[1]), channels[2])
    brightest = cv2.max(cv2.max(channels[0], channels[1]), channels[2])
    found = np.zeros(thumbnail.shape[:2], np.bool_)
    for flat in (darkest >= 254, brightest <= 3):
        # An opening leaves only areas at least 5 pixels wide: specks of a single value are no fill.
        area = cv2.morphologyEx(flat.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)).astype(bool)
        if area.any() and _has_upright_border(area):
            found |= area
    return found


def measure(thumbnail: npt.NDArray[np.uint8], scanned: Mask) -> Absorption:
    """Estimate the glass and return the optical density of everything against it.

    Optical density makes the amounts of stain additive and takes the lamp out of the picture (Ruifrok and Johnston,
    "Quantification of histochemical staining by color deconvolution", 2001). The glass is the brightest mode of the
    bright, flat, nearly neutral pixels. A quadratic surface through the logarithms of its levels follows vignetting
    and a tilted lamp; it is fitted to the upper envelope by asymmetric least squares (Eilers and Boelens, "Baseline
    correction with asymmetric least squares smoothing", 2005), so that pale tissue, which lies below, does not pull
    it down.

    Where nothing looks like glass, the reference is the 99.5th percentile of each channel, and `glass` is empty.

    Parameters
    ----------
    thumbnail : numpy.ndarray
        (h, w, 3) uint8 RGB.
    scanned : numpy.ndarray
        (h, w) bool; the rest is ignored.
    """
    smooth = cv2.GaussianBlur(thumbnail, (0, 0), 1.0)
    table = np.log(np.maximum(np.arange(256, dtype=np.float32), 1))
    logs = np.stack([cv2.LUT(plane, table) for plane in cv2.split(smooth)]).astype(np.float32, copy=False)
    grey = cv2.transform(smooth, np.full((1, 3), 1 / 3, np.float32)).reshape(smooth.shape[:2])
    enough = max(1, _SMALLEST_GLASS * scanned.sum())
    candidates = _glass_like(logs, grey.astype(np.float32)) & scanned
    if candidates.sum() >= enough:
        level = _brightest_mode(grey[candidates])
        candidates &= (grey > level * np.exp(-_FALL_OF_LIGHT)) & (grey < level * 1.1)
        density = _illumination(logs, candidates) - logs
        glass = candidates & (np.abs(density.mean(axis=0)) < _OUTLIER)
        if glass.sum() >= enough:
            return Absorption(density, glass)
    seen = logs[:, scanned] if scanned.any() else logs.reshape(3, -1)
    reference = np.percentile(seen, 99.5, axis=1).astype(np.float32)
    return Absorption(reference[:, None, None] - logs, np.zeros_like(scanned))


def _has_upright_border(area: Mask) -> bool:
    run = max(8, min(area.shape) // 40)
    border = upright = 0
    for image in (area, area.T):
        steps = (image[1:] != image[:-1]).astype(np.uint8)
        if steps.size and steps.shape[1] >= run:
            border += int(np.count_nonzero(steps))
            upright += int(np.count_nonzero(cv2.morphologyEx(steps, cv2.MORPH_OPEN, np.ones((1, run), np.uint8))))
    # A thumbnail of one value throughout has no border at all: that is fill, too.
    return upright >= 0.6 * border


def _glass_like(logs: Floats, grey: Floats) -> Mask:
    mean = cv2.blur(grey, (5, 5))
    roughness = cv2.blur(grey * grey, (5, 5)) - mean * mean
    red, green, blue = logs
    pink = (red + blue) / 2 - green
    tint = cv2.max(cv2.max(red, green), blue) - cv2.min(cv2.min(red, green), blue)
    found: Mask = (grey >= _DARKEST_GLASS) & (roughness < _ROUGHEST_GLASS**2)
    found &= (pink < _PINKEST_GLASS) & (tint < _TINTED_GLASS)
    return found


def _brightest_mode(levels: npt.NDArray[np.uint8]) -> float:
    counts = np.bincount(levels, minlength=256).astype(np.float64)
    # A window of 7 levels is as wide as the noise of glass.
    gathered = np.convolve(counts, np.ones(7), mode="same")
    enough = np.flatnonzero(gathered >= _BRIGHTEST_SHARE * counts.sum())
    top = int(enough[-1]) if len(enough) else int(gathered.argmax())
    # From the bright foot of the mode to its peak.
    while top > 0 and gathered[top - 1] >= gathered[top]:
        top -= 1
    return float(top)


def _illumination(logs: Floats, candidates: Mask) -> Floats:
    """Return ``a + bx + cy + dx² + exy + fy²``, fitted to the glass of each channel, (3, h, w) float32."""
    height, width = candidates.shape
    cell = max(1, -(-max(height, width) // _BLOCKS))
    size = -(-width // cell), -(-height // cell)
    # Sums over cells: the mean that INTER_AREA takes, of an image padded to whole cells.
    pad = (0, size[1] * cell - height, 0, size[0] * cell - width, cv2.BORDER_CONSTANT)
    weight = cv2.resize(cv2.copyMakeBorder(candidates.astype(np.float32), *pad), size, interpolation=cv2.INTER_AREA)
    used = weight >= 0.125
    if not used.any():
        used = weight > 0
    levels = np.empty((np.count_nonzero(used), 3))
    for channel in range(3):
        masked = cv2.copyMakeBorder(logs[channel] * candidates, *pad)
        levels[:, channel] = cv2.resize(masked, size, interpolation=cv2.INTER_AREA)[used] / weight[used]
    y, x = np.nonzero(used)
    terms = _terms(2 * (x + 0.5) * cell / width - 1, 2 * (y + 0.5) * cell / height - 1)
    brightness = levels.mean(axis=1)
    weights = np.ones(len(brightness))
    for _ in range(15):
        residual = brightness - terms @ _solve(terms, brightness, weights)
        weights = np.where(residual >= 0, 1.0, np.where(residual > -_OUTLIER, _ENVELOPE_WEIGHT, 1e-4))
    on_surface = np.abs(residual) < _OUTLIER / 2
    if not on_surface.any():
        on_surface[:] = True
    across, down = (2 * (np.arange(side) + 0.5) / side - 1 for side in (width, height))
    surface = np.empty_like(logs)
    for channel in range(3):
        a, b, c, d, e, f = _solve(terms, levels[:, channel], on_surface + 1e-6)
        row = (a + b * across + d * across**2).astype(np.float32)
        column = (c * down + f * down**2).astype(np.float32)
        surface[channel] = row + column[:, None] + np.outer(down.astype(np.float32), (e * across).astype(np.float32))
        # Far from all glass a quadratic may run away: it stays within what was seen.
        seen = levels[on_surface, channel]
        np.clip(surface[channel], seen.min() - 0.02, seen.max() + 0.02, out=surface[channel])
    return surface


def _terms(x: Doubles, y: Doubles) -> Doubles:
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=1)


def _solve(terms: Doubles, values: Doubles, weights: Doubles) -> Doubles:
    weighted = terms * weights[:, None]
    # The ridge keeps slopes near 0 that the blocks at hand do not decide.
    ridge = np.diag([0.0] + [1e-5] * 5) * weights.sum()
    solution: Doubles = np.linalg.lstsq(weighted.T @ terms + ridge, weighted.T @ values, rcond=None)[0]
    return solution
