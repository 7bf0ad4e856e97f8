"""Outlines: from the border pixels of nuclei to polygons.

A polygon through the centres of the border pixels would be too small by half a pixel all round: a tenth of a nucleus of
20 pixels. Here each side that a border pixel shares with the outside gives a point, in its middle. These points make
the contour that marching squares draws at the level of one half. Its steps make it 5% to 10% longer than what it goes
around, so the outline runs through the middles of its pieces instead, which cuts the corners: 2% to 5% remain. The
centre of every pixel stays on its side, so the outline gives the pixels back exactly. It never touches or crosses
itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.objects.nuclei import Vertices

Integers = npt.NDArray[np.int64]

_STEPS = ((1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1))
"""x and y of the eight directions."""
_NO_STEP = 8
_DIRECTION = np.full(9, _NO_STEP, np.int64)
for _number, (_x, _y) in enumerate(_STEPS):
    _DIRECTION[3 * (_y + 1) + _x + 1] = _number


def _sides_table() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Return how many sides of a border pixel face outside, and where their middles are, by the steps to and from it.

    Border following looks round a pixel from where it came, until it finds where to go. What it passes is outside.
    """
    counts = np.zeros((9, 9), np.uint8)
    middles = np.zeros((9, 9, 4, 2), np.int32)
    for came in range(8):
        for goes in range(8):
            back = (came + 4) % 8
            passed = [(back - turn) % 8 for turn in range(1, (back - goes - 1) % 8 + 1)]
            sides = [direction for direction in passed if direction % 2 == 0]
            counts[came, goes] = len(sides)
            for number, direction in enumerate(sides):
                middles[came, goes, number] = _STEPS[direction]
    counts[_NO_STEP, _NO_STEP] = 4  # a single pixel
    middles[_NO_STEP, _NO_STEP] = [_STEPS[direction] for direction in (0, 6, 4, 2)]
    return counts.ravel(), middles.reshape(-1, 2)


_COUNTS, _MIDDLES = _sides_table()


def border_pixels(labels: npt.NDArray[np.int32]) -> dict[int, list[Vertices]]:
    """Return the pixels along the outer borders of all nuclei, in order.

    Parameters
    ----------
    labels : numpy.ndarray
        (h, w) int32, the number of the nucleus at each pixel; 0 where there is none.

    Returns
    -------
    dict of int to list of numpy.ndarray
        By number, ascending, for each part of the nucleus (n, 2) int32, x and y of each pixel, the longest border
        first. A pixel comes twice where the border passes it twice.
    """
    # One call for all: it traces the borders of regions with the same number. OpenCV writes to its input.
    found: Any = cv2.findContours(labels.copy(), cv2.RETR_FLOODFILL, cv2.CHAIN_APPROX_NONE)[0]
    if not len(found):
        return {}
    borders: dict[int, list[Vertices]] = {}
    starts = np.stack([border[0, 0] for border in found])
    for label, border in zip(labels[starts[:, 1], starts[:, 0]].tolist(), found, strict=True):
        if label:
            borders.setdefault(label, []).append(border[:, 0])
    for parts in borders.values():
        parts.sort(key=len, reverse=True)
    return dict(sorted(borders.items()))


@dataclass(frozen=True, slots=True)
class Outlines:
    """The outlines of nuclei.

    Attributes
    ----------
    vertices : numpy.ndarray
        (v, 2) int32 in quarter pixels, as in `Nuclei`.
    starts : numpy.ndarray
        (n + 1,) int64, where each outline begins.
    pixels : numpy.ndarray
        (n,) int64, the pixels inside each, holes filled.
    """

    vertices: Vertices
    starts: Integers
    pixels: Integers


def outlines(borders: Sequence[Vertices]) -> Outlines:
    """Return the outlines of nuclei.

    Parameters
    ----------
    borders : Sequence of numpy.ndarray
        For each nucleus what `border_pixels` returns.
    """
    if not len(borders):
        return Outlines(np.empty((0, 2), np.int32), np.zeros(1, np.int64), np.empty(0, np.int64))
    lengths = np.fromiter(map(len, borders), np.int64, len(borders))
    ends = np.cumsum(lengths)
    pixels = np.concatenate(borders)
    steps = _to_next(pixels, ends - lengths, ends) - pixels
    goes = _DIRECTION.take(3 * steps[:, 1] + steps[:, 0] + 4)
    turns = 9 * _to_previous(goes, ends - lengths, ends) + goes
    counts = _COUNTS.take(turns)
    total = np.cumsum(counts, dtype=np.int64)
    # The sides of each pixel follow one another in the table, four to a turn.
    first = 4 * turns - total + counts
    contour = (2 * pixels + 1).repeat(counts, axis=0)
    contour += _MIDDLES.take(first.repeat(counts) + np.arange(total[-1]), axis=0)
    ends = total[ends - 1]
    starts = np.concatenate(([0], ends[:-1]))
    following = _to_next(contour, starts, ends)
    return Outlines(*_without_straight(contour + following, starts, ends), _pixels(contour, following, starts))


def _pixels(contour: Vertices, following: Vertices, starts: Integers) -> Integers:
    """Return how many pixels lie inside each contour: its corners cut off half a pixel more than they add."""
    origins = np.repeat(contour[starts], np.diff(np.append(starts, len(contour))), axis=0)
    (x, y), (next_x, next_y) = (contour - origins).T.astype(np.int64), (following - origins).T.astype(np.int64)
    eighths = np.abs(np.add.reduceat(x * next_y - next_x * y, starts))
    return np.asarray((eighths + 4) // 8, np.int64)


def _without_straight(vertices: Vertices, starts: Integers, ends: Integers) -> tuple[Vertices, Integers]:
    """Leave out the vertices on the line between their neighbours."""
    steps = _to_next(vertices, starts, ends) - vertices
    before = _to_previous(steps, starts, ends)
    bends = steps[:, 0] * before[:, 1] != steps[:, 1] * before[:, 0]
    kept = np.concatenate(([0], np.cumsum(bends)))
    return vertices[bends], np.concatenate(([0], kept[ends]))


def _to_next(items: npt.NDArray[Any], starts: Integers, ends: Integers) -> npt.NDArray[Any]:
    """Return for each item of a ring the one after it."""
    following = np.empty_like(items)
    following[:-1] = items[1:]
    following[ends - 1] = items[starts]
    return following


def _to_previous(items: npt.NDArray[Any], starts: Integers, ends: Integers) -> npt.NDArray[Any]:
    """Return for each item of a ring the one before it."""
    before = np.empty_like(items)
    before[1:] = items[:-1]
    before[starts] = items[ends - 1]
    return before
