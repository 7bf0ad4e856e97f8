"""What tile size and overlap do to the nuclei, and what they cost: ``python -m benchmarks.seams [SLIDE ...]``.

A nucleus on a border of tiles that do not overlap is seen in halves. Each choice is compared with the nuclei of the
exact overlap, which are those of one inference over the whole slide. Prints a table for docs/outputs.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile

from benchmarks.models import BUNDLED
from benchmarks.runs import empty_output, segment, settings_for
from benchmarks.slides import SAMPLE
from benchmarks.timing import Usage, alternate
from nuclei_segmentation.operators.segmentation import run
from nuclei_segmentation.operators.stitch.outputs.names import LABELS
from nuclei_segmentation.shared.settings import Settings

CHOICES = ((256, 0), (512, 0), (512, 32), (512, 64), (1024, 0), (1024, 32), (1024, 64), (1024, 224))
"""Tile size and overlap; the last is exact."""

Labels = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the nuclei of a choice agree with the exact ones.

    Attributes
    ----------
    nuclei : int
        How many there are.
    count : float
        Their number divided by that of the exact ones.
    f1 : float
        F1 of nuclei that overlap by half (intersection over union).
    same : float
        Share of the exact nuclei with one that overlaps by 0.95.
    """

    nuclei: int
    count: float
    f1: float
    same: float


def agreement(ours: Labels, exact: Labels) -> Agreement:
    """Compare two label images.

    Parameters
    ----------
    ours, exact : numpy.ndarray
        (h, w) uint32.
    """
    both = (ours > 0) & (exact > 0)
    pairs = ours[both].astype(np.uint64) << np.uint64(32) | exact[both]
    pairs, shared = np.unique(pairs, return_counts=True)
    first, second = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    sizes, known = np.bincount(ours.ravel()), np.bincount(exact.ravel())
    overlap = shared / (sizes[first] + known[second] - shared)
    count, expected = int((sizes[1:] > 0).sum()), int((known[1:] > 0).sum())
    matched = int((overlap > 0.5).sum())  # a nucleus has one partner at most with which it shares more than half
    return Agreement(count, count / expected, 2 * matched / (count + expected), (overlap >= 0.95).sum() / expected)


def main(slides: Sequence[Path]) -> None:
    """Measure all choices on all slides, and print a table.

    Parameters
    ----------
    slides : Sequence of pathlib.Path
        The slides.
    """
    found: dict[tuple[int, int], list[Labels]] = {}
    spent = dict.fromkeys(CHOICES, 0.0)
    for slide in slides:
        base = replace(settings_for(slide, BUNDLED), outputs=("labels",))
        kinds = {choice: replace(base, tile_size=choice[0], overlap=choice[1]) for choice in CHOICES}
        for choice, settings in kinds.items():
            found.setdefault(choice, []).append(_labels(settings))
        tasks = {str(choice): partial(_cpu, replace(settings, outputs=())) for choice, settings in kinds.items()}
        for choice, usage in zip(CHOICES, alternate(tasks, rounds=2).values(), strict=True):
            spent[choice] += usage.cpu
    print("| tile size | overlap | nuclei | of the exact number | F1 | same outline (IoU 0.95) | CPU time |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for choice in CHOICES:
        parts = [agreement(ours, exact) for ours, exact in zip(found[choice], found[CHOICES[-1]], strict=True)]
        nuclei = sum(part.nuclei for part in parts)
        weights = [part.nuclei / nuclei for part in parts]
        count, f1, same = (
            sum(weight * getattr(part, name) for weight, part in zip(weights, parts, strict=True))
            for name in ("count", "f1", "same")
        )
        cost = spent[choice] / spent[CHOICES[0]]
        print(f"| {choice[0]} | {choice[1]} | {nuclei:,} | {count:.1%} | {f1:.3f} | {same:.1%} | {cost:.2f} |")


def _labels(settings: Settings) -> Labels:
    with empty_output() as folder:
        run.segment(replace(settings, output_path=folder))
        labels: Labels = tifffile.imread(folder / LABELS, level=0)
        return labels


def _cpu(settings: Settings) -> Usage:
    return segment(settings).total


if __name__ == "__main__":
    main([Path(text) for text in sys.argv[1:]] or [SAMPLE])
