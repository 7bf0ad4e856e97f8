"""Random augmentations of appearance: stain, tone, sharpness, noise and compression.

Images are (h, w, 3) uint8 RGB. A function with random choices draws all of them from the generator that it is given,
so the seed of the generator decides the result.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.data import Image

Floats = NDArray[np.float32]

# Optical densities of haematoxylin, eosin and a residual (Ruifrok and Johnston, 2001).
_STAINS = np.array([[0.650, 0.704, 0.286], [0.072, 0.990, 0.105], [0.268, 0.570, 0.776]], np.float32)
_UNMIX = np.linalg.inv(_STAINS / np.linalg.norm(_STAINS, axis=1, keepdims=True)).astype(np.float32)
_DENSITY = (-np.log((np.arange(256, dtype=np.float32) + 1.0) / 256.0)).astype(np.float32)


def density(image: Image) -> Floats:
    """Return the optical density of each channel.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) float32; 0 for white.
    """
    return np.asarray(_DENSITY[image], np.float32)


def haematoxylin(density_: Floats) -> Floats:
    """Return the amount of haematoxylin in each pixel.

    Parameters
    ----------
    density_ : numpy.ndarray
        (h, w, 3) float32 optical density.

    Returns
    -------
    numpy.ndarray
        (h, w) float32, not negative.
    """
    return np.asarray(np.maximum(density_ @ _UNMIX[:, 0], 0.0), np.float32)


def light(density_: Floats) -> Image:
    """Turn optical density into colour: the inverse of `density`.

    Parameters
    ----------
    density_ : numpy.ndarray
        (h, w, 3) float32 optical density.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) uint8 RGB.
    """
    return np.asarray(np.clip(np.exp(-density_) * 256.0 - 1.0, 0.0, 255.0), np.uint8)


def unit(vectors: Floats) -> Floats:
    """Scale stain vectors to length one.

    Parameters
    ----------
    vectors : numpy.ndarray
        (n, 3) float32, one stain vector a row.

    Returns
    -------
    numpy.ndarray
        (n, 3) float32, one stain vector a row.
    """
    clipped = np.maximum(vectors, 0.01)
    return np.asarray(clipped / np.linalg.norm(clipped, axis=1, keepdims=True), np.float32)


def jitter_stain(image: Image, rng: np.random.Generator) -> Image:
    """Change the strength and the colour of the stains.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB of stained tissue.
    rng : numpy.random.Generator
        Source of all random choices.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) uint8 RGB.
    """
    strength = np.diag(np.exp(rng.uniform(-0.45, 0.45, 3))).astype(np.float32)
    stains = unit((_STAINS + rng.normal(0.0, 0.06, (3, 3))).astype(np.float32))
    mix = _UNMIX @ strength @ stains
    background = rng.uniform(0.0, 0.06, 3).astype(np.float32)
    return light(np.maximum(density(image) @ mix, 0.0) + background)


def jitter_tone(image: Image, rng: np.random.Generator, strength: float = 1.0) -> Image:
    """Change brightness, contrast and gamma, of all channels together and slightly of each one alone.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB.
    rng : numpy.random.Generator
        Source of all random choices.
    strength : float
        How strongly; 1 is the usual strength.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) uint8 RGB.
    """
    ramp = np.arange(256, dtype=np.float64) / 255.0
    gamma = np.exp(rng.uniform(-0.3, 0.3) * strength + rng.uniform(-0.06, 0.06, 3) * strength)
    contrast = np.exp(rng.uniform(-0.25, 0.25) * strength + rng.uniform(-0.05, 0.05, 3) * strength)
    shift = rng.uniform(-0.08, 0.08) * strength + rng.uniform(-0.03, 0.03, 3) * strength
    table = (ramp[:, None] ** gamma - 0.5) * contrast + 0.5 + shift
    lookup = np.clip(table * 255.0, 0.0, 255.0).astype(np.uint8)
    return np.asarray(cv2.LUT(image, lookup[None]), np.uint8)


def tint(image: Image, rng: np.random.Generator) -> Image:
    """Colour a grey fluorescence image, as display software does.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB.
    rng : numpy.random.Generator
        Source of all random choices.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) uint8 RGB.
    """
    weights = rng.uniform(0.1, 1.0, 3)
    weights[int(rng.integers(3))] = 1.0
    return np.asarray(image * weights, np.uint8)


def jitter_light(image: Image, rng: np.random.Generator) -> Image:
    """Change exposure, gamma, black level and illumination of a fluorescence image; dim nuclei stay above black.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB: light nuclei on black.
    rng : numpy.random.Generator
        Source of all random choices.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) uint8 RGB.
    """
    light_ = image.astype(np.float32) / 255.0
    if rng.random() < 0.5:
        light_ = light_ ** np.float32(np.exp(rng.uniform(-0.3, 0.25)))
    if rng.random() < 0.7:
        light_ *= np.float32(np.exp(rng.uniform(-0.7, 1.0)))
    if rng.random() < 0.25:  # uneven illumination
        height, width = image.shape[:2]
        corners = rng.uniform(0.6, 1.3, (2, 2)).astype(np.float32)
        light_ *= cv2.resize(corners, (width, height), interpolation=cv2.INTER_LINEAR)[:, :, None]
    if rng.random() < 0.4:  # stray light
        light_ += np.float32(rng.uniform(0.0, 0.12))
    return np.asarray(np.clip(light_ * 255.0 + 0.5, 0.0, 255.0), np.uint8)


def degrade(image: Image, rng: np.random.Generator, strength: float = 1.0) -> Image:
    """Blur or sharpen, add noise and compress, each with some probability.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB.
    rng : numpy.random.Generator
        Source of all random choices.
    strength : float
        Strength of noise and compression; 1 suits an image with the full range of brightness.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) uint8 RGB.
    """
    choice = rng.random()
    if choice < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.4, 1.7))), np.uint8)
    elif choice < 0.5:
        soft = cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.6, 1.5)))
        amount = float(rng.uniform(0.3, 1.2))
        image = np.asarray(cv2.addWeighted(image, 1.0 + amount, soft, -amount, 0.0), np.uint8)
    if rng.random() < 0.3:
        shape = image.shape if rng.random() < 0.5 else (*image.shape[:2], 1)
        noise = rng.standard_normal(shape, np.float32) * np.float32(rng.uniform(1.0, 8.0) * strength)
        image = np.asarray(np.clip(image + noise, 0.0, 255.0), np.uint8)
    if rng.random() < 0.4:
        quality = int(rng.uniform(95.0 - 60.0 * strength, 95.0))
        _, coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), np.uint8)
    return image


def invert(image: Image) -> Image:
    """Turn light nuclei on black into dark nuclei on white.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB.

    Returns
    -------
    numpy.ndarray
        (h, w, 3) uint8 RGB.
    """
    return np.asarray(255 - image, np.uint8)
