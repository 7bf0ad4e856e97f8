"""Measures of agreement between predicted and true nuclei.

Two nuclei match at a threshold t if their intersection over union (IoU) is at least t. Of all one-to-one assignments,
the one with the most matches counts. TP is the number of matches, FP that of predicted nuclei without a match, and FN
that of true nuclei without a match.

Dice
    Twice the number of pixels that are nucleus in both images, divided by the sum of the numbers of nucleus pixels in
    each. 1 if neither has any. Mean over the images.
pooled Dice
    Dice of the pixels of all images together.
AP@t
    TP / (TP + FP + FN), as defined by StarDist and the Data Science Bowl. Over all images together.
F1@0.5
    2 TP / (2 TP + FP + FN) at an IoU of 0.5. Over all images together.
AJI
    Aggregated Jaccard index (Kumar et al., 2017). Mean over the images.
PQ
    Panoptic quality (Kirillov et al., 2019): F1@0.5 times the mean IoU of its matches. Over all images together.
count error
    Sum over the images of the absolute error of the count, divided by the number of true nuclei.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

LabelImage = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, slots=True)
class Overlap:
    """The overlap of the t true and the p predicted nuclei of an image.

    Attributes
    ----------
    both : numpy.ndarray
        (t, p) int64: pixels that are in both nuclei of a pair.
    true : numpy.ndarray
        (t,) int64: area of each true nucleus, in pixels.
    predicted : numpy.ndarray
        (p,) int64: area of each predicted nucleus, in pixels.
    """

    both: npt.NDArray[np.int64]
    true: npt.NDArray[np.int64]
    predicted: npt.NDArray[np.int64]

    @property
    def union(self) -> npt.NDArray[np.int64]:
        """(t, p) int64: pixels that are in either nucleus of a pair."""
        return self.true[:, None] + self.predicted[None, :] - self.both

    @property
    def iou(self) -> Floats:
        """(t, p) float64: intersection over union of each pair."""
        return self.both / self.union


def overlap(true: LabelImage, predicted: LabelImage) -> Overlap:
    """Compare two label images; the labels need not be consecutive.

    Parameters
    ----------
    true : numpy.ndarray
        (h, w) label image of the true nuclei.
    predicted : numpy.ndarray
        (h, w) label image of the predicted nuclei.
    """
    _, left = np.unique(true, return_inverse=True)
    _, right = np.unique(predicted, return_inverse=True)
    # Append a background pixel, so that number 0 is the background even in an image without any.
    left = np.append(left.ravel() + int(true.all()), 0)
    right = np.append(right.ravel() + int(predicted.all()), 0)
    shape = (int(left.max()) + 1, int(right.max()) + 1)
    table = np.bincount(left * shape[1] + right, minlength=shape[0] * shape[1]).reshape(shape)
    return Overlap(table[1:, 1:], table[1:].sum(axis=1), table[:, 1:].sum(axis=0))


def matches(iou: Floats, threshold: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the matches at a threshold.

    Parameters
    ----------
    iou : numpy.ndarray
        (t, p) float64, from `Overlap.iou`.
    threshold : float
        Least IoU of a match.

    Returns
    -------
    true : numpy.ndarray
        (m,) intp: row of each match in `iou`.
    predicted : numpy.ndarray
        (m,) intp: column of each match in `iou`.
    """
    good = iou >= threshold
    rows, columns = linear_sum_assignment(-good.astype(np.float64) - iou / (2.0 * max(1, min(iou.shape))))
    kept = good[rows, columns]
    return rows[kept], columns[kept]


