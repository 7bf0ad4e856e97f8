"""Reads slides through OpenSlide."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import openslide
from PIL.Image import Image

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.slides.hatching import hatch
from nuclei_segmentation.shared.slides.slide import RegionPixels, Slide, SlideInfo
from nuclei_segmentation.shared.slides.thumbnail import Shrinker, pick_level, thumbnail_size

_STRIPE: Final = 4 << 20  # pixels that a thumbnail reads at a time
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
            raise UnreadableSlide("OpenSlide does not know its format") from None
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

    def thumbnail(self, limit: int) -> Pixels:
        """See `Slide.thumbnail`."""
        size = thumbnail_size(self.info.width, self.info.height, limit)
        level = pick_level(self.info.levels, size)
        width, height = self.info.levels[level]
        downsample = self._handle.downsamples[level]
        shrinker = Shrinker(width, height, size)
        step = max(1, min(height, _STRIPE // width))
        for row in range(0, height, step):
            rows = min(step, height - row)
            pixels = self._pixels(0, round(row * downsample), level, width, rows)
            shrinker.add(np.full((rows, width, 3), 255, np.uint8) if pixels is None else pixels)
        return shrinker.result()

    def _pixels(self, x: int, y: int, level: int, width: int, height: int) -> Pixels | None:
        image = self._handle.read(x, y, level, width, height)
        if image is None:
            return None
        if image.getchannel("A").getextrema()[0] == 255:  # the usual case
            return np.frombuffer(bytearray(image.tobytes("raw", "RGB")), np.uint8).reshape(height, width, 3)
        rgba = np.asarray(image)
        weight = rgba[..., 3:].astype(np.uint16)
        blended = rgba[..., :3] * weight + self._background * (255 - weight)
        return ((blended + 127) // 255).astype(np.uint8)


def _background(text: str | None) -> np.ndarray[tuple[int], np.dtype[np.uint16]]:
    """Return the colour that a text gives in hexadecimal, or white if it gives none."""
    try:
        colour = _WHITE if text is None else tuple(bytes.fromhex(text))
    except ValueError:
        colour = _WHITE
    return np.array(colour if len(colour) == 3 else _WHITE, np.uint16)
