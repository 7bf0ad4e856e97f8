"""Synthetic H&E tissue: the nuclei of fluorescence fields, stained, in synthetic stroma, lumen and blood.

Haematoxylin and eosin are generated as amounts of stain and turned into colour by the Beer-Lambert law with random
stain vectors. Hue, strength and balance of the stains therefore vary far more than in the few annotated stained images.
"""

from __future__ import annotations

import cv2
import numpy as np

from training.augment import Floats, density, light, unit
from training.data import Image, LabelImage, rotation

_HAEMATOXYLIN = np.array([0.650, 0.704, 0.286], np.float32)
_EOSIN = np.array([0.092, 0.954, 0.283], np.float32)
_BLOOD = np.array([0.15, 0.85, 0.45], np.float32)


def clouds(size: int, cell: float, rng: np.random.Generator, stretch: float = 1.0) -> Floats:
    """Return smooth noise.

    Parameters
    ----------
    size : int
        Side of the square, in pixels.
    cell : float
        Distance over which the noise changes, in pixels.
    rng : numpy.random.Generator
        Source of all random choices.
    stretch : float
        Ratio of length to width of the structures; their direction is random.

    Returns
    -------
    numpy.ndarray
        (size, size) float32, with a mean of about 0 and a standard deviation of about 1.
    """
    side = round(size * 1.45) if stretch > 1.0 else size
    rows, columns = (max(2, round(side / cell)), max(2, round(side / (cell * stretch))))
    noise = cv2.resize(rng.standard_normal((rows, columns), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    if stretch > 1.0:
        matrix = rotation(side, size, float(rng.uniform(0.0, 360.0)))
        noise = cv2.warpAffine(noise, matrix, (size, size), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(noise / max(float(noise.std()), 1e-3), np.float32)


def _chromatin(image: Image, labels: LabelImage, diameter: float, rng: np.random.Generator) -> Floats:
    """Return the amount of haematoxylin in the nuclei: (h, w) float32, 0 outside them."""
    size = labels.shape[0]
    count = int(labels.max()) + 1
    strength = np.exp(rng.normal(0.0, rng.uniform(0.05, 0.4), count)).astype(np.float32)
    inside = labels > 0
    grey = image.mean(axis=2, dtype=np.float32)
    flat = labels.ravel()
    total = np.bincount(flat, weights=grey.ravel(), minlength=count)
    mean = (total / np.maximum(np.bincount(flat, minlength=count), 1)).astype(np.float32)
    own = grey / np.maximum(mean[labels], 8.0)
    amount = strength[labels] * (1.0 + rng.uniform(0.0, 0.8) * (np.clip(own, 0.3, 1.8) - 1.0))
    amount += rng.uniform(0.05, 0.3) * clouds(size, max(1.5, diameter / rng.uniform(4.0, 9.0)), rng)
    if rng.random() < 0.55:  # vesicular: a pale centre within a dark membrane
        depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 3)
        rim = np.exp(-depth / max(1.0, diameter * 0.09))
        amount *= 1.0 - rng.uniform(0.2, 0.85) * (1.0 - rim)
    if rng.random() < 0.4:  # clumps and nucleoli
        amount += rng.uniform(0.3, 1.0) * (clouds(size, max(1.5, diameter / rng.uniform(4.0, 8.0)), rng) > 1.5)
    soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), float(rng.uniform(0.5, 1.1)))
    return np.asarray(np.maximum(amount, 0.12) * soft, np.float32)


