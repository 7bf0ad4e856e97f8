"""Which tiles of a slide are looked at: tissue mask and grid put together."""

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


def find_foreground(
    slide: Slide, grid: TileGrid, settings: Settings
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_] | None]:
    """Return the tiles with tissue, and the tissue mask.

    Parameters
    ----------
    slide, grid : Slide, TileGrid
        The slide and its tiles.
    settings : Settings
        How to find the tissue, and on how many pixels.

    Returns
    -------
    numpy.ndarray
        (n, 2) int32, row and column of each tile, row by row.
    numpy.ndarray or None
        (h, w) bool, the tissue on the slide's thumbnail; None where every tile is taken.
    """
    if settings.mask.method == "none":
        return foreground_tiles(grid, None), None
    thumbnail = slide.thumbnail(settings.mask_pixel_count_limit)
    log.debug("tissue mask from a thumbnail of %d x %d pixels", thumbnail.shape[1], thumbnail.shape[0])
    if looks_like_fluorescence(thumbnail):
        log.warning(
            "the slide is dark where a stained one is light; for fluorescence put `mask: none` into config.yaml"
        )
    tissue = tissue_mask(thumbnail)
    foreground = foreground_tiles(grid, tissue)
    if len(foreground) == 0:
        log.warning("no tissue found: the result is the slide without overlay; `mask: none` infers every tile")
    return foreground, tissue
