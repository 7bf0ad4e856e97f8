"""libvips, the reference for writing pyramids."""

from __future__ import annotations

import os
from pathlib import Path

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.runtime.resources import usable_cpus

os.environ.setdefault("VIPS_CONCURRENCY", str(usable_cpus()))  # read when libvips is loaded, by the next line

import pyvips

pyvips.voperation.cache_set_max(0)  # else the second round would find the first one's answer


def save(pixels: Pixels, target: Path) -> None:
    """Write (h, w, 3) uint8 RGB as a pyramid."""
    height, width = pixels.shape[:2]
    _save(pyvips.Image.new_from_memory(pixels.data, width, height, 3, "uchar"), target)


def copy(slide: Path, target: Path) -> None:
    """Copy level 0 of a TIFF file to a pyramid."""
    _save(pyvips.Image.tiffload(str(slide), access="sequential"), target)


def _save(image: pyvips.Image, target: Path) -> None:
    """Write as ours does: JPEG of quality 85 with 4:2:0, tiles of 256, one TIFF with reduced levels."""
    image.tiffsave(
        str(target), tile=True, tile_width=256, tile_height=256, pyramid=True, compression="jpeg", Q=85, bigtiff=True
    )
