"""Nuclei made from label images that a test has drawn, with outlines found by scikit-image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.measure import find_contours

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader, NucleusClass

LabelImage = npt.NDArray[np.uint32]


def header(width: int, height: int, count: int = 0, mpp: tuple[float, float] | None = (0.25, 0.25)) -> NucleiHeader:
    return NucleiHeader("0" * 64, width, height, mpp, count, (NucleusClass("Nucleus", (0, 255, 0)),))


def outline(mask: npt.NDArray[np.bool_], x: int = 0, y: int = 0) -> npt.NDArray[np.int32]:
    """The outline of an 8-connected mask whose first pixel lies at (x, y)."""
    contours = find_contours(np.pad(mask, 1).astype(float), 0.5, fully_connected="high")
    points = np.rint(2 * max(contours, key=lambda contour: np.ptp(contour[:, 0]))[:-1, ::-1]).astype(np.int32) - 1
    points = points + np.roll(points, -1, axis=0)  # through the middles of its pieces, in quarters of a pixel
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    corners = points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return corners + 4 * np.array((x, y), np.int32)


def nuclei_from(labels: Sequence[int], outlines: Sequence[npt.NDArray[np.int32]], horizon: int) -> Nuclei:
    """Nuclei of which only labels and outlines are right, and centroids nearly."""
    count = len(labels)
    return Nuclei(
        labels=np.array(labels, np.uint32),
        vertices=np.concatenate([np.empty((0, 2), np.int32), *outlines]).astype(np.int32),
        starts=np.cumsum([0, *map(len, outlines)], dtype=np.int64),
        centroids=np.array([one.mean(axis=0) / 4 for one in outlines], np.float64).reshape(count, 2),
        tiles=np.zeros((count, 2), np.int32),
        at_border=np.zeros(count, np.bool_),
        probability=np.full(count, 0.75),
        classes=np.zeros(count, np.uint8),
        measurements={"Area µm^2": np.ones(count)},
        horizon=horizon,
    )


def chunks_of(image: LabelImage, size: int) -> list[Nuclei]:
    """The objects of a label image, `size` of them a chunk, with the lowest horizons that are true."""
    boxes = [box for box in ndimage.find_objects(image.astype(np.int64)) if box is not None]
    outlines = [
        outline(image[rows, columns] == label, columns.start, rows.start)
        for label, (rows, columns) in enumerate(boxes, 1)
    ]
    tops = [rows.start for rows, _ in boxes]
    return [
        nuclei_from(
            range(first + 1, min(first + size, len(boxes)) + 1),
            outlines[first : first + size],
            min(tops[first + size :], default=len(image)),
        )
        for first in range(0, len(boxes), size)
    ]


def blobs(width: int, height: int, seed: int, sigma: float = 1.5) -> LabelImage:
    """Ragged objects without holes; some have diagonal connections, some are single pixels."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(height, width)), sigma)
    filled = ndimage.binary_fill_holes(noise > noise.std() * 0.6)  # by background that is 4-connected
    labels, _ = ndimage.label(filled, np.ones((3, 3)))
    return labels.astype(np.uint32)


def nuclei_at(
    centroids: npt.ArrayLike, areas: npt.ArrayLike = 1.0, classes: npt.ArrayLike = 0, name: str = "Area µm^2"
) -> Nuclei:
    """Nuclei of which only centroids, areas and classes are right."""
    points = np.asarray(centroids, np.float64).reshape(-1, 2)
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2]], np.int32)
    return replace(
        nuclei_from(range(1, len(points) + 1), [square] * len(points), 0),
        centroids=points,
        classes=np.resize(np.asarray(classes, np.uint8), len(points)),
        measurements={name: np.resize(np.asarray(areas, np.float64), len(points))},
    )
