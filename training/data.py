"""Annotated images in memory, and random crops of them at a given scale.

A data directory holds ``index.csv`` (columns ``image_id``, ``modality``, ``modality_fine`` and ``split``),
``images/<image_id>.webp`` (RGB) and ``labels/<image_id>.png`` (16-bit label images: 0 is background, 1 … n are the
nuclei).
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from training.errors import DataError

Image = NDArray[np.uint8]
LabelImage = NDArray[np.uint16]

MODALITIES = (
    "fluorescence_gray",
    "brightfield_gray",
    "stained_purple_on_purple",
    "stained_purple_on_white",
    "stained_pink_purple",
    "stained_he",
)


@dataclass(frozen=True)
class Field:
    """A field of view: one annotated image.

    Attributes
    ----------
    name : str
        The image's name, without suffix.
    modality : str
        One of `MODALITIES`, unless others were allowed.
    image : numpy.ndarray
        (h, w, 3) uint8 RGB.
    labels : numpy.ndarray
        (h, w) uint16 label image.
    diameter : float
        Median equivalent diameter of the nuclei, in pixels; 20 without nuclei.
    known : numpy.ndarray, optional
        (h, w) uint8: 255 where the label image is right, 0 where the truth is unknown. Default: known everywhere.
    """

    name: str
    modality: str
    image: Image
    labels: LabelImage
    diameter: float
    known: Image | None = None

    @cached_property
    def maps(self) -> Image:
        """The maps that the network should output, and where they are known.

        (h, w, 3) uint8: nucleus, depth within the nucleus (see `depth`), known; each 0 to 255.
        """
        known = np.full(self.labels.shape, 255, np.uint8) if self.known is None else self.known
        nucleus = np.where(self.labels > 0, np.uint8(255), np.uint8(0))
        return np.stack([nucleus, depth(self.labels), known], axis=-1)


class Patch(NamedTuple):
    """A square crop of a field.

    Attributes
    ----------
    image : numpy.ndarray
        (s, s, 3) uint8 RGB.
    labels : numpy.ndarray
        (s, s) uint16 label image.
    maps : numpy.ndarray
        (s, s, 3) uint8, as `Field.maps`; outlines are smooth, since the maps are interpolated like the image.
    """

    image: Image
    labels: LabelImage
    maps: Image


def depth(labels: LabelImage) -> Image:
    """Return the depth of each pixel in its nucleus.

    Parameters
    ----------
    labels : numpy.ndarray
        (h, w) uint16 label image.

    Returns
    -------
    numpy.ndarray
        (h, w) uint8: the distance to the nearest pixel outside the nucleus, as a share (0 to 255) of the greatest
        distance in that nucleus. Between touching nuclei it falls nearly to 0, whatever their size.
    """
    inside = labels > 0
    for axis in (0, 1):
        inside &= ~_meets_other(labels, axis)
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    peak = np.zeros(int(labels.max()) + 1, np.float32)
    np.maximum.at(peak, labels.ravel(), distance.ravel())
    share = distance / np.maximum(peak[labels], 1.0)
    return np.asarray(np.rint(share * 255.0), np.uint8)


def _meets_other(labels: LabelImage, axis: int) -> NDArray[np.bool_]:
    """Return which pixels have a neighbour along an axis that belongs to another nucleus."""
    first, second = (labels[:-1], labels[1:]) if axis == 0 else (labels[:, :-1], labels[:, 1:])
    pair = (first > 0) & (second > 0) & (first != second)
    none = np.zeros((1, labels.shape[1]) if axis == 0 else (labels.shape[0], 1), bool)
    return np.asarray(np.concatenate([pair, none], axis) | np.concatenate([none, pair], axis), np.bool_)


def median_diameter(labels: LabelImage) -> float:
    """Return the median equivalent diameter: of the circles with the areas of the nuclei.

    Parameters
    ----------
    labels : numpy.ndarray
        (h, w) uint16 label image.

    Returns
    -------
    float
        In pixels; 20 for an image without nuclei.
    """
    areas = np.bincount(labels.ravel())[1:]
    areas = areas[areas > 8]
    return float(np.sqrt(4.0 * np.median(areas) / np.pi)) if areas.size else 20.0


def load_fields(roots: Iterable[Path], split: str, *, any_modality: bool = False) -> list[Field]:
    """Read every image of a split.

    Parameters
    ----------
    roots : Iterable of Path
        Data directories.
    split : str
        Usually ``train`` or ``val``.
    any_modality : bool
        Whether to accept modalities that are not in `MODALITIES`.

    Returns
    -------
    list of Field
        In the order of the indexes.

    Raises
    ------
    DataError
        The index is malformed, the split is empty, or an image is missing, of the wrong size or of an unknown
        modality.
    """
    fields: list[Field] = []
    for root in roots:
        index = root / "index.csv"
        try:
            with index.open(newline="", encoding="utf-8") as stream:
                reader = csv.DictReader(stream)
                missing = {"image_id", "modality_fine", "split"} - set(reader.fieldnames or ())
                rows = [] if missing else [row for row in reader if row["split"] == split]
        except OSError as error:
            raise DataError(f"{index}: {error.strerror}; a data directory needs this file") from None
        except UnicodeDecodeError:
            raise DataError(f"{index} is not a text file in UTF-8") from None
        if missing:
            raise DataError(f"{index} has no column {', '.join(sorted(missing))}")
        for row in rows:
            name, modality = row["image_id"], row["modality_fine"]
            if modality not in MODALITIES and not any_modality:
                raise DataError(f"{root}: image {name} has the unknown modality {modality!r}")
            image = cv2.imread(str(root / "images" / f"{name}.webp"), cv2.IMREAD_COLOR_RGB)
            labels = cv2.imread(str(root / "labels" / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            if image is None or labels is None or labels.dtype != np.uint16 or image.shape[:2] != labels.shape:
                raise DataError(f"{root}: image {name} needs an image file and a 16-bit label file of the same size")
            pixels = np.asarray(image, np.uint8)
            numbered = np.asarray(labels, np.uint16)
            fields.append(Field(name, modality, pixels, numbered, median_diameter(numbered)))
    if not fields:
        raise DataError(f"the data directories have no image of the split {split!r}")
    return fields


def _mirrored(start: int, length: int, size: int) -> NDArray[np.intp]:
    """Return the indices of `length` pixels from `start` on, along an axis that is mirrored at its ends."""
    period = 2 * size
    index = np.arange(start, start + length, dtype=np.intp) % period
    return np.where(index < size, index, period - 1 - index)


def rotation(side: int, size: int, angle: float) -> NDArray[np.float64]:
    """Return the matrix that rotates a square about its middle and keeps a smaller square there.

    Parameters
    ----------
    side : int
        Side of the square, in pixels.
    size : int
        Side of the square that is kept, in pixels.
    angle : float
        In degrees.

    Returns
    -------
    numpy.ndarray
        (2, 3) float64 for `cv2.warpAffine`.
    """
    matrix = np.array(cv2.getRotationMatrix2D((side / 2.0, side / 2.0), angle, 1.0), np.float64)
    matrix[:, 2] -= (side - size) / 2.0
    return matrix


def crop(
    field: Field, size: int, diameter: float, rng: np.random.Generator, stretch: float = 1.0, *, any_angle: bool = True
) -> Patch:
    """Cut a random square in which the median nucleus has a given diameter.

    Beyond its border the image is mirrored. The square is flipped and rotated at random.

    Parameters
    ----------
    field : Field
        The field to crop.
    size : int
        Side of the square, in pixels.
    diameter : float
        Median diameter of the nuclei in the crop, in pixels.
    rng : numpy.random.Generator
        Source of all random choices.
    stretch : float
        Lengthens one axis by the square root of this factor, and shortens the other one by it.
    any_angle : bool
        Whether to rotate some crops by any angle; otherwise only by quarter turns, which keep the pixel values.

    Returns
    -------
    Patch
        The crop.
    """
    height, width = field.labels.shape
    scale = float(np.clip(diameter / field.diameter, 0.15, 4.0))
    rotated = any_angle and bool(stretch > 1.0 or rng.random() < 0.35)
    source = size * (1.45 if rotated else 1.0)
    across = (scale * stretch**0.5, scale * stretch**-0.5)
    spans = [max(8, round(source / factor)) for factor in across]
    starts = []
    for span, extent in zip(spans, (height, width), strict=True):
        low, high = sorted((0, extent - span))
        starts.append(int(rng.integers(low, high + 1)))
    rows = _mirrored(starts[0], spans[0], height)
    columns = _mirrored(starts[1], spans[1], width)
    region = np.ix_(rows, columns)
    side = (round(source), round(source))
    smooth = cv2.INTER_AREA if min(across) < 0.8 else cv2.INTER_LINEAR
    methods = (smooth, cv2.INTER_NEAREST, smooth)
    sources: tuple[NDArray[Any], ...] = (field.image, field.labels, field.maps)
    parts: list[NDArray[Any]] = [
        cv2.resize(array[region], side, interpolation=method) for array, method in zip(sources, methods, strict=True)
    ]
    if rotated:
        matrix = rotation(side[0], size, float(rng.uniform(0.0, 360.0)))
        methods = (cv2.INTER_LINEAR, cv2.INTER_NEAREST, cv2.INTER_LINEAR)
        parts = [
            cv2.warpAffine(part, matrix, (size, size), flags=method, borderMode=cv2.BORDER_REFLECT)
            for part, method in zip(parts, methods, strict=True)
        ]
    quarter, mirror = int(rng.integers(4)), bool(rng.random() < 0.5)
    parts = [np.rot90(part, quarter) for part in parts]
    if mirror:
        parts = [part[:, ::-1] for part in parts]
    image, labels, maps = parts
    return Patch(
        np.ascontiguousarray(image, np.uint8),
        np.ascontiguousarray(labels, np.uint16),
        np.ascontiguousarray(maps, np.uint8),
    )


ONE = 32
"""The byte that stands for a weight of 1 in `targets`."""
SMALL = 150
"""Nuclei of fewer pixels than this get a higher weight; otherwise they would hardly matter."""
MOST = 3.0
"""The highest such weight."""


def targets(patch: Patch, nuclei: float = 1.0) -> Image:
    """Return the maps that the network should output, and the weight of each pixel in the loss.

    Parameters
    ----------
    patch : Patch
        The crop.
    nuclei : float
        Factor of the weights of all nucleus pixels.

    Returns
    -------
    numpy.ndarray
        (3, s, s) uint8: nucleus and depth, 0 to 255, and the weight times `ONE`. The weight is 0 where the truth is
        unknown, 5 within two pixels of two nuclei, up to `MOST` on and next to small nuclei, and 1 elsewhere.
    """
    kernel = np.ones((5, 5), np.uint8)
    highest = cv2.dilate(patch.labels, kernel)
    lowest = cv2.erode(np.where(patch.labels > 0, patch.labels, np.uint16(65535)), kernel)
    areas = np.maximum(np.bincount(patch.labels.ravel()), 1)
    areas[0] = SMALL
    small = np.rint(ONE * np.clip(np.sqrt(SMALL / areas), 1.0, MOST)).astype(np.uint8)
    weight = cv2.dilate(small[patch.labels], kernel)
    weight = np.where((highest > lowest) & (lowest > 0), np.uint8(5 * ONE), weight)
    heavier = np.minimum(weight.astype(np.float32) * nuclei, 255.0).astype(np.uint8)
    weight = np.where(patch.labels > 0, heavier, weight)
    weight = np.where(patch.maps[:, :, 2] < 128, np.uint8(0), weight)
    return np.stack([patch.maps[:, :, 0], patch.maps[:, :, 1], weight])
