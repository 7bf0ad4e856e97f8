"""Chooses the reader for a slide."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.runtime.files import open_regular
from nuclei_segmentation.shared.slides.jpeg import BadJpeg
from nuclei_segmentation.shared.slides.jpeg_tiles import JpegTiles, decoder_of, is_plain_jpeg
from nuclei_segmentation.shared.slides.metadata import claims_of, is_ome, judge_mpp, objective_of
from nuclei_segmentation.shared.slides.openslide_reader import Handle, OpenSlideSlide, detect_vendor
from nuclei_segmentation.shared.slides.slide import Slide, SlideInfo
from nuclei_segmentation.shared.slides.tiff_index import Directory, TiffIndex, is_tiff, read_index
from nuclei_segmentation.shared.slides.tiff_tiles import TiffTiles, why_not

log = logging.getLogger(__name__)

READERS: Final = ("jpeg", "openslide", "tiff")
_PLAIN: Final = frozenset({"aperio", "generic-tiff"})  # formats whose level 0 is the first directory, tile by tile
_PLACES: Final = 3  # that are tried before a reader is believed to read
_REDUCED: Final = 1  # bit of NewSubfileType


def open_slide(path: str | os.PathLike[str], *, reader: str | None = None) -> Slide:
    """Open a slide with the fastest reader that gives its pixels as OpenSlide would.

    Parameters
    ----------
    path : str or os.PathLike
        The slide's file, as `find_slide` returns it.
    reader : str or None, optional
        One of `READERS`, to take that one or fail; for tests and measurements.

    Raises
    ------
    UnreadableSlide
        No reader can open it; the message says why.
    """
    path = Path(path)
    head = _head(path)
    try:
        return _Opener(path, head).open(reader)
    except UnreadableSlide as error:
        raise UnreadableSlide(f"{path.name} cannot be read: {error}") from None
    except OSError as error:
        raise UnreadableSlide(f"{path.name} cannot be read: {error.strerror or error}") from error


def _head(path: Path) -> bytes:
    """Return the first bytes of a regular file that is not empty."""
    try:
        descriptor = open_regular(path)
    except OSError as error:
        raise UnreadableSlide(f"{path.name} cannot be opened: {error.strerror}") from None
    if descriptor is None:
        raise UnreadableSlide(f"{path.name} is {'a folder' if path.is_dir() else 'no regular file'}, not a slide")
    try:
        head = os.pread(descriptor, 8, 0)
    except OSError as error:
        raise UnreadableSlide(f"{path.name} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if not head:
        raise UnreadableSlide(f"{path.name} is empty (0 bytes)")
    return head


class _Opener:
    """What is found out about a file while a reader is chosen."""

    def __init__(self, path: Path, head: bytes) -> None:
        self._path = path
        self._index: TiffIndex | None = None
        # Hamamatsu's files are no TIFF files by the letter (their offsets are wider than they say): OpenSlide's alone.
        if is_tiff(head) and path.suffix.lower() != ".ndpi":
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._index = read_index(descriptor)
            finally:
                os.close(descriptor)
        self._vendor = detect_vendor(path)
        self._handle: Handle | None = None
        self._refusal = ""
        try:
            self._handle = Handle(path)
        except UnreadableSlide as error:
            self._refusal = str(error)

    def open(self, reader: str | None) -> Slide:
        slide = None
        base = self._base()
        if base is not None and base.orientation != 1:
            log.warning(
                "%s: its orientation tag (%d) is ignored; pixels are taken as stored", self._path.name, base.orientation
            )
        if base is not None and (larger := self._larger(base)):
            log.warning(
                "%s holds several images; the first is taken, %d x %d pixels, though another has %d x %d",
                self._path.name,
                base.width,
                base.height,
                larger.width,
                larger.height,
            )
        try:
            if reader in (None, "jpeg"):
                slide = self._jpeg(forced=reader is not None)
            if slide is None and reader in (None, "openslide"):
                slide = self._openslide(forced=reader is not None)
            if slide is None and reader in (None, "tiff"):
                slide = self._tiff()
        finally:
            if self._handle is not None and not isinstance(slide, OpenSlideSlide):
                self._handle.close()
        if slide is None:
            raise UnreadableSlide(self._refusal)
        return slide

    def _info(self, reader: str, base: Directory | None) -> SlideInfo:
        properties = {} if self._handle is None else self._handle.properties
        levels = () if self._handle is None else self._handle.levels
        mpp, note = judge_mpp(claims_of(properties, base))
        if self._vendor is None and base is not None:
            kind = "ome-tiff" if is_ome(base) else "tiff"
        else:
            kind = self._vendor or "unknown"
        width, height = levels[0] if levels else (0, 0)
        if base is not None and not levels:
            width, height = base.width, base.height
        icc = base.icc if base is not None and base.icc else None
        if icc is None and self._handle is not None:
            icc = self._handle.icc()
        return SlideInfo(
            path=self._path,
            format=kind,
            reader=reader,
            width=width,
            height=height,
            levels=levels or ((width, height),),
            mpp=mpp,
            mpp_note=note,
            objective=objective_of(properties, base),
            icc=icc,
        )

    def _base(self) -> Directory | None:
        return None if self._index is None else self._index.directories[0]

    def _larger(self, base: Directory) -> Directory | None:
        """Return the largest image of a plain TIFF file if that is not the first, which is level 0."""
        if self._index is None or self._vendor not in (None, *_PLAIN):
            return None
        largest = max(self._index.directories, key=lambda directory: directory.width * directory.height)
        return largest if largest.width * largest.height > base.width * base.height else None

    def _jpeg(self, forced: bool) -> Slide | None:
        base = self._base()
        if base is None or not is_plain_jpeg(base):
            self._refusal = self._refusal or "not a tiled JPEG TIFF"
            return None
        if self._vendor not in (None, *_PLAIN):
            return None
        if self._handle is not None and self._handle.levels[0] != (base.width, base.height):
            return None
        assert self._index is not None
        levels = (base, *_reduced(self._index, _decodes))
        try:
            slide = JpegTiles(self._info("stored JPEG tiles, decoded directly", base), levels)
        except BadJpeg as error:
            self._refusal = self._refusal or f"its JPEG tables are broken: {error}"
            return None
        if forced or self._handle is None or slide.looks_sound():
            return slide
        slide.close()
        return None

    def _openslide(self, forced: bool) -> Slide | None:
        if self._handle is None:
            return None
        # The first directory is that of level 0 in these formats only; elsewhere OpenSlide alone knows.
        base = self._base() if self._vendor in _PLAIN else None
        slide = OpenSlideSlide(self._info("OpenSlide", base), self._handle)
        turned = base is not None and base.orientation != 1 and not why_not(base)
        if forced or base is None or (not turned and _reads(slide)):
            return slide
        # It opens files whose tiles it cannot decode, such as raw tiles that were padded; and where the orientation tag
        # is set, it turns each tile by itself.
        self._refusal = why_not(base)
        slide.close()
        self._handle = None
        return None

    def _tiff(self) -> Slide | None:
        base = self._base()
        if base is None or self._vendor not in (None, *_PLAIN):
            return None  # in a vendor's own arrangement of tiles, the first directory is not the slide
        assert self._index is not None
        levels = (base, *_reduced(self._index, lambda level: not why_not(level)))
        try:
            return TiffTiles(self._info("stored TIFF tiles, decoded directly", base), levels)
        except UnreadableSlide as error:
            self._refusal = str(error)
            return None


def _decodes(directory: Directory) -> bool:
    """Tell whether the fast reader can decode a directory's tiles."""
    try:
        return is_plain_jpeg(directory) and decoder_of(directory) is not None
    except BadJpeg:
        return False


def _reads(slide: Slide) -> bool:
    """Tell whether any of a few places can be read."""
    width, height = min(slide.info.width, 256), min(slide.info.height, 256)
    steps = range(_PLACES)
    places = [(slide.info.width - width) * step // (_PLACES - 1) for step in steps]
    rows = [(slide.info.height - height) * step // (_PLACES - 1) for step in steps]
    return any(not slide.read(Region(x, y, width, height)).damaged for x, y in zip(places, rows, strict=True))


def _reduced(index: TiffIndex, readable: Callable[[Directory], bool]) -> list[Directory]:
    """Return the smaller levels of the first directory's image that are readable, largest first."""
    base = index.directories[0]
    candidates = [
        d for d in index.directories[1:] if d.subfile_type & _REDUCED or base.description.startswith("Aperio")
    ]
    found = []
    for directory in (*candidates, *base.subdirectories):
        scale = base.width / directory.width
        same_shape = abs(base.height / scale - directory.height) <= 1 + directory.height / 100
        if scale > 1 and same_shape and directory.tiled and readable(directory):
            found.append(directory)
    return sorted(found, key=lambda d: -d.width)
