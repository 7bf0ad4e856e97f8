"""Regions of slides without nuclei, looked at one by one (``nucleus_free.csv``): how much is marked there, and lessons.

The regions to measure on (split ``val``) and those to learn from (``train``) do not meet.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuclei_segmentation.segmenter import Segmentation
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.slides import open_slide
from training.data import Field

REGIONS = Path(__file__).with_name("nucleus_free.csv")

MARGIN = 64
"""Pixels around a region that are segmented with it, and do not count: a model needs to see them."""


@dataclass(frozen=True, slots=True)
class Marked:
    """Pixels of a kind of tissue without nuclei, and how many of them are marked."""

    pixels: int
    marked: int

    @property
    def share(self) -> float:
        """Marked pixels by all."""
        return self.marked / max(1, self.pixels)


def marks(slides: Path, method: Callable[[Pixels], Segmentation], regions: Path = REGIONS) -> dict[str, Marked]:
    """Segment regions without nuclei.

    Parameters
    ----------
    slides : Path
        The folder of the slides that the regions are of.
    method : callable
        What finds the nuclei of an image.
    regions : Path
        CSV file: split, slide, kind, x, y, width, height.

    Returns
    -------
    dict
        By kind, in alphabetical order; the last is ``all``.

    Raises
    ------
    NucleiError
        A slide is missing or unreadable.
    """
    found: dict[str, list[Marked]] = {}
    for name, kind, region in _rows(regions, "val"):
        with open_slide(slides / name) as slide:
            whole = Region(0, 0, slide.info.width, slide.info.height)
            wide = Region(region.x - MARGIN, region.y - MARGIN, region.width + 2 * MARGIN, region.height + 2 * MARGIN)
            seen = wide.intersect(whole)
            nucleus = method(slide.read(seen).pixels).mask
        top, left = region.y - seen.y, region.x - seen.x
        inside = nucleus[top : top + region.height, left : left + region.width]
        found.setdefault(kind, []).append(Marked(inside.size, int(np.count_nonzero(inside))))
    found = dict(sorted(found.items()))
    found["all"] = [one for group in found.values() for one in group]
    return {
        kind: Marked(sum(one.pixels for one in group), sum(one.marked for one in group))
        for kind, group in found.items()
    }


def lessons(slides: Path, regions: Path = REGIONS) -> list[Field]:
    """Read the regions that say what is no nucleus.

    Parameters
    ----------
    slides : Path
        The folder of the slides; regions of slides that are not there are left out.
    regions : Path
        As for :func:`marks`.

    Returns
    -------
    list of Field
        Of the modality ``nucleus_free``; their labels are 0 everywhere.
    """
    found = []
    for name, kind, region in _rows(regions, "train"):
        if (slides / name).is_file():
            with open_slide(slides / name) as slide:
                image = slide.read(region).pixels
            found.append(Field(f"{kind} of {name}", "nucleus_free", image, np.zeros(image.shape[:2], np.uint16), 20.0))
    return found


def _rows(regions: Path, split: str) -> Iterator[tuple[str, str, Region]]:
    """Yield slide, kind and place of the regions of a split."""
    with regions.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["split"] == split:
                yield row["slide"], row["kind"], Region(*(int(row[name]) for name in ("x", "y", "width", "height")))


def table(scores: dict[str, dict[str, Marked]]) -> str:
    """Set the results of several methods, by name, as a Markdown table."""
    kinds = list(next(iter(scores.values())))
    lines = [f"| without nuclei | pixels | {' | '.join(scores)} |", f"| --- | ---: |{' ---: |' * len(scores)}"]
    for kind in kinds:
        shares = " | ".join(f"{found[kind].share:.2%}" for found in scores.values())
        lines.append(f"| {kind} | {next(iter(scores.values()))[kind].pixels:,} | {shares} |")
    return "\n".join(lines)