def _discs(free: Image, radius: float, rng: np.random.Generator) -> tuple[Image, Floats]:
    """Return clusters of red blood cells outside the nuclei: their mask, and the shade of each pixel."""
    size = free.shape[0]
    mask = np.zeros((size, size), np.uint8)
    shade = np.zeros((size, size), np.float32)
    centre, spread = rng.uniform(0.0, size, 2), rng.uniform(0.08, 0.4) * size
    for _ in range(int(rng.integers(4, 70))):
        x, y = (centre + rng.normal(0.0, spread, 2)).astype(int)
        axes = (max(2, round(radius * rng.uniform(0.8, 1.15))), max(2, round(radius * rng.uniform(0.6, 1.1))))
        angle = float(rng.uniform(0.0, 180.0))
        cv2.ellipse(mask, (int(x), int(y)), axes, angle, 0.0, 360.0, 1, -1)
        cv2.ellipse(shade, (int(x), int(y)), axes, angle, 0.0, 360.0, float(rng.uniform(0.7, 1.3)), -1)
        if rng.random() < 0.4:
            inner = (max(1, axes[0] // 2), max(1, axes[1] // 2))
            cv2.ellipse(shade, (int(x), int(y)), inner, angle, 0.0, 360.0, float(rng.uniform(0.4, 0.8)), -1)
    mask &= free
    return mask, shade


def _stroma(size: int, diameter: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return eosin and haematoxylin of tissue without nuclei: two (size, size) float32."""
    eosin = np.full((size, size), rng.uniform(0.15, 0.75), np.float32)
    eosin *= np.exp(rng.uniform(0.05, 0.35) * clouds(size, diameter * rng.uniform(1.0, 4.0), rng))
    eosin *= np.exp(rng.uniform(0.02, 0.25) * clouds(size, rng.uniform(1.2, 4.0), rng))
    if rng.random() < 0.6:  # fibres
        fibres = clouds(size, diameter * rng.uniform(0.12, 0.4), rng, stretch=float(rng.uniform(4.0, 12.0)))
        if rng.random() < 0.5:  # wavy
            wave = clouds(size, diameter * 4.0, rng) * np.float32(diameter * 0.5)
            grid = np.arange(size, dtype=np.float32)
            across, along = grid[None, :] + wave, grid[:, None] - wave
            bent = cv2.remap(fibres, across, along, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            fibres = np.asarray(bent, np.float32)
        eosin *= np.exp(rng.uniform(0.1, 0.5) * fibres)
    purple = eosin * rng.choice([0.0, 0.08, 0.25, 0.5], p=[0.25, 0.4, 0.25, 0.1])
    if rng.random() < 0.3:  # patches of basophilic cytoplasm or mucin
        purple += rng.uniform(0.05, 0.25) * np.clip(clouds(size, diameter * 2.5, rng), 0.0, 2.0)
    if rng.random() < 0.15:  # dark strands with sharp edges, like keratin
        strands = clouds(size, diameter * rng.uniform(0.1, 0.3), rng, stretch=float(rng.uniform(8.0, 16.0)))
        there = 1.0 / (1.0 + np.exp(-8.0 * (strands - rng.uniform(0.8, 1.8))))
        eosin += rng.uniform(0.2, 1.0) * there
        purple += rng.uniform(0.1, 0.7) * there
    if rng.random() < 0.1:  # bluish smears along the fibres, which are not nuclei
        smears = clouds(size, diameter * rng.uniform(0.15, 0.5), rng, stretch=float(rng.uniform(3.0, 8.0)))
        purple += rng.uniform(0.05, 0.3) * np.clip(smears - rng.uniform(0.0, 1.5), 0.0, 2.0)
    return eosin, np.asarray(purple, np.float32)


def _gaps(size: int, diameter: float, cover: float, rng: np.random.Generator) -> Floats:
    """Return the amount of tissue, from 0 (glass) to 1: (size, size) float32 with lumen, fat or a tissue edge."""
    field = clouds(size, diameter * rng.uniform(1.5, 7.0), rng)
    field += 0.3 * clouds(size, diameter * 0.5, rng)
    edge = np.float32(np.quantile(field, cover))
    sharp = rng.uniform(2.0, 8.0)
    return np.asarray(1.0 / (1.0 + np.exp(-sharp * (field - edge))), np.float32)


def synthetic_tissue(image: Image, labels: LabelImage, diameter: float, rng: np.random.Generator) -> Image:
    """Generate H&E tissue with the nuclei of a fluorescence crop.

    Parameters
    ----------
    image : numpy.ndarray
        (s, s, 3) uint8 RGB: light nuclei on black, whose texture is used.
    labels : numpy.ndarray
        (s, s) uint16 label image.
    diameter : float
        Median diameter of the nuclei, in pixels.
    rng : numpy.random.Generator
        Source of all random choices.

    Returns
    -------
    numpy.ndarray
        (s, s, 3) uint8 RGB.
    """
    size = labels.shape[0]
    inside = labels > 0
    eosin, purple = _stroma(size, diameter, rng)
    if rng.random() < 0.5:
        tissue = _gaps(size, diameter, float(rng.uniform(0.05, 0.7)), rng)
        falloff = max(1.0, diameter * float(rng.uniform(0.1, 0.6)))
        far = cv2.distanceTransform((~inside).astype(np.uint8), cv2.DIST_L2, 3)
        tissue = np.maximum(
            tissue, np.exp(-np.square(np.minimum(far, 1e4) / falloff)) * np.float32(rng.uniform(0.2, 1.0))
        )
        eosin, purple = eosin * tissue, purple * tissue
    blood = np.zeros((size, size), np.float32)
    if rng.random() < 0.3:
        radius = diameter * float(rng.uniform(0.35, 0.55))
        mask, shade = _discs((~inside).astype(np.uint8), radius, rng)
        soft = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.7)
        blood = soft * shade * np.float32(rng.uniform(0.4, 1.1))
        eosin, purple = eosin * (1.0 - 0.8 * soft), purple * (1.0 - 0.8 * soft)
    haematoxylin = _chromatin(image, labels, diameter, rng) * np.float32(rng.uniform(0.45, 1.5))
    covered = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.8)
    eosin = eosin * (1.0 - covered * np.float32(rng.uniform(0.0, 0.8)))
    return mix(haematoxylin + purple, eosin, blood, rng)


def restain(image: Image, labels: LabelImage, diameter: float, rng: np.random.Generator) -> Image:
    """Add a second dye to tissue that was stained with one: real nuclei in synthetic eosin.

    Parameters
    ----------
    image : numpy.ndarray
        (s, s, 3) uint8 RGB: dark nuclei on a light background of one colour.
    labels : numpy.ndarray
        (s, s) uint16 label image.
    diameter : float
        Median diameter of the nuclei, in pixels.
    rng : numpy.random.Generator
        Source of all random choices.

    Returns
    -------
    numpy.ndarray
        (s, s, 3) uint8 RGB.
    """
    dye = density(image).mean(axis=2)
    dye = np.maximum(dye - np.quantile(dye, 0.1), 0.0)
    inside = labels > 0
    usual = float(np.median(dye[inside])) if inside.any() else 0.0
    haematoxylin = dye / np.float32(max(usual, 0.25)) * np.float32(rng.uniform(0.4, 1.1))
    eosin, purple = _stroma(labels.shape[0], diameter, rng)
    if rng.random() < 0.4:
        tissue = _gaps(labels.shape[0], diameter, float(rng.uniform(0.05, 0.5)), rng)
        tissue = np.maximum(tissue, np.minimum(haematoxylin, 1.0))
        eosin, purple = eosin * tissue, purple * tissue
    covered = np.minimum(haematoxylin, 1.0) * np.float32(rng.uniform(0.0, 0.8))
    return mix(haematoxylin + purple * 0.5, eosin * (1.0 - covered), np.zeros_like(eosin), rng)


def mix(haematoxylin: Floats, eosin: Floats, blood: Floats, rng: np.random.Generator) -> Image:
    """Turn amounts of stain into colour, with random stain vectors and a random white point.

    Parameters
    ----------
    haematoxylin : numpy.ndarray
        (s, s) float32, amount of the stain.
    eosin : numpy.ndarray
        (s, s) float32, amount of the stain.
    blood : numpy.ndarray
        (s, s) float32, amount of haemoglobin.
    rng : numpy.random.Generator
        Source of all random choices.

    Returns
    -------
    numpy.ndarray
        (s, s, 3) uint8 RGB.
    """
    vectors = np.stack([_HAEMATOXYLIN, _EOSIN, _BLOOD])
    vectors = unit((vectors + rng.normal(0.0, (0.07, 0.05, 0.06), (3, 3))).astype(np.float32))
    amounts = np.stack([haematoxylin, eosin, blood], axis=-1) * np.float32(1.5)
    white = rng.uniform(0.0, 0.12) + rng.uniform(0.0, 0.04, 3)
    return light((amounts @ vectors + white.astype(np.float32)).astype(np.float32))


def negative(size: int, diameter: float, rng: np.random.Generator) -> Image:
    """Generate a crop without nuclei: glass, tissue, blurred tissue, blood, or an empty dark field.

    Parameters
    ----------
    size : int
        Side of the crop, in pixels.
    diameter : float
        Diameter that nuclei would have at this scale, in pixels.
    rng : numpy.random.Generator
        Source of all random choices.

    Returns
    -------
    numpy.ndarray
        (size, size, 3) uint8 RGB.
    """
    kind = rng.random()
    none = np.zeros((size, size), np.float32)
    if kind < 0.3:  # glass, evenly or unevenly illuminated, perhaps with dust
        shade = 255.0 - rng.uniform(0.0, 40.0) + rng.uniform(0.0, 4.0) * clouds(size, size / 2.0, rng)
        glass = np.repeat(shade[:, :, None], 3, axis=2) - rng.uniform(0.0, 14.0, 3).astype(np.float32)
        if rng.random() < 0.3:
            glass -= np.clip(clouds(size, rng.uniform(3.0, 12.0), rng) - 2.6, 0.0, 1.0)[:, :, None] * 60.0
        return np.asarray(np.clip(glass, 0.0, 255.0), np.uint8)
    if kind < 0.4:  # dark field
        dark = rng.uniform(0.0, 40.0) + rng.uniform(0.0, 8.0) * clouds(size, rng.uniform(2.0, 60.0), rng)
        return np.asarray(np.clip(np.repeat(dark[:, :, None], 3, axis=2), 0.0, 255.0), np.uint8)
    eosin, purple = _stroma(size, diameter, rng)
    purple *= 0.5
    if rng.random() < 0.4:
        tissue = _gaps(size, diameter, float(rng.uniform(0.1, 0.8)), rng)
        eosin, purple = eosin * tissue, purple * tissue
    blood = none
    if kind > 0.8:
        mask, shade = _discs(np.ones((size, size), np.uint8), diameter * float(rng.uniform(0.35, 0.55)), rng)
        blood = mask * shade * np.float32(rng.uniform(0.4, 1.1))
        eosin = eosin * (1.0 - 0.8 * mask)
    image = mix(purple, eosin, blood.astype(np.float32), rng)
    if kind < 0.6:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(2.0, 10.0))), np.uint8)
    return image
