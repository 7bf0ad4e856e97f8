"""From pixels to segments of the file and to the next level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import imagecodecs
import numpy as np

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.settings import JpegSettings

Encoder = Callable[[Pixels], bytes]
"""Turns a whole tile, (side, side, 3) uint8 RGB, into a segment of the file. Called by several threads at once."""


_START, _END = b"\xff\xd8", b"\xff\xd9"
_JFIF, _QUANTISATION, _FRAME, _HUFFMAN, _SCAN = 0xE0, 0xDB, 0xC0, 0xC4, 0xDA
_JFIF_END = 20


@dataclass(frozen=True, slots=True)
class EncodedSpan:
    """A finished span.

    Attributes
    ----------
    segments : list of bytes
        One per tile, from left to right.
    half : numpy.ndarray or None
        (ceil(h / 2), ceil(w / 2), 3) uint8, the span at half size; None at the coarsest level.
    """

    segments: list[bytes]
    half: Pixels | None


def encode(tile: Pixels, jpeg: JpegSettings) -> bytes:
    """Return a tile as JPEG the way TIFF wants it: YCbCr, and without the tables that all tiles share.

    Parameters
    ----------
    tile : numpy.ndarray
        (h, w, 3) uint8 RGB.
    jpeg : JpegSettings
        Quality and subsampling.
    """
    full = _encode(tile, jpeg)
    frame, tables, scan = _header(jpeg)
    return b"".join((_START, full[frame:tables], full[scan:]))


def shared_tables(jpeg: JpegSettings) -> bytes:
    """Return the quantisation and Huffman tables of all tiles, as the tag JPEGTables wants them.

    They depend on the settings only. In the tiles they would take 590 bytes each, a third of a tile of plain glass.
    """
    full = _encode(np.zeros((16, 16, 3), np.uint8), jpeg)
    frame, tables, scan = _header(jpeg)
    return b"".join((_START, full[_JFIF_END:frame], full[tables:scan], _END))


def _encode(tile: Pixels, jpeg: JpegSettings) -> bytes:
    if tile.strides[1:] != (3, 1):  # the encoder takes rows from anywhere, but not pixels
        tile = np.ascontiguousarray(tile)
    return bytes(  # without `out` it returns bytes already, and nothing is copied here
        imagecodecs.jpeg8_encode(
            tile, level=jpeg.quality, colorspace="RGB", outcolorspace="YCBCR", subsampling=jpeg.subsampling
        )
    )


@cache
def _header(jpeg: JpegSettings) -> tuple[int, int, int]:
    """Return where in a tile the frame's header, the Huffman tables behind it and the scan start.

    The header of a tile has the same length whatever the tile: JFIF marker, quantisation tables, frame, Huffman
    tables, scan.
    """
    full = _encode(np.zeros((16, 16, 3), np.uint8), jpeg)
    place = len(_START)
    starts: dict[int, int] = {}
    while full[place + 1] != _SCAN:
        starts.setdefault(full[place + 1], place)
        place += 2 + int.from_bytes(full[place + 2 : place + 4], "big")
    if list(starts) != [_JFIF, _QUANTISATION, _FRAME, _HUFFMAN] or starts[_QUANTISATION] != _JFIF_END:
        raise AssertionError("imagecodecs lays out JPEG in another way than this module knows")
    return starts[_FRAME], starts[_HUFFMAN], place


def finish(tiles: list[Pixels], side: int, encode: Encoder, last: bool) -> EncodedSpan:
    """Encode the tiles of a span and halve it.

    Parameters
    ----------
    tiles : list of numpy.ndarray
        (h, w, 3) uint8 RGB each, from left to right; of one height; all but the last of width `side`.
    side : int
        Side of a whole tile, even.
    encode : Encoder
        The encoder.
    last : bool
        Whether this is the coarsest level, so that no half is wanted.
    """
    segments = [encode(whole(tile, side)) for tile in tiles]
    if last:
        return EncodedSpan(segments, None)
    height, width = len(tiles[0]), sum(tile.shape[1] for tile in tiles)
    half = np.empty((-(-height // 2), -(-width // 2), 3), np.uint8)
    for number, tile in enumerate(tiles):
        left = number * (side // 2)
        halve(tile, half[:, left : left + -(-tile.shape[1] // 2)])
    return EncodedSpan(segments, half)


def whole(tile: Pixels, side: int) -> Pixels:
    """Return a tile at the image's edge grown to the full size by its last row and column, which costs JPEG least."""
    height, width = tile.shape[:2]
    if (height, width) == (side, side):
        return tile
    grown = cv2.copyMakeBorder(tile, 0, side - height, 0, side - width, cv2.BORDER_REPLICATE)
    return np.asarray(grown, np.uint8)


def halve(pixels: Pixels, out: Pixels) -> None:
    """Write the mean of every 2 × 2 pixels, halves rounded up; an odd last row or column counts twice.

    Parameters
    ----------
    pixels : numpy.ndarray
        (h, w, 3) uint8.
    out : numpy.ndarray
        (ceil(h / 2), ceil(w / 2), 3) uint8; may be a part of a larger array.
    """
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        pixels = np.asarray(cv2.copyMakeBorder(pixels, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE), np.uint8)
    cv2.resize(pixels, (out.shape[1], out.shape[0]), dst=out, interpolation=cv2.INTER_AREA)
