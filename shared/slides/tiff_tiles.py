"""Reads TIFF files that OpenSlide cannot: OME-TIFF, strips, grey images, separate samples.

imagecodecs decodes each tile into a buffer of the size that the TIFF directory declares, so that a few bytes cannot
unpack to gigabytes. (The decoder of tifffile, with which the tests compare, has no such limit.)
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import imagecodecs
import numpy as np

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
_ADVICE: Final = "convert the file, for instance with: vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg"


def why_unsupported(directory: Directory) -> str:
    """Return why this reader cannot read a directory, or an empty string if it can."""
    reason = ""
    if directory.photometric == _CMYK:
        reason = "CMYK colours"
    elif directory.photometric == _PALETTE:
        reason = "palette colours"
    elif directory.bits != 8 or directory.sample_format != 1:
        kind = {2: "signed ", 3: "floating-point "}.get(directory.sample_format, "")
        reason = f"{directory.bits or 'mixed'}-bit {kind}samples"
    elif directory.photometric not in (_WHITE_IS_ZERO, GREY, RGB, YCBCR) or directory.samples < _colours(directory):
        reason = f"photometric interpretation {directory.photometric} and {directory.samples} samples"
    elif directory.compression == JPEG:
        if directory.planar != 1 or directory.samples not in (1, 3) or max(_size(directory)) > _LARGEST_JPEG:
            layout = "separate" if directory.planar == 2 else "interleaved"
            reason = f"JPEG of {directory.samples} {layout} samples"
    elif directory.compression in _JPEG2000:
        if directory.planar != 1:
            reason = "JPEG 2000 and separate samples"
    elif directory.compression != 1 and directory.compression not in _UNPACK:
        reason = f"compression {directory.compression}"
    elif directory.photometric == YCBCR:
        reason = "YCbCr colours without JPEG"
    elif directory.predictor not in (_NONE, _HORIZONTAL):
        reason = f"predictor {directory.predictor}"
    if not reason and _size(directory)[0] * _size(directory)[1] * directory.samples > _LARGEST:
        kind = "tiles" if directory.tiled else "strips"
        reason = f"{kind} as large as {directory.tile_width} × {directory.tile_height} pixels"
    return f"TIFF with {reason} is not supported; {_ADVICE}" if reason else ""


def cut_strips(directory: Directory) -> Directory:
    """Describe an uncompressed image in large strips as the same bytes in smaller strips; return others unchanged.

    The rows of an uncompressed strip can be read one by one; a compressed strip must be decoded from its start.
    """
    row = directory.width * directory.samples
    rows = directory.tile_height
    if directory.tiled or directory.compression != 1 or directory.planar != 1 or rows * row <= _STRIP:
        return directory
    fitting = max(1, _STRIP // row)
    if directory.rows > 1:  # each strip must be a whole number of smaller ones
        fitting = next(size for size in range(fitting, 0, -1) if rows % size == 0)
    starts = np.arange(0, directory.height, fitting, dtype=np.int64)
    strip, first = np.divmod(starts, rows)
    offsets = directory.offsets[strip] + first * row
    counts = np.minimum(fitting, directory.height - starts) * row
    counts[directory.counts[strip] == 0] = 0
    return replace(directory, tile_height=fitting, offsets=offsets, counts=counts)


class TiffTiles(StoredTiles):
    """A slide whose tiles or strips have 8-bit grey or RGB samples, in any common compression.

    Parameters
    ----------
    info : SlideInfo
        Metadata of the slide. Its `levels` are replaced.
    levels : tuple of Directory
        The directories of level 0 and of the reduced levels, largest first. Unsupported reduced levels are left out.
    cache : int or None, optional
        Most bytes of decoded tiles to keep; see `cache_capacity`.

    Raises
    ------
    UnreadableSlide
        Level 0 is not supported. The message says why, and how to convert the file.
    """

    def __init__(self, info: SlideInfo, levels: tuple[Directory, ...], cache: int | None = None) -> None:
        reason = why_unsupported(levels[0])
        if reason:
            raise UnreadableSlide(reason)
        levels = tuple(cut_strips(level) for level in levels if not why_unsupported(level))
        super().__init__(info, levels, cache)

    def _tile(self, number: int) -> Pixels | None:
        return self._decode(self._levels[0], number)

    def _reduced_tile(self, level: int, number: int, factor: int) -> Pixels | None:
        return self._decode(self._levels[level], number)

    def _decode(self, level: Directory, number: int) -> Pixels | None:
        segment = self._segment(level, number)
        if segment is None:
            return None
        if not segment:
            return np.broadcast_to(np.uint8(255), (level.tile_height, level.tile_width, 3))
        rows = level.tile_height
        if not level.tiled:
            rows = min(rows, level.height - number * rows)  # the last strip ends with the image
        try:
            if level.planar == 1:
                return _rgb(_samples(level, segment, rows, level.samples), level)
            planes = []
            for plane in range(min(level.samples, _colours(level) + (level.alpha in (1, 2)))):
                segment = self._segment(level, number + plane * level.rows * level.columns)
                if not segment:
                    return None
                planes.append(_samples(level, segment, rows, 1))
            return _rgb(np.concatenate(planes, axis=2), level)
        except (BadJpeg, ValueError, RuntimeError, struct.error):  # RuntimeError: the base of imagecodecs' errors
            return None


def _samples(level: Directory, segment: bytes, rows: int, samples: int) -> Pixels:
    """Decode a tile or strip to (rows, tile_width, samples) uint8: the samples as stored, or RGB if it is JPEG."""
    width = level.tile_width
    if level.compression == JPEG:
        photometric = GREY if samples == 1 else level.photometric
        return JpegDecoder(level.tables, photometric, width, rows).decode(segment)
    if level.compression in _JPEG2000:
        _check_jpeg2000(segment, width, rows, samples)
        decoded = np.asarray(imagecodecs.jpeg2k_decode(segment))
        if decoded.dtype != np.uint8:
            raise ValueError("not 8 bits per sample")
        return decoded.reshape(rows, width, samples)
    size = width * level.tile_height * samples
    unpack = _UNPACK.get(level.compression)
    data = segment if unpack is None else unpack(segment, out=size)
    pixels = np.frombuffer(data, np.uint8, rows * width * samples).reshape(rows, width, samples)
    if level.predictor == _HORIZONTAL:
        pixels = np.cumsum(pixels, axis=1, dtype=np.uint8)
    return pixels


def _check_jpeg2000(segment: bytes, width: int, height: int, samples: int) -> None:
    """Raise ValueError unless a JPEG 2000 image has the right size, before the decoder reserves memory for it."""
    at = segment.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0:
        raise ValueError("not a JPEG 2000 image")
    right, bottom, left, top = struct.unpack_from(">4I", segment, at + 8)
    (components,) = struct.unpack_from(">H", segment, at + 40)
    if (right - left, bottom - top, components) != (width, height, samples):
        raise ValueError("the JPEG 2000 image is not the size of its tile")


def _colours(level: Directory) -> int:
    return 1 if level.photometric in (_WHITE_IS_ZERO, GREY) else 3


def _size(level: Directory) -> tuple[int, int]:
    level = cut_strips(level)
    return level.tile_width, level.tile_height


def _rgb(samples: Pixels, level: Directory) -> Pixels:
    """Return (h, w, n) samples as (h, w, 3) RGB, blended with white where they are transparent."""
    if level.compression == JPEG:
        return ~samples if level.photometric == _WHITE_IS_ZERO else samples
    colours = _colours(level)
    pixels = samples[..., :colours]
    if level.photometric == _WHITE_IS_ZERO:
        pixels = ~pixels
    if level.alpha in (1, 2) and samples.shape[2] > colours:
        alpha = samples[..., colours : colours + 1].astype(np.uint32)
        # If the colours are already multiplied with alpha (1), only the share of white is missing.
        scaled = pixels * (alpha if level.alpha == 2 else np.uint32(255))
        pixels = np.minimum((scaled + 255 * (255 - alpha) + 127) // 255, 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*samples.shape[:2], 3)))
