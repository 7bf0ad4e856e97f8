"""The foreground of a slide: from the thumbnail through the tissue mask to the tiles."""

from __future__ import annotations

import logging
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Foreground:
    """Where a slide is searched for nuclei.

    Attributes
    ----------
    tiles : numpy.ndarray
        (n, 2) int32; row and column of each foreground tile, row by row.
    tissue : numpy.ndarray or None
        (h, w) bool; the tissue mask. None if all tiles are foreground without one.
    guessed : numpy.ndarray or None
        (h, w) bool; where the tissue mask is only a guess, since the slide cannot be read there. None if nowhere.
    """

    tiles: npt.NDArray[np.int32]
    tissue: npt.NDArray[np.bool_] | None
    guessed: npt.NDArray[np.bool_] | None


def find_foreground(slide: Slide, grid: TileGrid, settings: Settings) -> Foreground:
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
    Foreground
    """
    if settings.mask.method == "none":
        return Foreground(foreground_tiles(grid, None), None, None)
    thumbnail = slide.thumbnail(settings.mask_pixel_count_limit)
    pixels, unknown = thumbnail.pixels, thumbnail.unknown
    log.debug("tissue mask from a thumbnail of %d x %d pixels", pixels.shape[1], pixels.shape[0])
    if looks_like_fluorescence(pixels, unknown):
        log.warning(
            "the background is dark, as in fluorescence: all tiles are inferred; set `mask: none` in config.yaml "
            "to skip the search for tissue"
        )
    tissue = tissue_mask(pixels, unknown)
    tiles = foreground_tiles(grid, tissue)
    if len(tiles) == 0:
        log.warning(
            "no tissue found: no tile is inferred, and the image has no overlay; to infer all tiles, set `mask: none` "
            "in config.yaml"
        )
    return Foreground(tiles, tissue, unknown if unknown.any() else None)
