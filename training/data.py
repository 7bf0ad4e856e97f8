"""Annotated images in memory, and crops of them at a wanted scale.

A data directory holds ``index.csv`` (columns ``image_id``, ``modality``, ``modality_fine`` and ``split``),
``images/<image_id>.webp`` (RGB) and ``labels/<image_id>.png`` (16 bits; 0 is background, 1..n the nuclei).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Labels = NDArray[np.uint16]

MODALITIES = (
    "fluorescence_gray",
    "brightfield_gray",
    "stained_purple_on_purple",
    "stained_purple_on_white",
    "stained_pink_purple",
    "stained_he",
)


class DataError(Exception):
    """A data directory does not hold what its index says."""


@dataclass(frozen=True)
class Field:
    """One annotated image.

    Attributes
    ----------
    name : str
        The image's id.
    modality : str
        One of :data:`MODALITIES`.
    image : ndarray
        uint8 ``[H, W, 3]``, RGB.
    labels : ndarray
        uint16 ``[H, W]``; 0 is background.
    diameter : float
        Median equivalent diameter of the nuclei, in pixels; 20 where there is none.
    """

    name: str
    modality: str
    image: Image
    labels: Labels
    diameter: float


def median_diameter(labels: Labels) -> float:
    """Median diameter of the circles that have the nuclei's areas.

    Parameters
    ----------
    labels : ndarray
        uint16 ``[H, W]``.

    Returns
    -------
    float
        In pixels; 20 for an empty image.
    """
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 8]
    return float(np.sqrt(4.0 * np.median(areas) / np.pi)) if areas.size else 20.0


def load_fields(roots: Iterable[Path], split: str, *, any_modality: bool = False) -> list[Field]:
    """Decode every image of a split, once.

    Parameters
    ----------
    roots : iterable of Path
        Data directories.
    split : str
        ``train`` or ``val``.
    any_modality : bool
        Take images that are of none of :data:`MODALITIES`, too.

    Returns
    -------
    list of Field
        In the order of the indexes.

    Raises
    ------
    DataError
        If a file is missing, of the wrong size or of an unknown modality.
    """
    fields: list[Field] = []
    for root in roots:
        try:
            with (root / "index.csv").open(newline="", encoding="utf-8") as stream:
                rows = [row for row in csv.DictReader(stream) if row["split"] == split]
        except KeyError:
            raise DataError(f"{root / 'index.csv'} has no column 'split'") from None
        for row in rows:
            name, modality = row["image_id"], row["modality_fine"]
            if modality not in MODALITIES and not any_modality:
                raise DataError(f"{root}: {name} is of the unknown modality {modality!r}")
            image = cv2.imread(str(root / "images" / f"{name}.webp"), cv2.IMREAD_COLOR_RGB)
            labels = cv2.imread(str(root / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            if image is None or labels is None or labels.dtype != np.uint16 or image.shape[:2] != labels.shape:
                raise DataError(f"{root}: {name} has no image and 16-bit labels of one size")
            pixels = np.asarray(image, np.uint8)
            marks = np.asarray(labels, np.uint16)
            fields.append(Field(name, modality, pixels, marks, median_diameter(marks)))
    if not fields:
        raise DataError(f"no image of the split {split!r} in the data directories")
    return fields


def _mirrored(start: int, length: int, size: int) -> NDArray[np.intp]:
    """List the indices ``start .. start + length`` of an axis that is mirrored at its ends."""
    period = 2 * size
    index = np.arange(start, start + length, dtype=np.intp) % period
    return np.where(index < size, index, period - 1 - index)


def turn(side: int, size: int, angle: float) -> NDArray[np.float64]:
    """Turn a square about its middle and keep the middle.

    Parameters
    ----------
    side, size : int
        Side of the square and of what is kept, in pixels.
    angle : float
        In degrees.

    Returns
    -------
    ndarray
        float64 ``[2, 3]``, for ``cv2.warpAffine``.
    """
    matrix = np.array(cv2.getRotationMatrix2D((side / 2.0, side / 2.0), angle, 1.0), np.float64)
    matrix[:, 2] -= (side - size) / 2.0
    return matrix


def crop(
    field: Field, size: int, diameter: float, rng: np.random.Generator, stretch: float = 1.0
) -> tuple[Image, Labels]:
    """Cut a random square in which the median nucleus has a given diameter.

    The image is mirrored where the square reaches beyond it; the square is flipped and turned at random.

    Parameters
    ----------
    field : Field
        What to cut from.
    size : int
        Side of the square, in pixels.
    diameter : float
        Wanted median diameter, in pixels.
    rng : Generator
        Source of every choice.
    stretch : float
        Lengthen along one axis by the square root of this and shorten along the other.

    Returns
    -------
    image, labels : ndarray
        uint8 ``[size, size, 3]`` and uint16 ``[size, size]``.
    """
    height, width = field.labels.shape
    scale = float(np.clip(diameter / field.diameter, 0.15, 4.0))
    turned = bool(stretch > 1.0 or rng.random() < 0.35)
    reach = size * (1.45 if turned else 1.0)
    across = (scale * stretch**0.5, scale * stretch**-0.5)
    spans = [max(8, round(reach / factor)) for factor in across]
    starts = []
    for span, extent in zip(spans, (height, width), strict=True):
        low, high = sorted((0, extent - span))
        starts.append(int(rng.integers(low, high + 1)))
    rows = _mirrored(starts[0], spans[0], height)
    columns = _mirrored(starts[1], spans[1], width)
    window = np.ix_(rows, columns)
    side = round(reach)
    shrink = min(across) < 0.8
    image = cv2.resize(field.image[window], (side, side), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    labels = cv2.resize(field.labels[window], (side, side), interpolation=cv2.INTER_NEAREST)
    if turned:
        matrix = turn(side, size, float(rng.uniform(0.0, 360.0)))
        image = cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        labels = cv2.warpAffine(labels, matrix, (size, size), flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT)
    quarter, mirror = int(rng.integers(4)), bool(rng.random() < 0.5)
    image, labels = np.rot90(image, quarter), np.rot90(labels, quarter)
    if mirror:
        image, labels = image[:, ::-1], labels[:, ::-1]
    return np.ascontiguousarray(image, np.uint8), np.ascontiguousarray(labels, np.uint16)


def targets(labels: Labels) -> Image:
    """Draw what the network should answer.

    The boundary is where a 3x3 neighbourhood holds two labels: a line two pixels wide along every outline, half of
    it inside the nucleus, and twice that where nuclei touch.

    Parameters
    ----------
    labels : ndarray
        uint16 ``[H, W]``.

    Returns
    -------
    ndarray
        uint8 ``[2, H, W]``, 0 or 1: nucleus, boundary.
    """
    kernel = np.ones((3, 3), np.uint8)
    boundary = cv2.dilate(labels, kernel) != cv2.erode(labels, kernel)
    return np.stack([labels > 0, boundary]).astype(np.uint8)
