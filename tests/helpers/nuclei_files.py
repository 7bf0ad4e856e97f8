"""Writes files of nuclei, as a run does it."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.operators.stitch.outputs.chunks import chunks, cut
from nuclei_segmentation.operators.stitch.outputs.writer import Writer


def pieces(nuclei: Nuclei, *ends: int) -> list[Nuclei]:
    """Return nuclei in pieces that end before these numbers."""
    bounds = [0, *ends, len(nuclei)]
    return [cut(nuclei, first, end, nuclei.horizon) for first, end in pairwise(bounds)]


def write(writer: Writer[Any], nuclei: Iterable[Nuclei], size: int = 100, workers: int = 1) -> None:
    """Write nuclei in chunks of `size`."""
    with writer, ThreadPoolExecutor(workers) as pool:
        for encoded in pool.map(writer.encode, chunks(nuclei, size)):
            writer.append(encoded)
        writer.finish()
