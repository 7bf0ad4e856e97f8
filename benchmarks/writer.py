"""The pyramid writer: stitch without an overlay, compared with libvips on the same pixels in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import vips
from benchmarks.runs import empty_output
from benchmarks.slides import pixels
from benchmarks.table import Row
from benchmarks.timing import Usage, alternate, used
from nuclei_segmentation.operators.stitch import OutputSpec, TiledSlide, stitch
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.resources import usable_cpus
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import JpegSettings, OverlaySettings
from nuclei_segmentation.shared.slides.array_slide import ArraySlide


def rows(*, quick: bool) -> list[Row]:
    """Write the same image with both writers, with the same number of threads.

    Parameters
    ----------
    quick : bool
        Whether to use a smaller image.
    """
    side = 6_000 if quick else 10_240
    image = pixels(side, side)

    def ours() -> Usage:
        with empty_output() as folder:
            return used(lambda: write(image, folder))

    def theirs() -> Usage:
        with empty_output() as folder:
            return used(lambda: vips.save(image, folder / "vips.tif"))

    best = alternate({"stitch": ours, "vips": theirs}, rounds=5)
    megapixels = side * side / 1e6

    def rate(usage: Usage) -> str:
        return f"{megapixels / usage.wall:.0f} Mpx/s ({usage.cpu:.2f} CPU s)"

    stitch_usage, vips_usage = best["stitch"], best["vips"]
    name = f"pyramid writer, {usable_cpus()} threads"
    return [Row(name, rate(stitch_usage), f"libvips {rate(vips_usage)}", vips_usage.wall / stitch_usage.wall, 1.4)]


def write(image: Pixels, folder: Path) -> None:
    """Write a pyramid with stitch.

    Parameters
    ----------
    image : numpy.ndarray
        (h, w, 3) uint8 RGB.
    folder : pathlib.Path
        Folder for ``image.tif`` and the spool.
    """
    with WorkerPool(usable_cpus()) as pool:
        stitch(
            TiledSlide(ArraySlide(image), TileGrid(image.shape[1], image.shape[0], 256), np.empty((0, 2), np.int32)),
            iter(()),
            OutputSpec(folder / "image.tif", folder / "spool", OverlaySettings(), JpegSettings()),
            pool,
            lambda done, total: None,
        )
