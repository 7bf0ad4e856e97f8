"""Nuclei that are made up: round outlines at random places, with the measurements of a run."""

from __future__ import annotations

import numpy as np

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader, NucleusClass

MEASUREMENTS = (
    "Area µm^2",
    "Length µm",
    "Circularity",
    "Solidity",
    "Max diameter µm",
    "Min diameter µm",
    "Eccentricity",
    "Nucleus: Hematoxylin OD mean",
    "Nucleus: Hematoxylin OD std dev",
    "Nearest neighbour distance µm",
)
RADIUS = 80  # quarters of a pixel


def header(count: int, classes: int = 1, mpp: tuple[float, float] | None = (0.25, 0.25)) -> NucleiHeader:
    """Return the header of made-up nuclei.

    Parameters
    ----------
    count : int
        Number of nuclei.
    classes : int, optional
        Number of classes.
    mpp : tuple of float or None, optional
        Micrometres per pixel.
    """
    names = [f"Class {number}" for number in range(classes)] if classes > 1 else ["Nucleus"]
    colors = [(200, number, 100) for number in range(classes)]
    return NucleiHeader(
        fingerprint="0123456789abcdef" * 4,
        width=100_000,
        height=80_000,
        mpp=mpp,
        count=count,
        classes=tuple(NucleusClass(name, color) for name, color in zip(names, colors, strict=True)),
    )


def nuclei(count: int, vertices: int = 45, classes: int = 1, seed: int = 0) -> Nuclei:
    """Return made-up nuclei; of one in seven a measurement is missing.

    Parameters
    ----------
    count : int
        Number of nuclei.
    vertices : int, optional
        Of each outline, at most 60.
    classes : int, optional
        Number of classes.
    seed : int, optional
        Of the random numbers.
    """
    random = np.random.default_rng(seed)
    centres = np.stack([random.integers(RADIUS, 399_800, count), random.integers(RADIUS, 319_800, count)], -1)
    angles = (np.arange(vertices) + random.random((count, 1))) * (2 * np.pi / vertices)
    radii = (RADIUS - 8 - random.random((count, 1)) * 8)[..., None]
    rings = centres[:, None] + np.rint(radii * np.stack([np.cos(angles), np.sin(angles)], -1)).astype(np.int64)
    measurements = {name: random.lognormal(2, 1, count) for name in MEASUREMENTS}
    measurements["Circularity"][::7] = np.nan
    return Nuclei(
        labels=np.arange(1, count + 1, dtype=np.uint32),
        vertices=rings.reshape(-1, 2).astype(np.int32),
        starts=np.arange(count + 1, dtype=np.int64) * vertices,
        centroids=centres / 4,
        tiles=(centres[:, ::-1] // 1024).astype(np.int32),
        at_border=random.random(count) < 0.1,
        probability=random.random(count),
        classes=random.integers(0, classes, count).astype(np.uint8),
        measurements=measurements,
        horizon=80_000,
    )
