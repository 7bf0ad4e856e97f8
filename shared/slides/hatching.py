"""The pattern that stands for pixels that could not be read."""

from __future__ import annotations

from typing import Final

import numpy as np

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region

_STRIPE: Final = 8  # level-0 pixels, measured along x
_COLORS: Final = np.array(
    [(255, 0, 255), (255, 255, 0)], np.uint8
)  # magenta and yellow: no stain has them side by side


def hatch(pixels: Pixels, region: Region) -> None:
    """Paint `pixels` with diagonal magenta and yellow stripes.

    The stripes depend only on where the pixels lie on the slide, so that neighbouring damaged tiles join without a
    seam, and the same damage gives the same bytes however it was read.

    Parameters
    ----------
    pixels : numpy.ndarray
        (region.height, region.width, 3) uint8; overwritten.
    region : Region
        Where they lie, in level-0 pixels.
    """
    rows = np.arange(region.y, region.bottom)[:, None]
    columns = np.arange(region.x, region.right)[None, :]
    pixels[:] = _COLORS[(rows + columns) // _STRIPE % 2]
