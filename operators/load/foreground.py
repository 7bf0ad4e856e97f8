"""The foreground of a slide: from the thumbnail through the tissue mask to the tiles."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.load.tiling import foreground_tiles
from nuclei_segmentation.operators.load.tissue import looks_like_fluorescence, tissue_mask
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.slides import Slide

log = logging.getLogger(__name__)


MASK_BYTES = 64
"""For each pixel of the thumbnail, while the tissue is looked for; it is given back before tiles are read."""


def mask_memory(grid: TileGrid, settings: Settings) -> int:
    """Return the bytes of memory that `find_foreground` takes while it looks for tissue.

    Parameters
    ----------
    grid : TileGrid
        The slide's tiles.
    settings : Settings
        Says whether to look for tissue, and the largest size of the thumbnail.
    """
    if settings.mask.method == "none":
        return 0
    return MASK_BYTES * min(settings.mask_pixel_count_limit, grid.width * grid.height)


def find_foreground(
    slide: Slide, grid: TileGrid, settings: Settings
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_] | None]:
    """Return the foreground tiles and the tissue mask.

    Parameters
    ----------
    slide : Slide
        The slide.
    grid : TileGrid
        Its tiles.
    settings : Settings
        Says whether to look for tissue, and the largest size of the thumbnail.

    Returns
    -------
    numpy.ndarray
        (n, 2) int32; row and column of each foreground tile, row by row.
    numpy.ndarray or None
        (h, w) bool; the tissue mask. None if all tiles are foreground without one.
    """
    if settings.mask.method == "none":
        return foreground_tiles(grid, None), None
    thumbnail = slide.thumbnail(settings.mask_pixel_count_limit)
    log.debug("tissue mask from a thumbnail of %d x %d pixels", thumbnail.shape[1], thumbnail.shape[0])
    if looks_like_fluorescence(thumbnail):
        log.warning(
            "the background is dark, as in fluorescence: all tiles are inferred; set `mask: none` in config.yaml "
            "to skip the search for tissue"
        )
    tissue = tissue_mask(thumbnail)
    foreground = foreground_tiles(grid, tissue)
    if len(foreground) == 0:
        log.warning(
            "no tissue found: no tile is inferred, and the image has no overlay; to infer all tiles, set `mask: none` "
            "in config.yaml"
        )
    return foreground, tissue
