"""libvips, the reference for writing pyramids."""

from __future__ import annotations

import os
from pathlib import Path

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.runtime.resources import usable_cpus

os.environ.setdefault("VIPS_CONCURRENCY", str(usable_cpus()))  # libvips reads it when the next line loads it

import pyvips

pyvips.voperation.cache_set_max(0)  # otherwise the second round would use the cached result of the first one


def save(pixels: Pixels, target: Path) -> None:
    """Write an image as a pyramid.

    Parameters
    ----------
    pixels : numpy.ndarray
        (h, w, 3) uint8 RGB.
    target : pathlib.Path
        TIFF file to write.
    """
    height, width = pixels.shape[:2]
    _save(pyvips.Image.new_from_memory(pixels.data, width, height, 3, "uchar"), target)


def copy(slide: Path, target: Path) -> None:
    """Copy level 0 of a slide into a pyramid.

    Parameters
    ----------
    slide : pathlib.Path
        TIFF file.
    target : pathlib.Path
        TIFF file to write.
    """
    _save(pyvips.Image.tiffload(str(slide), access="sequential"), target)


def _save(image: pyvips.Image, target: Path) -> None:
    """Write in the format of this program: JPEG of quality 85 with 4:2:0, tiles of 256, one TIFF with all levels."""
    image.tiffsave(
        str(target), tile=True, tile_width=256, tile_height=256, pyramid=True, compression="jpeg", Q=85, bigtiff=True
    )
