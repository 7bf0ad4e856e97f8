"""The data path: whole runs with a model that does nothing, beside whatever else turns a slide into a pyramid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from wsi_tile_processor import FastWSIProcessor

from benchmarks import vips
from benchmarks.models import drawing_repository, idle_repository
from benchmarks.runs import empty_output, segment, settings_for
from benchmarks.slides import Generated, generated
from benchmarks.table import Row
from benchmarks.timing import Usage, in_turns, used


def rows(*, quick: bool) -> list[Row]:
    """Run over every tile, over tissue only, and with nuclei to draw; copy with libvips; process with the peer."""
    side, small = (8_000, 4_000) if quick else (20_000, 10_000)
    slide = generated(side, side)
    every = settings_for(slide.path, idle_repository(), "none")
    tissue = settings_for(slide.path, idle_repository(), "tissue")
    drawn = settings_for(slide.path, drawing_repository(), "none")
    best = in_turns(
        {
            "none": lambda: segment(every).total,
            "tissue": lambda: segment(tissue).total,
            "drawn": lambda: segment(drawn).total,
            "vips": lambda: _copy(slide),
        },
        rounds=3,
    )
    copied = best["vips"].wall
    found = []
    for name, kind in (("every tile", "none"), ("tissue only", "tissue")):
        ours = best[kind]
        found += [
            Row(f"data path, {name}", _rate(slide, ours), "megapixels a second", slide.megapixels / ours.wall, 90.0),
            Row(f"  beside a copy, {name}", _rate(slide, ours), _named("libvips", slide, best["vips"]),
                copied / ours.wall, 0.9),
        ]  # fmt: skip
    drawing = best["drawn"]
    found.append(
        Row("  beside a copy, nuclei everywhere", _rate(slide, drawing), _named("libvips", slide, best["vips"]),
            copied / drawing.wall, None)
    )  # fmt: skip
    return [*found, _peer(generated(small, small))]


def _peer(slide: Generated) -> Row:
    every = settings_for(slide.path, idle_repository(), "none")
    best = in_turns({"ours": lambda: segment(every).total, "peer": lambda: _process(slide)}, rounds=2)
    ours, theirs = best["ours"], best["peer"]
    return Row(
        f"  beside its like, {slide.width} px", _rate(slide, ours), _named("wsi-tile-processor", slide, theirs),
        theirs.wall / ours.wall, 6.0,
    )  # fmt: skip


def _rate(slide: Generated, usage: Usage) -> str:
    return f"{slide.megapixels / usage.wall:.0f} Mpx/s ({usage.cpu:.1f} CPU s)"


def _named(name: str, slide: Generated, usage: Usage) -> str:
    return f"{name} {_rate(slide, usage)}"


def _copy(slide: Generated) -> Usage:
    with empty_output() as folder:
        return used(lambda: vips.copy(slide.path, folder / "vips.tif"))


def _process(slide: Generated) -> Usage:
    with empty_output() as folder:
        return used(lambda: _peer_run(slide.path, folder))


def _peer_run(slide: Path, folder: Path) -> None:
    """Run the peer as fast as it goes: no search for background, no batches to copy, the output like ours."""
    FastWSIProcessor(
        wsi_path=slide,
        tiff_path=folder / "peer.ome.tiff",
        level=0,
        tile_size=512,  # faster than with our 256, and its default
        generate=_identity,
        background_filter=_never,
        jpeg_quality=85,
        tiff_chunk=256,
        tmp_dir=folder,
        backend="openslide",
    ).process()


def _identity(tile: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return tile


def _never(tile: npt.NDArray[np.uint8]) -> bool:
    return False
