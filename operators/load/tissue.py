"""Where on the slide there is tissue."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from skimage.filters import apply_hysteresis_threshold
from skimage.morphology import remove_small_objects, remove_small_holes

from operators.load import glass
from operators.load.ink import ink_mask

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


def tissue_mask(overview: npt.NDArray[np.uint8]) -> Mask:
    """Return (h, w) bool, True where (h, w, 3) uint8 RGB `overview` shows tissue."""
    _check(overview)
    fill = glass.unscanned(overview)
    if fill.all():
        return np.zeros_like(fill)
    absorption = glass.measure(overview, ~fill)
    density = absorption.density
    is_colour = _is_colour(overview)
    if absorption.has_glass:
        score = _stain(density, absorption.glass, is_colour)
        score[fill] = 0
        found = apply_hysteresis_threshold(score, 0.6, 1.0)
    else:
        found = ~fill
    ink = ink_mask(density, is_colour) & found
    if 0 < ink.sum() < 0.9 * found.sum():
        found &= ~ink
    else: ink[:]=False
    seen = found | ink | fill
    if absorption.has_glass:
        found = _without_debris(found, density, is_colour)
        found |= _faint(density[1] - (density[0]+density[2])/2, absorption.glass, seen)
        found = remove_small_holes(found, max_size=round(5e-4*found.size))
        found&=~ink
    found = _with_margin(found) & ~fill
    return found


def looks_like_fluorescence(overview: npt.NDArray[np.uint8]) -> bool:
    """Tell whether (h, w, 3) uint8 RGB `overview` has a dark background."""
    _check(overview)
    scanned = ~glass.unscanned(overview)
    if not scanned.any():
        return False
    brightest = overview.max(axis=2)[scanned]
    return bool(np.median(brightest) < 70)


def _check(overview: npt.NDArray[np.uint8]) -> None:
    if overview.ndim != 3 or overview.shape[2] != 3 or overview.dtype != np.uint8 or overview.size == 0:
        raise ValueError("An overview is an RGB image of uint8")


def _is_colour(overview) -> bool:
    red, green, blue = cv2.split(overview)
    return bool(np.percentile(cv2.max(cv2.absdiff(red, green), cv2.absdiff(green, blue)), 99.9) > 8)

DEBUG=False
def _stain(density, on_glass, is_colour):
    red, green, blue = density
    darkness = (red+green+blue)/3
    if not is_colour:
        return darkness / max(0.05, 5 * float(np.median(np.abs(darkness[on_glass]))))
    pink = green - (red + blue) / 2
    warm = blue - red
    colour = cv2.magnitude(np.maximum(pink, 0), warm)
    noise = float(np.median(colour[on_glass]))
    colour[darkness < 0] = 0
    if DEBUG: print('noise', noise, 'thr', max(.04,5*noise), 'dark mad', np.median(np.abs(darkness[on_glass])))
    score = colour / max(0.04, 5 * noise)
    return np.maximum(score, darkness / 0.12)


def _faint(pink, on_glass, seen):
    scale = np.sqrt(seen.size) / 1000
    away = cv2.dilate(seen.astype(np.uint8), np.ones((5, 5), np.uint8)) == 0
    fine = np.abs(pink - cv2.GaussianBlur(pink, (0, 0), 3))
    weight = cv2.GaussianBlur(away.astype(np.float32), (0, 0), 4)
    rough = cv2.GaussianBlur(np.where(away, np.minimum(fine, 0.02), 0), (0, 0), 4) / np.maximum(weight, 0.05)
    on_glass = on_glass & away
    if not on_glass.any():
        return on_glass
    level = max(1.15 * float(np.percentile(rough[on_glass], 25)), 0.0012)
    if DEBUG:
        print('rough pct', np.percentile(rough[away],[5,25,50,75,90,95])/level, 'level', level)
        cv2.imwrite('/tmp/rough.png', np.clip(rough/level*50,0,255).astype(np.uint8))
    faint = apply_hysteresis_threshold(rough, 1.4*level, 2*level) & away
    return remove_small_objects(faint, max_size=round(400*scale**2))


def _without_debris(found, density, is_colour):
    scale = np.sqrt(found.size) / 1000
    count, labels, stats, _ = cv2.connectedComponentsWithStats(found.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    flat = labels.ravel()
    means = np.stack([np.bincount(flat, density[c].ravel(), count) for c in range(3)], 1) / np.maximum(area[:, None], 1)
    spread = means.max(1) - means.min(1)
    grey = spread < 0.25 * means.max(1)
    if DEBUG:
        for i in range(1,count):
            if area[i]>60: print(stats[i], np.round(means[i],3), round(spread[i]/means[i].max(),2))
    keep = area >= np.where(grey & is_colour, max(4, 1500 * scale**2), max(2, 10 * scale**2))
    keep[0] = False
    return keep[labels]


def _with_margin(found):
    scale = np.sqrt(found.size) / 1000
    r = max(1, round(3 * scale))
    return cv2.dilate(found.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * r + 1, 2 * r + 1))).astype(bool)
