"""Measures an exported model on annotated images.

``python -m training.evaluate --model models/segmentation_unet_nuclei/1/model.onnx --data DIR [--data DIR2]``
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from training.data import Field, Image, Labels, load_fields
from training.export import session
from training.network import GRID

COMMON_DIAMETER = 20.0


@dataclass(frozen=True)
class Score:
    """Means over the images of one modality.

    Attributes
    ----------
    modality : str
        Which.
    images, nuclei : int
        How many.
    dice : float
        Dice coefficient of the nucleus channel at byte 128 and the labels, at the image's own scale.
    dice_common : float
        The same with the image resized until its median nucleus is 20 pixels wide.
    f1 : float
        F1 score of the nuclei at an intersection over union of 0.5, at the common scale, over all images together.
    """

    modality: str
    images: int
    nuclei: int
    dice: float
    dice_common: float
    f1: float


def predict(model: onnxruntime.InferenceSession, image: Image) -> Image:
    """Segment a whole image at once, mirrored up to a multiple of the grid.

    Parameters
    ----------
    model : InferenceSession
        The model.
    image : ndarray
        uint8 ``[H, W, 3]``, RGB.

    Returns
    -------
    ndarray
        uint8 ``[H, W, 2]``.
    """
    height, width = image.shape[:2]
    padded = cv2.copyMakeBorder(image, 0, -height % GRID, 0, -width % GRID, cv2.BORDER_REFLECT)
    return np.asarray(model.run(None, {"tiles": padded[None]})[0][0, :height, :width], np.uint8)


def instances(masks: Image) -> Labels:
    """Split the nucleus channel at the boundary channel into nuclei.

    Parameters
    ----------
    masks : ndarray
        uint8 ``[H, W, 2]``.

    Returns
    -------
    ndarray
        uint16 ``[H, W]``; 0 is background.
    """
    nucleus, boundary = masks[:, :, 0] >= 128, masks[:, :, 1]
    seeds = (nucleus & (boundary < 128)).astype(np.uint8)
    _, marks, stats, _ = cv2.connectedComponentsWithStats(seeds, connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < 6
    small[0] = False
    labels = np.where(small[marks], 0, marks).astype(np.uint16)
    kernel = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for _ in range(3):
        grown = cv2.dilate(labels, kernel)
        labels = np.where((labels == 0) & nucleus, grown, labels).astype(np.uint16)
    return labels


def dice(found: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], truth: Labels) -> float:
    """Dice coefficient of two masks; 1 where both are empty.

    Parameters
    ----------
    found : ndarray
        bool ``[H, W]``.
    truth : ndarray
        uint16 ``[H, W]``; not 0 is nucleus.

    Returns
    -------
    float
        0 to 1.
    """
    marked = truth > 0
    both = int(found.sum()) + int(marked.sum())
    return 1.0 if both == 0 else 2.0 * int((found & marked).sum()) / both


def matches(found: Labels, truth: Labels) -> int:
    """Count the pairs of nuclei whose intersection over union exceeds a half.

    Parameters
    ----------
    found, truth : ndarray
        uint16 ``[H, W]``.

    Returns
    -------
    int
        The number of pairs; no nucleus is in two.
    """
    columns = int(found.max()) + 1
    table_ = np.bincount(
        truth.ravel().astype(np.int64) * columns + found.ravel(), minlength=(int(truth.max()) + 1) * columns
    ).reshape(-1, columns)
    union = table_.sum(axis=0)[None, :] + table_.sum(axis=1)[:, None] - table_
    return int((table_[1:, 1:] * 2 > union[1:, 1:]).sum())


def evaluate(path: Path, fields: Iterable[Field], threads: int = 2) -> list[Score]:
    """Score a model.

    Parameters
    ----------
    path : Path
        The ONNX file.
    fields : iterable of Field
        Annotated images.
    threads : int
        Threads of ONNX Runtime.

    Returns
    -------
    list of Score
        One a modality, in alphabetical order.
    """
    model = session(path, threads)
    groups: dict[str, list[tuple[float, float, int, int, int]]] = defaultdict(list)
    for field in fields:
        own = dice(predict(model, field.image)[:, :, 0] >= 128, field.labels)
        scale = COMMON_DIAMETER / field.diameter
        method = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(field.image, None, fx=scale, fy=scale, interpolation=method), np.uint8)
        size = (image.shape[1], image.shape[0])
        labels = np.asarray(cv2.resize(field.labels, size, interpolation=cv2.INTER_NEAREST), np.uint16)
        masks = predict(model, image)
        found = instances(masks)
        counts = (len(np.unique(found)) - 1, len(np.unique(labels)) - 1, matches(found, labels))
        groups[field.modality].append((own, dice(masks[:, :, 0] >= 128, labels), *counts))
    scores = []
    for modality, rows in sorted(groups.items()):
        means = np.mean(rows, axis=0)
        found_all, truth_all, matched = (sum(row[column] for row in rows) for column in (2, 3, 4))
        f1 = 2.0 * matched / max(1, found_all + truth_all)
        scores.append(Score(modality, len(rows), int(truth_all), float(means[0]), float(means[1]), f1))
    return scores


def table(scores: Iterable[Score]) -> str:
    """Set scores as a Markdown table.

    Parameters
    ----------
    scores : iterable of Score
        From :func:`evaluate`.

    Returns
    -------
    str
        The table.
    """
    lines = [
        "| modality | images | nuclei | Dice, own scale | Dice, common scale | F1 at IoU 0.5, common scale |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for s in scores:
        lines.append(f"| {s.modality} | {s.images} | {s.nuclei} | {s.dice:.3f} | {s.dice_common:.3f} | {s.f1:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Evaluate a model from the command line."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="ONNX file")
    parser.add_argument("--data", type=Path, action="append", required=True, help="data directory; repeatable")
    parser.add_argument("--split", default="val", help="split of the data (%(default)s)")
    options = parser.parse_args()
    print(table(evaluate(options.model, load_fields(options.data, options.split))))


if __name__ == "__main__":
    main()
