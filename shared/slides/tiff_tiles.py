"""Reads TIFF files that OpenSlide cannot: OME-TIFF, strips, grey images, separate samples, 16 bits, single channels.

Samples of 16 bits rarely use all of them: a camera has 10 to 14. They are scaled to 8 bits by the number of bits that
hold data, which tiles all over level 0 tell. A fixed division by 256 would make most of these slides nearly black.

imagecodecs decodes each tile into a buffer of the size that the TIFF directory declares, so that a few bytes cannot
unpack to gigabytes. (The decoder of tifffile, with which the tests compare, has no such limit.)
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import imagecodecs
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.slides.jpeg import GREY, RGB, YCBCR, BadJpeg, JpegDecoder
from nuclei_segmentation.shared.slides.jpeg_tiles import JPEG
from nuclei_segmentation.shared.slides.slide import SlideInfo
from nuclei_segmentation.shared.slides.stored_tiles import StoredTiles
from nuclei_segmentation.shared.slides.tiff_index import Directory

_LARGEST: Final = 128 << 20  # most bytes of a decoded tile or strip
_LARGEST_JPEG: Final = 65_500  # most pixels a side that libjpeg accepts
_STRIP: Final = 4 << 20  # uncompressed strips with more bytes are cut
_NONE, _HORIZONTAL = 1, 2  # predictors
_WHITE_IS_ZERO, _PALETTE, _CMYK = 0, 3, 5
_UNPACK: Final[dict[int, Callable[..., Any]]] = {
    5: imagecodecs.lzw_decode,
    8: imagecodecs.zlib_decode,
    32773: imagecodecs.packbits_decode,
    32946: imagecodecs.zlib_decode,
    50000: imagecodecs.zstd_decode,
}
_JPEG2000: Final = frozenset({33005, 34712})
_CIELAB: Final = 8
_COLOURS: Final = {_WHITE_IS_ZERO: 1, GREY: 1, _PALETTE: 1, _CMYK: 4, RGB: 3, YCBCR: 3, _CIELAB: 3}
_WEBP: Final = 50001
_COMPRESSIONS: Final = {  # what is not read, by its name
    2: "CCITT", 3: "CCITT", 4: "CCITT", 6: "old JPEG", 22610: "JPEG XR", 33003: "JPEG 2000, YCbCr", _WEBP: "WebP",
    34887: "LERC", 34925: "LZMA", 34933: "PNG", 34934: "JPEG XR", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_VIPS: Final = "convert the file, for instance with: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg"
_EXPORT: Final = "export it again, with 8 or 16 bits of grey or RGB and JPEG, JPEG 2000, LZW, deflate or no compression"
_LOOKED_AT: Final = 512  # tiles of a level that tell how many bits hold data; so many hit tissue on any slide
_OUTLIERS: Final = 100_000  # one in so many samples may have more bits: a camera has hot pixels


def why_samples_unsupported(directory: Directory) -> str:
    """Return why no reader takes the samples of a directory, tiled or in strips; an empty string if some may.

    OpenSlide would show many such images nearly black or with wrong colours, without an error.
    """
    if directory.sample_format not in (1, 4) or directory.bits not in (8, 16):
        kind = {0: "mixed ", 2: "signed ", 3: "floating-point "}.get(directory.sample_format, "")
        reason = f"{f'{directory.bits}-bit' if directory.bits else 'unequal'} {kind}samples"
    elif directory.photometric not in _COLOURS or directory.samples < _COLOURS[directory.photometric]:
        reason = f"photometric interpretation {directory.photometric} and {directory.samples} samples"
    else:
        return ""
    return f"TIFF with {reason} is not supported; {_EXPORT}"


def is_simple(directory: Directory) -> bool:
    """Tell whether a directory has 8-bit samples that are all colours, so that OpenSlide cannot misunderstand them."""
    only_colours = directory.samples == _COLOURS.get(directory.photometric)
    return directory.bits == 8 and only_colours and not why_samples_unsupported(directory)


def why_unsupported(directory: Directory) -> str:
    """Return why this reader cannot read a directory, or an empty string if it can."""
    if reason := why_samples_unsupported(directory):
        return reason
    colours, advice = _COLOURS[directory.photometric], _EXPORT
    if directory.photometric == _CMYK:
        reason = "CMYK colours"
    elif directory.photometric == _CIELAB:
        reason = "CIELab colours"
    elif directory.photometric == _PALETTE:
        reason, advice = "palette colours", _VIPS
    elif directory.compression == JPEG:
        layout = "separate" if directory.planar == 2 else "interleaved"
        if directory.bits != 8:
            reason = "JPEG of 16-bit samples"
        elif (directory.planar == 1 and directory.samples != colours) or max(_size(directory)) > _LARGEST_JPEG:
            reason = f"JPEG of {directory.samples} {layout} samples"
    elif directory.compression not in (1, *_UNPACK, *_JPEG2000):
        reason = f"compression {directory.compression}"
        if name := _COMPRESSIONS.get(directory.compression):
            reason += f" ({name})"
        advice = _VIPS if directory.compression == _WEBP and directory.bits == 8 else _EXPORT
    elif directory.photometric == YCBCR:
        reason = "YCbCr colours without JPEG"
    elif directory.predictor not in (_NONE, _HORIZONTAL):
        reason = f"predictor {directory.predictor}"
    if not reason and math.prod(_size(directory)) * _interleaved(directory) * directory.bits // 8 > _LARGEST:
        kind = "tiles" if directory.tiled else "strips"
        reason = f"{kind} as large as {directory.tile_width} × {directory.tile_height} pixels"
        advice = _VIPS if directory.bits == 8 and directory.compression not in _JPEG2000 else _EXPORT
    return f"TIFF with {reason} is not supported; {advice}" if reason else ""


def cut_strips(directory: Directory) -> Directory:
    """Describe an uncompressed image in large strips as the same bytes in smaller strips; return others unchanged.

    The rows of an uncompressed strip can be read one by one; a compressed strip must be decoded from its start.
    """
    row = directory.width * _interleaved(directory) * directory.bits // 8
    rows = directory.tile_height
    if directory.tiled or directory.compression != 1 or rows * row <= _STRIP:
        return directory
    fitting = max(1, _STRIP // row)
    if directory.rows > 1:  # each strip must be a whole number of smaller ones
        fitting = next(size for size in range(fitting, 0, -1) if rows % size == 0)
    starts = np.arange(0, directory.height, fitting, dtype=np.int64)
    strip, first = np.divmod(starts, rows)
    planes = directory.offsets.reshape(-1, directory.rows), directory.counts.reshape(-1, directory.rows)
    offsets = planes[0][:, strip] + first * row
    counts = np.where(planes[1][:, strip] == 0, 0, np.minimum(fitting, directory.height - starts) * row)
    return replace(directory, tile_height=fitting, offsets=offsets.ravel(), counts=counts.ravel())


_Samples = npt.NDArray[Any]  # uint8 or uint16


class _Blank:
    """A tile that the writer left out, since nothing is there."""


class TiffTiles(StoredTiles):
    """A slide whose tiles or strips have grey or RGB samples of 8 or 16 bits, in any common compression.

    Parameters
    ----------
    info : SlideInfo
        Metadata of the slide. Its `levels` are replaced.
    levels : tuple of Directory
        The directories of level 0 and of the reduced levels, largest first. Unsupported reduced levels are left out.
    cache : int or None, optional
        Most bytes of decoded tiles to keep; see `cache_capacity`.
    dark : bool, optional
        Whether tiles that the writer left out are black, as in a fluorescence channel, and not white.

    Raises
    ------
    UnreadableSlide
        Level 0 is not supported. The message says why, and how to convert the file.
    """

    def __init__(
        self, info: SlideInfo, levels: tuple[Directory, ...], cache: int | None = None, *, dark: bool = False
    ) -> None:
        reason = why_unsupported(levels[0])
        if reason:
            raise UnreadableSlide(reason)
        levels = tuple(
            cut_strips(level) for level in levels if level.bits == levels[0].bits and not why_unsupported(level)
        )
        super().__init__(info, levels, cache, background=0 if dark else 255)
        self.bits = self._bits_with_data() if levels[0].bits == 16 else 8

    def _bits_with_data(self) -> int:
        """Return how many bits the samples of level 0 use, 8 to 16, as tiles all over it tell."""
        found = np.zeros(1 << 16, np.int64)
        for level in {id(level): level for level in (self._levels[0], self._levels[-1])}.values():
            numbers = np.linspace(0, level.rows * level.columns - 1, _LOOKED_AT).astype(int)
            for number in sorted(set(numbers.tolist())):
                samples = self._samples_of(level, number)
                if isinstance(samples, np.ndarray):
                    found += np.bincount(_colours(samples, level).ravel(), minlength=1 << 16)
        above = found[::-1].cumsum()[::-1]  # how many samples have each value or a larger one
        largest = np.flatnonzero(above > found.sum() // _OUTLIERS)
        return max(8, int(largest[-1]).bit_length()) if len(largest) else 16

    def _tile(self, number: int) -> Pixels | None:
        return self._decode(self._levels[0], number)

    def _reduced_tile(self, level: int, number: int, factor: int) -> Pixels | None:
        return self._decode(self._levels[level], number)

    def _decode(self, level: Directory, number: int) -> Pixels | None:
        samples = self._samples_of(level, number)
        if samples is None:
            return None
        if isinstance(samples, _Blank):
            return np.broadcast_to(self._background, (level.tile_height, level.tile_width, 3))
        if level.bits == 16:
            shifts = np.full(samples.shape[2], self.bits - 8)
            if level.alpha in (1, 2):
                shifts[_COLOURS[level.photometric] :] = 8  # alpha uses all of its bits
            samples = np.minimum(samples >> shifts.astype(np.uint16), 255)
        return _rgb(samples.astype(np.uint8, copy=False), level)

    def _samples_of(self, level: Directory, number: int) -> _Samples | _Blank | None:
        """Return the samples of a tile or strip; None if they cannot be read."""
        count = 1
        if level.planar == 2:
            count = min(level.samples, _COLOURS[level.photometric] + (level.alpha in (1, 2)))
        segments = [self._segment(level, number + plane * level.rows * level.columns) for plane in range(count)]
        if segments == [b""] * count:
            return _Blank()
        if not all(segments):
            return None  # one that cannot be read, or one of several that was left out
        rows = level.tile_height
        if not level.tiled:
            rows = min(rows, level.height - number * rows)  # the last strip ends with the image
        try:
            if level.planar == 1:
                return _samples(level, segments[0] or b"", rows, level.samples)
            return np.concatenate([_samples(level, segment or b"", rows, 1) for segment in segments], axis=2)
        except (BadJpeg, ValueError, RuntimeError, struct.error):  # RuntimeError: the base of imagecodecs' errors
            return None


def _samples(level: Directory, segment: bytes, rows: int, samples: int) -> _Samples:
    """Decode a tile or strip to (rows, tile_width, samples) uint8 or uint16: as stored, or as RGB if it is JPEG."""
    width = level.tile_width
    if level.compression == JPEG:
        photometric = GREY if samples == 1 else level.photometric
        return JpegDecoder(level.tables, photometric, width, rows).decode(segment)[..., :samples]
    dtype = np.dtype(np.uint8 if level.bits == 8 else np.uint16)
    if level.compression in _JPEG2000:
        _check_jpeg2000(segment, width, rows, samples)
        decoded = np.asarray(imagecodecs.jpeg2k_decode(segment))
        if decoded.dtype != dtype:
            raise ValueError(f"not {level.bits} bits per sample")
        return decoded.reshape(rows, width, samples)
    unpack = _UNPACK.get(level.compression)
    data = segment if unpack is None else unpack(segment, out=width * level.tile_height * samples * dtype.itemsize)
    stored = np.frombuffer(data, dtype.newbyteorder(level.byte_order), rows * width * samples)
    pixels = stored.reshape(rows, width, samples)
    if level.predictor == _HORIZONTAL:
        return np.cumsum(pixels, axis=1, dtype=dtype)
    return pixels if pixels.dtype == dtype else pixels.astype(dtype)


def _check_jpeg2000(segment: bytes, width: int, height: int, samples: int) -> None:
    """Raise ValueError unless a JPEG 2000 image has the right size, before the decoder reserves memory for it."""
    at = segment.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0:
        raise ValueError("not a JPEG 2000 image")
    right, bottom, left, top = struct.unpack_from(">4I", segment, at + 8)
    (components,) = struct.unpack_from(">H", segment, at + 40)
    if (right - left, bottom - top, components) != (width, height, samples):
        raise ValueError("the JPEG 2000 image is not the size of its tile")


def _interleaved(directory: Directory) -> int:
    """Return how many samples of a pixel lie in one stored tile."""
    return directory.samples if directory.planar == 1 else 1


def _colours(samples: _Samples, level: Directory) -> _Samples:
    """Return the samples of a tile that are colours, or the one that is grey."""
    return samples[..., list(level.picked) if level.picked else slice(_COLOURS[level.photometric])]


def _size(level: Directory) -> tuple[int, int]:
    level = cut_strips(level)
    return level.tile_width, level.tile_height


def _rgb(samples: Pixels, level: Directory) -> Pixels:
    """Return (h, w, n) samples as (h, w, 3) RGB, blended with white where they are transparent."""
    colours, pixels = _COLOURS[level.photometric], _colours(samples, level)
    if level.photometric == _WHITE_IS_ZERO:
        pixels = ~pixels
    if level.alpha in (1, 2) and samples.shape[2] > colours:
        alpha = samples[..., colours : colours + 1].astype(np.uint32)
        # If the colours are already multiplied with alpha (1), only the share of white is missing.
        scaled = pixels * (alpha if level.alpha == 2 else np.uint32(255))
        pixels = np.minimum((scaled + 255 * (255 - alpha) + 127) // 255, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*samples.shape[:2], 3)))
