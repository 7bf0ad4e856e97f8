"""How much haematoxylin a pixel shows: colour deconvolution (Ruifrok and Johnston 2001), as QuPath does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels

Vector = tuple[float, float, float]
HEMATOXYLIN: Vector = (0.65, 0.70, 0.29)
EOSIN: Vector = (0.07, 0.99, 0.11)
"""Optical densities of the pure stains in red, green and blue, by Ruifrok."""


@dataclass(frozen=True, slots=True)
class HematoxylinTable:
    """What each value of each colour adds to the optical density of haematoxylin.

    Attributes
    ----------
    densities : numpy.ndarray
        (3, 256) float32.
    """

    densities: npt.NDArray[np.float32]

    @classmethod
    def of(cls, hematoxylin: Vector = HEMATOXYLIN, eosin: Vector = EOSIN) -> HematoxylinTable:
        """Return the table for two stains.

        Parameters
        ----------
        hematoxylin, eosin : tuple of float
            Their optical densities in red, green and blue, of any length; two different colours.
        """
        stains = np.array([hematoxylin, eosin], np.float64)
        stains /= np.linalg.norm(stains, axis=1, keepdims=True)
        residual = np.cross(stains[0], stains[1])
        inverse = np.linalg.inv(np.vstack([stains, residual / np.linalg.norm(residual)]))
        density = -np.log10(np.maximum(np.arange(256), 1) / 255)
        return cls((inverse[:, :1] * density).astype(np.float32))

    def __call__(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return (n,) float32, the optical density of haematoxylin in (n, 3) uint8 RGB pixels."""
        red, green, blue = (self.densities[i].take(pixels[:, i]) for i in range(3))
        return np.asarray(red + green + blue, np.float32)
