"""The interface of all slide readers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.slides.thumbnail import Thumbnail


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """The metadata of a slide.

    Attributes
    ----------
    path : pathlib.Path
        The file that was opened.
    format : str
        Name of the format: OpenSlide's (``aperio``, ``generic-tiff``, ``dicom``, …), ``ome-tiff`` or ``tiff``.
    reader : str
        The reader that was chosen, in words for the log.
    width, height : int
        Size in level-0 pixels.
    levels : tuple of tuple of int
        (width, height) of every stored level, level 0 first.
    mpp : tuple of float or None
        Micrometres per level-0 pixel in x and y, or None if the file gives no plausible size.
    mpp_note : str
        Why `mpp` is None ("not given in the file"), or why it is doubtful (x and y differ, or two sources disagree).
        Empty if all is well.
    objective : float or None
        Objective power, such as 20 or 40, or None.
    icc : bytes or None
        The ICC colour profile, or None.
    """

    path: Path
    format: str
    reader: str
    width: int
    height: int
    levels: tuple[tuple[int, int], ...]
    mpp: tuple[float, float] | None
    mpp_note: str
    objective: float | None
    icc: bytes | None


@dataclass(frozen=True, slots=True)
class RegionPixels:
    """The pixels that were read from a region.

    Attributes
    ----------
    pixels : numpy.ndarray
        (height, width, 3) uint8 RGB. Pixels that could not be read are hatched (`shared.slides.hatching`).
    damaged : bool
        Whether some pixels could not be read.
    """

    pixels: Pixels
    damaged: bool


class Slide(Closing):
    """An open slide. All methods but `close` may be called from several threads at the same time.

    Use it as a context manager, or call `close`.
    """

    info: SlideInfo
    cache_bytes: int = 0
    """Most bytes of decoded pixels that the reader keeps in its cache."""

    @abstractmethod
    def read(self, region: Region) -> RegionPixels:
        """Read level-0 pixels.

        Parameters
        ----------
        region : Region
            Lies entirely inside the slide, and is not empty.

        Returns
        -------
        RegionPixels
            The pixels, which the caller may modify. A file that cannot be read gives damage, not an error.

        Raises
        ------
        ValueError
            The region is empty or extends beyond the slide.
        """

    def read_into(self, region: Region, out: Pixels) -> bool:
        """Read level-0 pixels into an array. Some readers save a copy this way.

        Parameters
        ----------
        region : Region
            Lies entirely inside the slide, and is not empty.
        out : numpy.ndarray
            (height, width, 3) uint8, C-contiguous; receives the pixels, hatched where they could not be read.

        Returns
        -------
        bool
            Whether some pixels could not be read.

        Raises
        ------
        ValueError
            The region is empty or extends beyond the slide.
        """
        region_pixels = self.read(region)
        out[...] = region_pixels.pixels
        return region_pixels.damaged

    @abstractmethod
    def thumbnail(self, limit: int) -> Thumbnail:
        """Return the thumbnail of the slide. It is made in stripes, never from a whole level in memory.

        What cannot be read, or is missing, in the level that it is made from is taken from larger levels.

        Parameters
        ----------
        limit : int
            Most pixels of the thumbnail.

        Returns
        -------
        Thumbnail
            Of at most `limit` pixels, with the aspect ratio of the slide as nearly as integers allow, and never larger
            than level 0.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file."""
