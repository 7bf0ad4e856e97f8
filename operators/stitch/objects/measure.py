"""Measures nuclei by their outlines. The names are those of QuPath's own extensions, so that users' scripts go on.

Lengths are in micrometres where the pixel size is known, else in pixels. All nuclei of a block are measured at once.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.objects.nuclei import Vertices
from nuclei_segmentation.operators.stitch.objects.outline import Outlines

Floats = npt.NDArray[np.float64]
_AT_ONCE = 1 << 20
"""Most pairs of corners and edges whose distances are computed at once."""


def unit_of(mpp: tuple[float, float] | None) -> str:
    """Return the unit of lengths: µm, or px where the pixel size is not known."""
    return "px" if mpp is None else "\u00b5m"


def outline_names(mpp: tuple[float, float] | None) -> tuple[str, ...]:
    """Return the names of what `measure_outlines` measures, in its order."""
    unit = unit_of(mpp)
    return (
        f"Area {unit}^2",
        f"Length {unit}",
        "Circularity",
        "Solidity",
        f"Max diameter {unit}",
        f"Min diameter {unit}",
        "Eccentricity",
    )


def measure_outlines(found: Outlines, mpp: tuple[float, float] | None) -> tuple[Floats, dict[str, Floats]]:
    """Measure nuclei.

    Parameters
    ----------
    found : Outlines
        Their outlines.
    mpp : tuple of float or None
        Micrometres per pixel in x and y.

    Returns
    -------
    centroids : numpy.ndarray
        (n, 2) float64, in pixels.
    measurements : dict of str to numpy.ndarray
        (n,) float64 by name.
    """
    scale = np.array(mpp or (1.0, 1.0)) / 4
    vertices, starts = found.vertices, found.starts
    if len(starts) == 1:
        return np.empty((0, 2)), {name: np.empty(0) for name in outline_names(mpp)}
    begin = starts[:-1]
    origins = vertices[begin]
    # Relative to each outline's first vertex, so that the sums of products stay small and exact.
    points = (vertices - np.repeat(origins, np.diff(starts), axis=0)) * scale
    following = np.empty_like(points)
    following[:-1] = points[1:]
    following[starts[1:] - 1] = points[begin]
    x, y, next_x, next_y = points[:, 0], points[:, 1], following[:, 0], following[:, 1]
    cross = x * next_y - next_x * y

    def total(values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, begin))

    twice = total(cross)
    middle_x, middle_y = (total((a + b) * cross) / (3 * twice) for a, b in ((x, next_x), (y, next_y)))
    spread_x, spread_y = (
        total((a * a + a * b + b * b) * cross) / (6 * twice) - middle * middle
        for a, b, middle in ((x, next_x, middle_x), (y, next_y, middle_y))
    )
    both = total((x * next_y + 2 * x * y + 2 * next_x * next_y + next_x * y) * cross) / (12 * twice)
    both -= middle_x * middle_y
    root = np.sqrt((spread_x - spread_y) ** 2 / 4 + both * both)
    mean = (spread_x + spread_y) / 2
    eccentricity = np.sqrt(np.clip(2 * root / (mean + root), 0, 1))
    area = np.abs(twice) / 2
    length = total(np.hypot(next_x - x, next_y - y))
    hull_area, widest, narrowest = _measure_hulls(vertices, starts, scale)
    values = (
        found.pixels * (16 * scale[0] * scale[1]),
        length,
        4 * np.pi * area / (length * length),
        area / hull_area,
        widest,
        narrowest,
        eccentricity,
    )
    centroids = np.stack((middle_x, middle_y), axis=1) / (4 * scale) + origins / 4
    return centroids, dict(zip(outline_names(mpp), values, strict=True))


def _measure_hulls(vertices: Vertices, starts: npt.NDArray[np.int64], scale: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the area of each convex hull, the diameter of its smallest circle, and its smallest width."""
    count = len(starts) - 1
    convex_hull, smallest_circle = cv2.convexHull, cv2.minEnclosingCircle
    bounds = starts.tolist()
    found: list[Any] = [
        convex_hull(vertices[begin:end]) for begin, end in pairwise(bounds)
    ]  # fmt: skip
    sizes = np.fromiter(map(len, found), np.intp, count)
    ends = np.cumsum(sizes)
    corners = np.concatenate(found)[:, 0]
    relative = (corners - np.repeat(vertices[starts[:-1]], sizes, axis=0)) * scale
    single = relative.astype(np.float32)  # as OpenCV takes them
    bounds = [0, *ends.tolist()]
    circles = (smallest_circle(single[begin:end])[1] for begin, end in pairwise(bounds))
    widest = 2 * np.fromiter(circles, np.float64, count)
    areas, narrowest = np.empty(count), np.empty(count)
    largest = int(sizes.max())
    step = max(1, _AT_ONCE // (largest * largest))
    for first in range(0, count, step):
        part = slice(first, first + step)
        # Hulls of one length: the first corner fills up the shorter ones, and changes neither area nor width.
        place = np.arange(largest)[None]
        index = np.where(place < sizes[part, None], place, 0) + (ends - sizes)[part, None]
        points = relative[index]
        edges = np.roll(points, -1, axis=1) - points
        length = np.hypot(edges[..., 0], edges[..., 1])
        # How far each corner lies beside the line through each edge, times the edge's length; all on one side of it.
        # Not by a product of matrices, whose rounding depends on the processor.
        beside = edges[..., 0, None] * points[:, None, :, 1] - edges[..., 1, None] * points[:, None, :, 0]
        own = beside[:, place[0], place[0]]
        twice = own.sum(axis=1)
        areas[part] = np.abs(twice) / 2
        # All hulls run the same way round.
        distance = beside.max(axis=2) - own if twice[0] < 0 else own - beside.min(axis=2)
        with np.errstate(invalid="ignore", divide="ignore"):  # an edge that only fills up has no length
            narrowest[part] = np.where(length > 0, distance / length, np.inf).min(axis=1)
    return areas, widest, narrowest
