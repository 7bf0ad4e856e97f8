"""The hatching that replaces pixels that could not be read."""

from __future__ import annotations

from typing import Final

import numpy as np

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region

_STRIPE: Final = 8  # level-0 pixels, measured along x
# Magenta and yellow: no stain has the two side by side.
_COLOURS: Final = np.array([(255, 0, 255), (255, 255, 0)], np.uint8)


def hatch(pixels: Pixels, region: Region) -> None:
    """Fill `pixels` with diagonal magenta and yellow stripes.

    The stripes depend only on the position on the slide. So they continue without a seam across neighbouring damaged
    tiles, and the same damage gives the same bytes whichever way it was read.

    Parameters
    ----------
    pixels : numpy.ndarray
        (region.height, region.width, 3) uint8; overwritten.
    region : Region
        The region of the slide that they belong to.
    """
    rows = np.arange(region.y, region.bottom)[:, None]
    columns = np.arange(region.x, region.right)[None, :]
    pixels[:] = _COLOURS[(rows + columns) // _STRIPE % 2]
