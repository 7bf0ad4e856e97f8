"""What every slide reader offers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.runtime.closing import Closing


@dataclass(frozen=True, slots=True)
class SlideInfo:
    """What is known of a slide.

    Attributes
    ----------
    path : pathlib.Path
        The file that was opened.
    format : str
        The field's name of the format: ``aperio``, ``generic-tiff``, ``dicom``, ``ome-tiff``, …
    reader : str
        Which reader was chosen, in a few words, for the log.
    width, height : int
        Size in level-0 pixels.
    levels : tuple of tuple of int
        (width, height) of every stored level, level 0 first.
    mpp : tuple of float or None
        Micrometres per level-0 pixel in x and y, or None where the file has none that can be believed.
    mpp_note : str
        Why `mpp` is None ("absent", "1000 µm is absurd"), or what is odd about it (x and y differ, two
        sources contradict); empty if nothing is.
    objective : float or None
        Objective power (20, 40), or None.
    icc : bytes or None
        The ICC profile's bytes, or None.
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
    """Pixels read from a slide.

    Attributes
    ----------
    pixels : numpy.ndarray
        (height, width, 3) uint8 RGB. What could not be read is hatched (`shared.slides.hatching`).
    damaged : bool
        Whether any of it could not be read.
    """

    pixels: Pixels
    damaged: bool


class Slide(Closing):
    """An open slide. All methods may be called from any thread at any time.

    Use it as a context manager, or call `close`.
    """

    info: SlideInfo
    cache_bytes: int = 0
    """Bytes of decoded pixels that the reader keeps at most."""

    @abstractmethod
    def read(self, region: Region) -> RegionPixels:
        """Read level-0 pixels.

        Parameters
        ----------
        region : Region
            In level-0 pixels; lies wholly inside the slide, and is not empty.

        Returns
        -------
        RegionPixels
            The pixels, which are the caller's own. What is wrong with the file is damage, never an error.

        Raises
        ------
        ValueError
            The region is empty or reaches outside.
        """

    def read_into(self, region: Region, out: Pixels) -> bool:
        """Read level-0 pixels to where they are wanted; readers that can do so spare a copy.

        Parameters
        ----------
        region : Region
            In level-0 pixels; lies wholly inside the slide.
        out : numpy.ndarray
            (height, width, 3) uint8, C-contiguous; takes the pixels, hatched where they could not be read.

        Returns
        -------
        bool
            Whether any of it could not be read.
        """
        read = self.read(region)
        out[...] = read.pixels
        return read.damaged

    @abstractmethod
    def thumbnail(self, limit: int) -> Pixels:
        """Return the whole slide as one small image.

        Parameters
        ----------
        limit : int
            Most pixels that the image may have.

        Returns
        -------
        numpy.ndarray
            (h, w, 3) uint8 RGB with h × w ≤ `limit`, of the slide's aspect ratio as nearly as whole pixels allow, and
            never larger than level 0. What cannot be read is white, not hatched: a hatch would pass for tissue. Never
            needs memory for a whole level.
        """

    @abstractmethod
    def close(self) -> None:
        """Close the file."""
