"""Reads slides through OpenSlide."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import openslide
from PIL.Image import Image

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.slides.find import WHAT_IS_READ
from nuclei_segmentation.shared.slides.hatching import hatch
from nuclei_segmentation.shared.slides.slide import RegionPixels, Slide, SlideInfo
from nuclei_segmentation.shared.slides.thumbnail import Thumbnail, cuts, make_thumbnail, shows_more, single_colour

_STRIPE: Final = 4 << 20  # pixels that a thumbnail reads at a time
_MOST_FAILURES: Final = 1000  # reads of one level that may fail before it is read in large parts only
_PROBES: Final = 4  # rows and columns of places that are read to see whether level 0 shows something
_PROBE: Final = 16  # level-0 pixels along each side of such a place
_USUAL_TILE: Final = 256
_SMALLEST_TILE, _LARGEST_TILE = 16, 4096  # sides in pixels of the parts that are read alone
_WHITE: Final = (255, 255, 255)


def detect_vendor(path: Path) -> str | None:
    """Return OpenSlide's name for the format of a file, or None if OpenSlide does not know it."""
    try:
        vendor: str | None = openslide.OpenSlide.detect_format(path)
    except openslide.OpenSlideError:
        return None
    return vendor


class Handle:
    """An OpenSlide handle that is replaced after an error, which makes a handle useless.

    Parameters
    ----------
    path : pathlib.Path
        The slide.

    Raises
    ------
    UnreadableSlide
        OpenSlide cannot open the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._handle = self._open()

    def _open(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(self._path)
        except openslide.OpenSlideUnsupportedFormatError:
            raise UnreadableSlide(f"its format is not known; what is read: {WHAT_IS_READ}") from None
        except (openslide.OpenSlideError, OSError) as error:
            raise UnreadableSlide(f"OpenSlide cannot open it: {error}") from None

    @property
    def properties(self) -> Mapping[str, str]:
        """OpenSlide's properties of the slide."""
        return dict(self._handle.properties)

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of each level."""
        return tuple(self._handle.level_dimensions)

    @property
    def downsamples(self) -> tuple[float, ...]:
        """Downsample of each level."""
        return tuple(self._handle.level_downsamples)

    @property
    def tiles(self) -> tuple[tuple[int, int], ...]:
        """(width, height) of the stored tiles of each level that says it; (256, 256) of others."""
        properties = self.properties
        return tuple(
            (
                _tile_side(properties.get(f"openslide.level[{number}].tile-width")),
                _tile_side(properties.get(f"openslide.level[{number}].tile-height")),
            )
            for number in range(len(self.levels))
        )

    def icc(self) -> bytes | None:
        """Return the ICC colour profile, unchecked, or None."""
        try:
            return openslide.lowlevel.read_icc_profile(self._handle._osr) or None
        except openslide.OpenSlideError:
            self._renew(self._handle)
            return None

    def read(self, x: int, y: int, level: int, width: int, height: int) -> Image | None:
        """Return part of a level as an RGBA image, or None if it cannot be read even through a new handle.

        Parameters
        ----------
        x, y : int
            Left column and top row, in level-0 pixels.
        level : int
            Number of the level.
        width, height : int
            Size in pixels of the level.
        """
        handle = self._handle
        try:
            return handle.read_region((x, y), level, (width, height))
        except openslide.OpenSlideError:
            self._renew(handle)
        # Another thread's read may have broken the shared handle meanwhile. Try again with a handle of our own.
        try:
            with self._open() as own:
                return own.read_region((x, y), level, (width, height))
        except (openslide.OpenSlideError, UnreadableSlide):
            return None

    def close(self) -> None:
        """Close the slide."""
        self._handle.close()

    def _renew(self, broken: openslide.OpenSlide) -> None:
        with self._lock:
            if self._handle is not broken:
                return  # another thread has replaced it
            try:
                # The broken handle is not closed: another thread may be using it. It closes with its last reference.
                self._handle = self._open()
            except UnreadableSlide:
                return  # the file is gone or has become unreadable: from now on every read gives damage


class OpenSlideSlide(Slide):
    """A slide read through OpenSlide.

    Transparent pixels, which the scanner left out, have the background colour that the slide names, else white.

    Parameters
    ----------
    info : SlideInfo
        Metadata of the slide.
    handle : Handle
        The open slide. It is closed with this object.
    """

    def __init__(self, info: SlideInfo, handle: Handle) -> None:
        self.info = info
        self._handle = handle
        self._background = _background(handle.properties.get("openslide.background-color"))

    def close(self) -> None:
        """Close the slide."""
        self._handle.close()

    def read(self, region: Region) -> RegionPixels:
        """See `Slide.read`. If any part of the region cannot be read, all of it is hatched."""
        if region.area <= 0 or not Region(0, 0, self.info.width, self.info.height).contains(region):
            raise ValueError(
                f"{region} is empty or not inside a slide of {self.info.width} × {self.info.height} pixels"
            )
        pixels = self._pixels(region.x, region.y, 0, region.width, region.height)
        if pixels is None:
            pixels = np.empty((region.height, region.width, 3), np.uint8)
            hatch(pixels, region)
            return RegionPixels(pixels, True)
        return RegionPixels(pixels, False)

    def thumbnail(self, limit: int) -> Thumbnail:
        """See `Slide.thumbnail`."""
        return make_thumbnail(self.info.levels, limit, lambda number, size: (_Level(self, self._handle, number), 1))

    def _pixels(self, x: int, y: int, level: int, width: int, height: int) -> Pixels | None:
        image = self._handle.read(x, y, level, width, height)
        return None if image is None else self._blended(image)

    def _blended(self, image: Image) -> Pixels:
        """Return an RGBA image as (h, w, 3) RGB on the background colour."""
        if image.getchannel("A").getextrema()[0] == 255:  # the usual case
            return np.frombuffer(bytearray(image.tobytes("raw", "RGB")), np.uint8).reshape(image.height, image.width, 3)
        rgba = np.asarray(image)
        weight = rgba[..., 3:].astype(np.uint16)
        blended = rgba[..., :3] * weight + self._background * (255 - weight)
        return ((blended + 127) // 255).astype(np.uint8)


class _Level:
    """One level of a slide, for its thumbnail; see `thumbnail.Level`."""

    def __init__(self, slide: OpenSlideSlide, handle: Handle, number: int) -> None:
        self._slide, self._handle, self._number = slide, handle, number
        self.size = slide.info.levels[number]
        self._downsample = handle.downsamples[number]
        width, height = handle.tiles[number]
        self._tile = min(max(width, _SMALLEST_TILE), _LARGEST_TILE), min(max(height, _SMALLEST_TILE), _LARGEST_TILE)
        self._failures = 0

    @property
    def block(self) -> tuple[int, int]:
        # After each failure OpenSlide opens the file anew. If nothing can be read, large parts have to do.
        return self._tile if self._failures < _MOST_FAILURES else self.size

    def rows(self, width: int) -> int:
        return max(1, _STRIPE // width)

    def read(self, x: int, y: int, width: int, height: int) -> Pixels | None:
        image = self._handle.read(*self._at(x, y), self._number, width, height)
        if image is None:
            self._failures += 1
            return None
        pixels = self._slide._blended(image)
        if self._number and any(self._lacks(image, pixels, x, y, *cell) for cell in self._cells(x, y, width, height)):
            return None
        return pixels

    def _at(self, x: int, y: int) -> tuple[int, int]:
        """Return a position as level-0 pixels."""
        return round(x * self._downsample), round(y * self._downsample)

    def _cells(self, x: int, y: int, width: int, height: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield left, top, right and bottom of the parts that lie in different blocks."""
        for top, bottom in cuts(y, y + height, self._tile[1]):
            for left, right in cuts(x, x + width, self._tile[0]):
                yield left - x, top - y, right - x, bottom - y

    def _lacks(
        self, image: Image, pixels: Pixels, x: int, y: int, left: int, top: int, right: int, bottom: int
    ) -> bool:
        """Tell whether a part shows nothing, although level 0 shows something there."""
        colour = single_colour(pixels[top:bottom, left:right])
        if colour is None:
            return False
        transparent = image.getchannel("A").crop((left, top, right, bottom)).getbbox() is None
        (x0, y0), (x1, y1) = self._at(x + left, y + top), self._at(x + right, y + bottom)
        for i in range(_PROBES**2):
            down, across = divmod(i, _PROBES)
            at = x0 + (x1 - x0) * (2 * across + 1) // (2 * _PROBES), y0 + (y1 - y0) * (2 * down + 1) // (2 * _PROBES)
            probe = self._handle.read(*at, 0, _PROBE, _PROBE)
            if probe is None:
                continue  # nothing can be found there
            opaque = probe.getchannel("A").getbbox() is not None
            if (transparent and opaque) or shows_more(self._slide._blended(probe), colour):
                return True
        return False


def _tile_side(text: str | None) -> int:
    """Return the side of a stored tile, in pixels, that a property gives; 256 if it gives none."""
    return int(text) if text is not None and text.isdecimal() else _USUAL_TILE


def _background(text: str | None) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """Return the colour that a text gives in hexadecimal, or white if it gives none."""
    try:
        colour = _WHITE if text is None else tuple(bytes.fromhex(text))
    except ValueError:
        colour = _WHITE
    return np.array(colour if len(colour) == 3 else _WHITE, np.uint16)
