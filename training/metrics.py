"""Measures of agreement between found and true nuclei.

Two nuclei match at a threshold t if their intersection over union (IoU) is at least t; of all ways to pair nuclei, the
one with the most matches counts. TP are the matches, FP found nuclei without one, FN true ones without one.

Dice
    Twice the pixels that are nucleus in both, by the sum of those that are in either; mean over the images. 1 where
    there are none.
pooled Dice
    The same of the pixels of all images together.
AP@t
    TP / (TP + FP + FN), as StarDist and the Data Science Bowl have it; over all images together.
F1@0.5
    2 TP / (2 TP + FP + FN) at an IoU of 0.5; over all images together.
AJI
    Aggregated Jaccard index (Kumar et al., 2017); mean over the images.
PQ
    Panoptic quality (Kirillov et al., 2019): F1@0.5 times the mean IoU of its matches; over all images together.
count error
    Sum over the images of how far the count is off, by the number of true nuclei.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

AnyLabels = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class Overlap:
    """How true and found nuclei of one image lie on one another.

    Attributes
    ----------
    both : numpy.ndarray
        (true, found) pixels in each pair.
    true, found : numpy.ndarray
        Pixels in each nucleus.
    """

    both: npt.NDArray[np.int64]
    true: npt.NDArray[np.int64]
    found: npt.NDArray[np.int64]

    @property
    def union(self) -> npt.NDArray[np.int64]:
        """(true, found) pixels in either of a pair."""
        return self.true[:, None] + self.found[None, :] - self.both

    @property
    def iou(self) -> Floats:
        """(true, found) intersection over union of each pair."""
        return self.both / self.union


def overlap(true: AnyLabels, found: AnyLabels) -> Overlap:
    """Compare two (h, w) label images; 0 is background, other numbers need not follow one another."""
    _, left = np.unique(true, return_inverse=True)
    _, right = np.unique(found, return_inverse=True)
    # with a background of at least one pixel each, so that it is number 0
    left = np.append(left.ravel() + int(true.all()), 0)
    right = np.append(right.ravel() + int(found.all()), 0)
    shape = (int(left.max()) + 1, int(right.max()) + 1)
    table = np.bincount(left * shape[1] + right, minlength=shape[0] * shape[1]).reshape(shape)
    return Overlap(table[1:, 1:], table[1:].sum(axis=1), table[:, 1:].sum(axis=0))


def matches(iou: Floats, threshold: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return which true and which found nuclei are pairs at a threshold: rows and columns of `iou`."""
    good = iou >= threshold
    rows, columns = linear_sum_assignment(-good.astype(np.float64) - iou / (2.0 * max(1, min(iou.shape))))
    kept = good[rows, columns]
    return rows[kept], columns[kept]


def dice_parts(true: npt.NDArray[np.bool_], found: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return the two numbers whose ratio is the Dice coefficient of two masks."""
    return 2 * int((true & found).sum()), int(true.sum()) + int(found.sum())


def aggregated_jaccard(pairs: Overlap) -> float:
    """Return the aggregated Jaccard index of one image.

    For each true nucleus, the found one with the highest IoU adds to intersection and union; what is never chosen adds
    to the union alone.
    """
    if not pairs.found.size:
        return 0.0 if pairs.true.size else 1.0
    both = union = 0
    chosen = np.zeros(pairs.found.size, bool)
    iou = pairs.iou
    for number, best in enumerate(iou.argmax(axis=1) if iou.size else ()):
        if pairs.both[number, best]:
            both += int(pairs.both[number, best])
            union += int(pairs.union[number, best])
            chosen[best] = True
        else:
            union += int(pairs.true[number])
    return both / (union + int(pairs.found[~chosen].sum()))


@dataclass(slots=True)
class Score:
    """The measures of a group of images; add one after the other.

    Attributes
    ----------
    images : int
        How many.
    true, found : int
        Nuclei in them.
    """

    images: int = 0
    true: int = 0
    found: int = 0
    _dice: float = 0.0
    _both: int = 0
    _either: int = 0
    _jaccard: float = 0.0
    _error: int = 0
    _iou: float = 0.0
    _matched: dict[float, int] = field(default_factory=lambda: dict.fromkeys(THRESHOLDS, 0))

    def add(self, true: AnyLabels, found: AnyLabels, nucleus: npt.NDArray[np.bool_], count: int) -> None:
        """Add an image.

        Parameters
        ----------
        true, found : AnyLabels
            (h, w) labels.
        nucleus : numpy.ndarray
            (h, w), what was found to be nucleus at all.
        count : int
            How many nuclei were counted.
        """
        pairs = overlap(true, found)
        iou = pairs.iou
        self.images += 1
        self.true += pairs.true.size
        self.found += pairs.found.size
        both, either = dice_parts(true > 0, nucleus)
        self._dice += share(both, either)
        self._both += both
        self._either += either
        self._jaccard += aggregated_jaccard(pairs)
        self._error += abs(count - pairs.true.size)
        for threshold in THRESHOLDS:
            self._matched[threshold] += len(matches(iou, threshold)[0])
        self._iou += float(iou[matches(iou, THRESHOLDS[0])].sum())

    def measures(self) -> dict[str, float]:
        """Return all measures by their names."""
        images = max(1, self.images)
        half = self._matched[0.5]
        both = self.true + self.found
        return {
            "Dice": self._dice / images,
            "pooled Dice": share(self._both, self._either),
            **{f"AP@{t}": share(hit, both - hit) for t, hit in self._matched.items()},
            "F1@0.5": share(2 * half, both),
            "AJI": self._jaccard / images,
            "PQ": share(2.0 * self._iou, both),
            "count error": self._error / max(1, self.true),
        }


def share(part: float, whole: float) -> float:
    """Return a ratio; 1 where there was nothing to find and nothing was found."""
    return part / whole if whole else 1.0


def table(rows: Iterable[tuple[Sequence[str], Score]], heads: Sequence[str]) -> str:
    """Set scores as a Markdown table.

    Parameters
    ----------
    rows : Iterable of tuple
        What each row is of, one text for each of `heads`, and its score.
    heads : Sequence of str
        The heads of the first columns.
    """
    names = list(Score().measures())
    columns = [*heads, "images", "nuclei", *names]
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join(['---'] * len(heads) + ['---:'] * (2 + len(names)))} |"]
    for texts, score in rows:
        values = [f"{value:.3f}" for value in score.measures().values()]
        lines.append(f"| {' | '.join([*texts, str(score.images), str(score.true), *values])} |")
    return "\n".join(lines)
