"""Annotated images in memory, and crops of them at a wanted scale.

A data directory holds ``index.csv`` (columns ``image_id``, ``modality``, ``modality_fine`` and ``split``),
``images/<image_id>.webp`` (RGB) and ``labels/<image_id>.png`` (16 bits; 0 is background, 1..n the nuclei).
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
    known : ndarray, optional
        uint8 ``[H, W]``: 255 where the labels are to be believed, 0 where nothing is known. Default: known everywhere.
    """

    name: str
    modality: str
    image: Image
    labels: Labels
    diameter: float
    known: Image | None = None

    @cached_property
    def maps(self) -> Image:
        """What the network is to answer, and where that is known.

        uint8 ``[H, W, 3]``: nucleus, depth within the nucleus (see :func:`depth`), known; each 0 to 255.
        """
        known = np.full(self.labels.shape, 255, np.uint8) if self.known is None else self.known
        nucleus = np.where(self.labels > 0, np.uint8(255), np.uint8(0))
        return np.stack([nucleus, depth(self.labels), known], axis=-1)


class Patch(NamedTuple):
    """A piece of a field.

    Attributes
    ----------
    image : ndarray
        uint8 ``[S, S, 3]``.
    labels : ndarray
        uint16 ``[S, S]``.
    maps : ndarray
        uint8 ``[S, S, 3]``, as :attr:`Field.maps`; outlines are smooth, since it was resized as an image is.
    """

    image: Image
    labels: Labels
    maps: Image


def depth(labels: Labels) -> Image:
    """Draw how deep within its nucleus each pixel lies.

    Parameters
    ----------
    labels : ndarray
        uint16 ``[H, W]``.

    Returns
    -------
    ndarray
        uint8 ``[H, W]``: the distance to what is not the same nucleus, as a share (0 to 255) of the greatest in that
        nucleus. Between nuclei that touch it falls nearly to 0, whatever their size.
    """
    inside = labels > 0
    for axis in (0, 1):
        inside &= ~_meets_other(labels, axis)
    distance = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    peak = np.zeros(int(labels.max()) + 1, np.float32)
    np.maximum.at(peak, labels.ravel(), distance.ravel())
    share = distance / np.maximum(peak[labels], 1.0)
    return np.asarray(np.rint(share * 255.0), np.uint8)


def _meets_other(labels: Labels, axis: int) -> NDArray[np.bool_]:
    """Tell which pixels have a pixel of another nucleus beside them along an axis."""
    first, second = (labels[:-1], labels[1:]) if axis == 0 else (labels[:, :-1], labels[:, 1:])
    pair = (first > 0) & (second > 0) & (first != second)
    none = np.zeros((1, labels.shape[1]) if axis == 0 else (labels.shape[0], 1), bool)
    return np.asarray(np.concatenate([pair, none], axis) | np.concatenate([none, pair], axis), np.bool_)


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
    field: Field, size: int, diameter: float, rng: np.random.Generator, stretch: float = 1.0, *, turn_any: bool = True
) -> Patch:
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
    turn_any : bool
        Turn by any angle, sometimes; otherwise by quarters only, which keeps the pixels as they are.

    Returns
    -------
    Patch
        The square.
    """
    height, width = field.labels.shape
    scale = float(np.clip(diameter / field.diameter, 0.15, 4.0))
    turned = turn_any and bool(stretch > 1.0 or rng.random() < 0.35)
    reach = size * (1.45 if turned else 1.0)
    across = (scale * stretch**0.5, scale * stretch**-0.5)
    spans = [max(8, round(reach / factor)) for factor in across]
    starts = []
    for span, extent in zip(spans, (height, width), strict=True):
        low, high = sorted((0, extent - span))
        starts.append(int(rng.integers(low, high + 1)))
    rows = _mirrored(starts[0], spans[0], height)
    columns = _mirrored(starts[1], spans[1], width)
    region = np.ix_(rows, columns)
    side = (round(reach), round(reach))
    smooth = cv2.INTER_AREA if min(across) < 0.8 else cv2.INTER_LINEAR
    methods = (smooth, cv2.INTER_NEAREST, smooth)
    sources: tuple[NDArray[Any], ...] = (field.image, field.labels, field.maps)
    parts: list[NDArray[Any]] = [
        cv2.resize(array[region], side, interpolation=method) for array, method in zip(sources, methods, strict=True)
    ]
    if turned:
        matrix = turn(side[0], size, float(rng.uniform(0.0, 360.0)))
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


#: A weight of one, in the bytes of :func:`targets`.
ONE = 32

#: Nuclei of fewer pixels than this count as if they were larger, or they would hardly count at all; how much at most.
SMALL, MOST = 150, 3.0


def targets(patch: Patch, nuclei: float = 1.0) -> Image:
    """Draw what the network should answer, and how much each pixel counts.

    Parameters
    ----------
    patch : Patch
        The piece of a field.
    nuclei : float
        How much more the pixels of nuclei count than they would.

    Returns
    -------
    ndarray
        uint8 ``[3, S, S]``: nucleus and depth, 0 to 255; the pixel's weight times :data:`ONE`: 0 where nothing is
        known, 5 within two pixels of two nuclei, up to :data:`MOST` on and beside small ones, and 1 elsewhere.
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
