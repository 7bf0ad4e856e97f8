"""Chooses the reader for a slide."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final, NamedTuple

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.runtime.files import open_regular, read_at
from nuclei_segmentation.shared.runtime.resources import MIB, human
from nuclei_segmentation.shared.slides.companions import files_of
from nuclei_segmentation.shared.slides.find import WHAT_IS_READ
from nuclei_segmentation.shared.slides.jpeg import BadJpeg
from nuclei_segmentation.shared.slides.jpeg_tiles import JpegTiles, is_plain_jpeg, tile_decoder
from nuclei_segmentation.shared.slides.metadata import (
    PixelSize,
    choose_mpp,
    objective_power,
    pixel_sizes,
    rgb_profile,
)
from nuclei_segmentation.shared.slides.ome import is_ome
from nuclei_segmentation.shared.slides.openslide_reader import Handle, OpenSlideSlide, detect_vendor
from nuclei_segmentation.shared.slides.planes import Choice, choose, refuse_choice
from nuclei_segmentation.shared.slides.slide import Slide, SlideInfo
from nuclei_segmentation.shared.slides.stored_tiles import StoredTiles
from nuclei_segmentation.shared.slides.tiff_index import (
    LARGEST_TILE,
    MOST_DECODED_PER_STORED,
    BadDirectory,
    Directory,
    TiffIndex,
    is_tiff,
    read_index,
)
from nuclei_segmentation.shared.slides.tiff_tiles import TiffTiles, is_simple, why_samples_unsupported, why_unsupported

log = logging.getLogger(__name__)

READERS: Final = ("jpeg", "openslide", "tiff")
_PLAIN: Final = frozenset({"aperio", "generic-tiff"})  # formats whose level 0 is the first directory, tile by tile
_SAMPLES: Final = 3  # regions that are read to see whether OpenSlide can read a slide
_CAMERA: Final = (
    ".3fr .arw .cr2 .crw .dcr .dng .erf .iiq .kdc .mef .mos .nef .nrw .orf .pef .raf .rw2 .rwl .sr2 .srf .srw"
)
_OTHERS: Final = dict.fromkeys(_CAMERA.split(), "a raw camera file") | {
    ".lsm": "a Zeiss LSM file",
    ".stk": "a MetaMorph STK file",
}  # formats with the head of a TIFF file; most are known by their content, too
MOST_PROFILE: Final = 8 * MIB
"""Most bytes of a colour profile; those of scanners have less than one MiB."""


class View(NamedTuple):
    """What of a slide is wanted, where it holds more than one image, and what it does not say of itself."""

    channel: str | int | None
    plane: str | int | None
    mpp: tuple[float, float] | None


def open_slide(
    path: str | os.PathLike[str],
    *,
    channel: str | int | None = None,
    plane: str | int | None = None,
    mpp: tuple[float, float] | None = None,
    reader: str | None = None,
) -> Slide:
    """Open a slide with the fastest reader that gives the same pixels as OpenSlide.

    Parameters
    ----------
    path : str or os.PathLike
        The slide's file, as `find_slide` returns it.
    channel, plane : str, int or None, optional
        Name or number, from 1, of the channel and of the plane to use, for a slide that has several.
    mpp : tuple of float or None, optional
        Micrometres per pixel in x and y, instead of what the file says.
    reader : str or None, optional
        One of `READERS`, to use that one or fail; for tests and benchmarks.

    Returns
    -------
    Slide
        The open slide.

    Raises
    ------
    UnreadableSlide
        No reader can open it, or it has several channels and none is named; the message says why.
    ConfigError
        There is no such channel or plane.
    """
    path = Path(path)
    head = _head(path)
    try:
        _refuse_by_name(path)
        return _Opener(path, head, View(channel, plane, mpp)).open(reader)
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
        head = read_at(descriptor, 8, 0)
    except OSError as error:
        raise UnreadableSlide(f"{path.name} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    if not head:
        raise UnreadableSlide(f"{path.name} is empty (0 bytes)")
    return head


def _unsupported(kind: str) -> UnreadableSlide:
    return UnreadableSlide(f"it is {kind}, which is not supported; what is read: {WHAT_IS_READ}")


def _refuse_by_name(path: Path) -> None:
    """Refuse a file whose first image is a preview, or no slide at all, although it is a sound TIFF file."""
    suffix = path.suffix.lower()
    if suffix == ".vsi" or any((path.parent / f"_{path.stem}_").glob("stack*/*.ets")):
        raise _unsupported("an Olympus VSI file, whose pixels lie in .ets files beside it")
    if suffix in _OTHERS:
        raise _unsupported(_OTHERS[suffix])


class _Opener:
    """Chooses the reader for one file."""

    def __init__(self, path: Path, head: bytes, view: View) -> None:
        self._path, self._view = path, view
        self._files = files_of(path)  # before any library sees the slide
        self._index: TiffIndex | None = None  # None if the file is not TIFF
        if is_tiff(head):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                self._index = read_index(descriptor)
            finally:
                os.close(descriptor)
        self._vendor = detect_vendor(path)
        self._handle: Handle | None = None
        self._reason = ""  # why the readers tried so far cannot read the file
        if self._index is not None:
            self._look_at_faults(self._index)
        self._choice = self._choose()
        if not self._reason:
            try:
                self._handle = Handle(path)
            except UnreadableSlide as error:
                self._reason = str(error)
        if self._handle is not None:
            self._check_claims(self._handle)

    def _choose(self) -> Choice | None:
        """Choose channel and plane; None for a slide that only OpenSlide can take apart."""
        base = None if self._index is None else self._index.base
        if self._index is None or not isinstance(base, Directory) or self._vendor not in (None, *_PLAIN):
            refuse_choice(self._view.channel, self._view.plane)
            return None
        choice = choose((base, *self._index.others), self._view.channel, self._view.plane)
        if not choice.alone and self._index.faults:  # without a page, the others would be taken for the wrong channels
            raise UnreadableSlide(f"it has several channels or planes, and {self._index.faults[0]}")
        return choice

    def _look_at_faults(self, index: TiffIndex) -> None:
        """Warn of broken directories that are not needed; raise the fault of one that is."""
        if index.kind:
            raise _unsupported(index.kind)
        plain = self._vendor in (None, *_PLAIN)  # the first directory is level 0
        if index.maker and self._vendor is None and index.faults:
            raise UnreadableSlide(f"it is a slide of {index.maker}, and {index.faults[0]}")
        if isinstance(index.base, BadDirectory) and (plain or index.oversized):
            raise UnreadableSlide(str(index.base))
        if index.oversized:
            if not plain:
                raise UnreadableSlide(str(index.oversized))
            self._reason = str(index.oversized)  # this file is not for OpenSlide
        for fault in dict.fromkeys(map(str, index.faults)):
            log.warning("%s: an image that is not needed is broken and is left out: %s", self._path.name, fault)

    def _check_claims(self, handle: Handle) -> None:
        """Refuse an image that the bytes of its files cannot hold, and tiles that would fill the memory."""
        (width, height), stored = handle.levels[0], sum(file.stat().st_size for file in self._files)
        side = max((max(tile) for tile in handle.tiles), default=0)
        reason = ""
        if width * height * 3 > MOST_DECODED_PER_STORED * stored:
            reason = f"it claims {width} × {height} pixels, which its {stored} bytes cannot hold"
        elif any(across * down > LARGEST_TILE for across, down in handle.tiles):
            reason = f"it has tiles of up to {side} pixels a side; tiles of at most {LARGEST_TILE} pixels are supported"
        if reason:
            handle.close()
            raise UnreadableSlide(reason)

    def open(self, reader: str | None) -> Slide:
        slide = None
        base = self._base()
        if base is not None and base.orientation != 1:
            log.warning(
                "%s: the orientation tag (%d) is ignored; the image is used as stored",
                self._path.name,
                base.orientation,
            )
        if base is not None and (larger := self._larger(base)):
            log.warning(
                "%s holds several images; the first (%d x %d pixels) is used, although another is larger (%d x %d)",
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
                slide = self._tiff(forced=reader is not None)
        finally:
            if self._handle is not None and not isinstance(slide, OpenSlideSlide):
                self._handle.close()
        if slide is None:
            raise UnreadableSlide(self._reason)
        self._log_choice(slide)
        return slide

    def _log_choice(self, slide: Slide) -> None:
        for note in self._choice.notes if self._choice else ():
            log.info("%s: %s", self._path.name, note)
        for warning in self._choice.warnings if self._choice else ():
            log.warning("%s: %s", self._path.name, warning)
        if isinstance(slide, TiffTiles) and 8 < slide.bits < 16:
            log.warning(
                "%s: 16-bit samples, of which %d bits hold data; these are scaled to 8 bits",
                self._path.name,
                slide.bits,
            )

    def _info(self, reader: str, base: Directory | None) -> SlideInfo:
        properties = {} if self._handle is None else self._handle.properties
        levels = () if self._handle is None else self._handle.levels
        sizes = pixel_sizes(properties, self._first())
        if self._view.mpp is not None:
            sizes.insert(0, PixelSize("`mpp` in config.yaml", *self._view.mpp))
        mpp, note = choose_mpp(sizes)
        if self._vendor is None and base is not None:
            # OpenSlide may refuse an Aperio slide for a fault in a directory that is not needed.
            first = self._first() or base
            kind = "ome-tiff" if is_ome(first) else "aperio" if first.description.startswith("Aperio") else "tiff"
        else:
            kind = self._vendor or "unknown"
        width, height = levels[0] if levels else (0, 0)
        if base is not None and not levels:
            width, height = base.width, base.height
        icc = base.icc if base is not None and base.icc else None
        if icc is None and self._handle is not None:
            icc = self._handle.icc()
        icc = rgb_profile(icc)
        if icc is not None and len(icc) > MOST_PROFILE:  # every page of the image holds it
            raise UnreadableSlide(
                f"its colour profile has {human(len(icc))}, at most {human(MOST_PROFILE)} are allowed"
            )
        return SlideInfo(
            path=self._path,
            format=kind,
            reader=reader,
            width=width,
            height=height,
            levels=levels or ((width, height),),
            mpp=mpp,
            mpp_note=note,
            objective=objective_power(properties, self._first()),
            icc=icc,
        )

    def _first(self) -> Directory | None:
        """Return the first directory of a TIFF file, whose description is that of the file."""
        base = None if self._index is None else self._index.base
        return base if isinstance(base, Directory) else None

    def _base(self) -> Directory | None:
        return self._first() if self._choice is None else self._choice.levels[0]

    def _larger(self, base: Directory) -> Directory | None:
        """Return the largest image of a plain TIFF file if that is not level 0, which is the first."""
        if self._choice is None or self._index is None:
            return None
        largest = max((base, *self._index.others), key=lambda directory: directory.width * directory.height)
        return largest if largest.width * largest.height > base.width * base.height else None

    def _jpeg(self, forced: bool) -> Slide | None:
        base = self._base()
        if base is None or not is_plain_jpeg(base):
            self._reason = self._reason or "it is not a TIFF file with JPEG tiles"
            return None
        if self._choice is None:
            return None
        if self._handle is not None and self._handle.levels[0] != (base.width, base.height):
            return None
        levels = (base, *filter(_is_decodable, self._choice.levels[1:]))
        try:
            slide = JpegTiles(self._info("stored JPEG tiles, decoded directly", base), levels)
        except BadJpeg as error:
            self._reason = self._reason or f"its JPEG tables are broken: {error}"
            return None
        return slide if forced or slide.contradicts_its_tag() else self._if_decodable(slide)

    def _openslide(self, forced: bool) -> Slide | None:
        if self._handle is None:
            return None
        # Only in these formats is the first directory that of level 0.
        base = self._base() if self._vendor in _PLAIN else None
        if (
            base is not None
            and self._choice is not None
            and not forced
            and not (self._choice.alone and is_simple(base))
        ):
            self._reason = why_samples_unsupported(base)
            return None  # OpenSlide would mix the levels of several pages, and darken samples of 16 bits
        slide = OpenSlideSlide(self._info("OpenSlide", base), self._handle)
        turned = base is not None and base.orientation != 1 and not why_unsupported(base)
        if forced or base is None or (not turned and _can_read(slide)):
            return slide
        # OpenSlide opens some files whose tiles it cannot decode, such as padded uncompressed tiles. If the orientation
        # tag is set, it turns each tile on its own.
        self._reason = why_unsupported(base)
        slide.close()
        self._handle = None
        return None

    def _tiff(self, forced: bool) -> Slide | None:
        if self._choice is None:
            return None  # the first directory of another vendor's format is not level 0
        levels = self._choice.levels
        try:
            info = self._info("stored TIFF tiles, decoded directly", levels[0])
            slide = TiffTiles(info, levels, dark=self._choice.dark)
        except UnreadableSlide as error:
            self._reason = str(error)
            return None
        return slide if forced else self._if_decodable(slide)

    def _if_decodable(self, slide: StoredTiles) -> StoredTiles | None:
        """Return the slide if any of its tiles can be decoded; else close it."""
        if slide.can_decode():
            return slide
        slide.close()
        self._reason = "none of its tiles or strips can be decoded; copy the slide again"
        return None


def _is_decodable(directory: Directory) -> bool:
    """Tell whether the fast reader can decode the tiles of a directory."""
    try:
        return is_plain_jpeg(directory) and tile_decoder(directory) is not None
    except BadJpeg:
        return False


def _can_read(slide: Slide) -> bool:
    """Tell whether any of a few regions along the diagonal of the slide can be read."""
    width, height = min(slide.info.width, 256), min(slide.info.height, 256)
    for i in range(_SAMPLES):
        x = (slide.info.width - width) * i // (_SAMPLES - 1)
        y = (slide.info.height - height) * i // (_SAMPLES - 1)
        if not slide.read(Region(x, y, width, height)).damaged:
            return True
    return False
