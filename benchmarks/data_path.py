"""The data path: whole runs with a model that does nothing, compared with other programs that write a pyramid."""

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
from benchmarks.timing import Usage, alternate, used


def rows(*, quick: bool) -> list[Row]:
    """Run on every tile, on tissue only, and with nuclei to draw; compare with libvips and wsi-tile-processor.

    Parameters
    ----------
    quick : bool
        Whether to use smaller slides.
    """
    side, small = (8_000, 4_000) if quick else (20_000, 10_000)
    slide = generated(side, side)
    every = settings_for(slide.path, idle_repository(), "none")
    tissue = settings_for(slide.path, idle_repository(), "tissue")
    drawn = settings_for(slide.path, drawing_repository(), "none")
    best = alternate(
        {
            "none": lambda: segment(every).total,
            "tissue": lambda: segment(tissue).total,
            "drawn": lambda: segment(drawn).total,
            "vips": lambda: _copy(slide),
        },
        rounds=3,
    )
    copied = best["vips"].wall
    table = []
    for name, kind in (("every tile", "none"), ("tissue only", "tissue")):
        ours = best[kind]
        table += [
            Row(f"data path, {name}", _rate(slide, ours), "megapixels a second", slide.megapixels / ours.wall, 90.0),
            Row(f"  compared with a copy, {name}", _rate(slide, ours), _named("libvips", slide, best["vips"]),
                copied / ours.wall, 1.2),
        ]  # fmt: skip
    drawing = best["drawn"]
    table.append(
        Row("  compared with a copy, nuclei everywhere", _rate(slide, drawing), _named("libvips", slide, best["vips"]),
            copied / drawing.wall, 0.6)
    )  # fmt: skip
    return [*table, _similar_tool(generated(small, small))]


def _similar_tool(slide: Generated) -> Row:
    every = settings_for(slide.path, idle_repository(), "none")
    best = alternate({"ours": lambda: segment(every).total, "theirs": lambda: _process(slide)}, rounds=2)
    ours, theirs = best["ours"], best["theirs"]
    return Row(
        f"  compared with a similar tool, {slide.width} px", _rate(slide, ours),
        _named("wsi-tile-processor", slide, theirs), theirs.wall / ours.wall, 7.0,
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
        return used(lambda: _run_similar_tool(slide.path, folder))


def _run_similar_tool(slide: Path, folder: Path) -> None:
    """Run wsi-tile-processor at its fastest: without background search or batches, with output like this program's."""
    FastWSIProcessor(
        wsi_path=slide,
        tiff_path=folder / "theirs.ome.tiff",
        level=0,
        tile_size=512,  # its default, and faster than with 256
        generate=_identity,
        background_filter=_no_background,
        jpeg_quality=85,
        tiff_chunk=256,
        tmp_dir=folder,
        backend="openslide",
    ).process()


def _identity(tile: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return tile


def _no_background(tile: npt.NDArray[np.uint8]) -> bool:
    return False