def dice_parts(true: npt.NDArray[np.bool_], predicted: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Return numerator and denominator of the Dice coefficient of two masks.

    Parameters
    ----------
    true : numpy.ndarray
        (h, w) bool.
    predicted : numpy.ndarray
        (h, w) bool.
    """
    return 2 * int((true & predicted).sum()), int(true.sum()) + int(predicted.sum())


def aggregated_jaccard(pairs: Overlap) -> float:
    """Return the aggregated Jaccard index of one image.

    For each true nucleus, the predicted one with the highest IoU adds to intersection and union. Predicted nuclei that
    are never chosen add to the union only.
    """
    if not pairs.predicted.size:
        return 0.0 if pairs.true.size else 1.0
    both = union = 0
    chosen = np.zeros(pairs.predicted.size, bool)
    iou = pairs.iou
    for number, best in enumerate(iou.argmax(axis=1) if iou.size else ()):
        if pairs.both[number, best]:
            both += int(pairs.both[number, best])
            union += int(pairs.union[number, best])
            chosen[best] = True
        else:
            union += int(pairs.true[number])
    return both / (union + int(pairs.predicted[~chosen].sum()))


@dataclass(slots=True)
class Score:
    """The measures of a group of images, which are added one by one.

    Attributes
    ----------
    images : int
        Number of images.
    true : int
        Number of true nuclei.
    predicted : int
        Number of predicted nuclei.
    """

    images: int = 0
    true: int = 0
    predicted: int = 0
    _dice: float = 0.0
    _both: int = 0
    _either: int = 0
    _jaccard: float = 0.0
    _error: int = 0
    _iou: float = 0.0
    _matched: dict[float, int] = field(default_factory=lambda: dict.fromkeys(THRESHOLDS, 0))

    def add(self, true: LabelImage, predicted: LabelImage, nucleus: npt.NDArray[np.bool_], count: int) -> None:
        """Add an image.

        Parameters
        ----------
        true : numpy.ndarray
            (h, w) label image of the true nuclei.
        predicted : numpy.ndarray
            (h, w) label image of the predicted nuclei.
        nucleus : numpy.ndarray
            (h, w) bool: pixels that were classified as nucleus.
        count : int
            Number of nuclei as counted by the program.
        """
        pairs = overlap(true, predicted)
        iou = pairs.iou
        self.images += 1
        self.true += pairs.true.size
        self.predicted += pairs.predicted.size
        both, either = dice_parts(true > 0, nucleus)
        self._dice += ratio(both, either)
        self._both += both
        self._either += either
        self._jaccard += aggregated_jaccard(pairs)
        self._error += abs(count - pairs.true.size)
        for threshold in THRESHOLDS:
            self._matched[threshold] += len(matches(iou, threshold)[0])
        self._iou += float(iou[matches(iou, THRESHOLDS[0])].sum())

    def measures(self) -> dict[str, float]:
        """Return all measures by name."""
        images = max(1, self.images)
        half = self._matched[0.5]
        both = self.true + self.predicted
        return {
            "Dice": self._dice / images,
            "pooled Dice": ratio(self._both, self._either),
            **{f"AP@{t}": ratio(hit, both - hit) for t, hit in self._matched.items()},
            "F1@0.5": ratio(2 * half, both),
            "AJI": self._jaccard / images,
            "PQ": ratio(2.0 * self._iou, both),
            "count error": self._error / max(1, self.true),
        }


def ratio(part: float, total: float) -> float:
    """Return a ratio; 1 if its denominator is 0, which means that there are neither true nor predicted nuclei.

    Parameters
    ----------
    part : float
        Numerator.
    total : float
        Denominator.
    """
    return part / total if total else 1.0


def table(rows: Iterable[tuple[Sequence[str], Score]], heads: Sequence[str]) -> str:
    """Return scores as a Markdown table.

    Parameters
    ----------
    rows : Iterable of tuple of (Sequence of str, Score)
        The texts of the first columns, one for each of `heads`, and the score.
    heads : Sequence of str
        Headings of the first columns.
    """
    names = list(Score().measures())
    columns = [*heads, "images", "nuclei", *names]
    lines = [f"| {' | '.join(columns)} |", f"| {' | '.join(['---'] * len(heads) + ['---:'] * (2 + len(names)))} |"]
    for texts, score in rows:
        values = [f"{value:.3f}" for value in score.measures().values()]
        lines.append(f"| {' | '.join([*texts, str(score.images), str(score.true), *values])} |")
    return "\n".join(lines)
