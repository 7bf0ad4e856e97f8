"""Regions of slides without nuclei, each checked by a person (``nucleus_free.csv``).

The regions of the split ``val`` measure false positives; those of the split ``train`` are training fields. No region of
one split overlaps a region of the other.
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
"""Pixels around a region that are segmented with it but not counted: a model needs the context."""


@dataclass(frozen=True, slots=True)
class FalsePositives:
    """False positives in regions without nuclei.

    Attributes
    ----------
    pixels : int
        Pixels of the regions.
    positive : int
        Pixels that were classified as nucleus.
    """

    pixels: int
    positive: int

    @property
    def rate(self) -> float:
        """Share of the pixels that were classified as nucleus."""
        return self.positive / max(1, self.pixels)


def false_positives(
    slides: Path, method: Callable[[Pixels], Segmentation], regions: Path = REGIONS
) -> dict[str, FalsePositives]:
    """Segment the regions of the split ``val`` and count false positives.

    Parameters
    ----------
    slides : pathlib.Path
        Folder with the slides that the regions name.
    method : callable
        Segments an image, (h, w, 3) uint8 RGB.
    regions : pathlib.Path
        CSV file with the columns split, slide, kind, x, y, width and height, in level-0 pixels.

    Returns
    -------
    dict of str to FalsePositives
        By kind of tissue, in alphabetical order; the last key is ``all``.

    Raises
    ------
    NucleiError
        A slide is missing or unreadable.
    """
    by_kind: dict[str, list[FalsePositives]] = {}
    for name, kind, region in _rows(regions, "val"):
        with open_slide(slides / name) as slide:
            level_0 = Region(0, 0, slide.info.width, slide.info.height)
            wide = Region(region.x - MARGIN, region.y - MARGIN, region.width + 2 * MARGIN, region.height + 2 * MARGIN)
            context = wide.intersect(level_0)
            nucleus = method(slide.read(context).pixels).mask
        top, left = region.y - context.y, region.x - context.x
        inside = nucleus[top : top + region.height, left : left + region.width]
        by_kind.setdefault(kind, []).append(FalsePositives(inside.size, int(np.count_nonzero(inside))))
    by_kind = dict(sorted(by_kind.items()))
    by_kind["all"] = [one for group in by_kind.values() for one in group]
    return {
        kind: FalsePositives(sum(one.pixels for one in group), sum(one.positive for one in group))
        for kind, group in by_kind.items()
    }


def training_fields(slides: Path, regions: Path = REGIONS) -> list[Field]:
    """Read the regions of the split ``train``.

    Parameters
    ----------
    slides : pathlib.Path
        Folder with the slides; regions of a slide that is not there are omitted.
    regions : pathlib.Path
        CSV file, as for `false_positives`.

    Returns
    -------
    list of Field
        Fields of the modality ``nucleus_free``, with an empty label image.
    """
    fields = []
    for name, kind, region in _rows(regions, "train"):
        if (slides / name).is_file():
            with open_slide(slides / name) as slide:
                image = slide.read(region).pixels
            fields.append(Field(f"{kind} of {name}", "nucleus_free", image, np.zeros(image.shape[:2], np.uint16), 20.0))
    return fields


def _rows(regions: Path, split: str) -> Iterator[tuple[str, str, Region]]:
    """Yield the slide, the kind of tissue and the region of each row of a split."""
    with regions.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["split"] == split:
                yield row["slide"], row["kind"], Region(*(int(row[name]) for name in ("x", "y", "width", "height")))


def table(methods: dict[str, dict[str, FalsePositives]]) -> str:
    """Return the false positives of several methods, by name, as a Markdown table."""
    first = next(iter(methods.values()))
    lines = [f"| without nuclei | pixels | {' | '.join(methods)} |", f"| --- | ---: |{' ---: |' * len(methods)}"]
    for kind in first:
        rates = " | ".join(f"{by_kind[kind].rate:.2%}" for by_kind in methods.values())
        lines.append(f"| {kind} | {first[kind].pixels:,} | {rates} |")
    return "\n".join(lines)
