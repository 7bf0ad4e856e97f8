"""An image in memory as a slide, so that the stages take it like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.slides.slide import RegionPixels, Slide, SlideInfo
from nuclei_segmentation.shared.slides.thumbnail import Shrinker, Thumbnail, thumbnail_size


class ArraySlide(Slide):
    """An image in memory.

    Parameters
    ----------
    pixels : numpy.ndarray
        (H, W, 3) uint8 RGB. It is not copied.
    mpp : tuple of float or None, optional
        Micrometres per pixel in x and y.
    icc : bytes or None, optional
        The ICC colour profile.
    """

    def __init__(self, pixels: Pixels, mpp: tuple[float, float] | None = None, icc: bytes | None = None) -> None:
        height, width = pixels.shape[:2]
        self.pixels = pixels
        self.info = SlideInfo(
            path=Path("array"),
            format="array",
            reader="memory",
            width=width,
            height=height,
            levels=((width, height),),
            mpp=mpp,
            mpp_note="" if mpp else "not given",
            objective=None,
            icc=icc,
        )

    def read(self, region: Region) -> RegionPixels:
        """See `Slide.read`."""
        inside = 0 <= region.x < region.right <= self.info.width and 0 <= region.y < region.bottom <= self.info.height
        if not inside:
            raise ValueError(
                f"{region} is empty or not inside a slide of {self.info.width} × {self.info.height} pixels"
            )
        part = self.pixels[region.y : region.bottom, region.x : region.right]
        return RegionPixels(part.copy(), damaged=False)

    def thumbnail(self, limit: int) -> Thumbnail:
        """See `Slide.thumbnail`."""
        size = thumbnail_size(self.info.width, self.info.height, limit)
        shrinker = Shrinker(self.info.width, self.info.height, size)
        shrinker.add(self.pixels)
        return Thumbnail(shrinker.result(), np.zeros((size[1], size[0]), np.bool_))

    def close(self) -> None:
        """See `Slide.close`. The image stays the caller's."""
