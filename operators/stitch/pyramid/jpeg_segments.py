"""JPEG segments: compressed TIFF tiles without the tables that all of them share.

In each tile the tables would take 590 bytes, a third of a tile of plain glass. They depend on the settings only, so
that the file holds them once, in its tag JPEGTables.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import imagecodecs
import numpy as np

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.settings import JpegSettings

Encoder = Callable[[Pixels], bytes]
"""Makes a segment from a full tile, (side, side, 3) uint8 RGB. Called by several threads at once."""

_START, _END = b"\xff\xd8", b"\xff\xd9"
_JFIF, _QUANTISATION, _FRAME, _HUFFMAN, _SCAN = 0xE0, 0xDB, 0xC0, 0xC4, 0xDA
_JFIF_END = 20


def encode_jpeg(tile: Pixels, jpeg: JpegSettings) -> bytes:
    """Return a tile as a JPEG segment: YCbCr, without the shared tables.

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
    """Return the quantisation and Huffman tables of all tiles, in the form of the tag JPEGTables."""
    full = _encode(np.zeros((16, 16, 3), np.uint8), jpeg)
    frame, tables, scan = _header(jpeg)
    return b"".join((_START, full[_JFIF_END:frame], full[tables:scan], _END))


def _encode(tile: Pixels, jpeg: JpegSettings) -> bytes:
    if tile.strides[1:] != (3, 1):  # the encoder accepts rows anywhere in memory, but needs contiguous pixels in them
        tile = np.ascontiguousarray(tile)
    return bytes(  # without `out` the encoder returns bytes, so that nothing is copied here
        imagecodecs.jpeg8_encode(
            tile, level=jpeg.quality, colorspace="RGB", outcolorspace="YCBCR", subsampling=jpeg.subsampling
        )
    )


@cache
def _header(jpeg: JpegSettings) -> tuple[int, int, int]:
    """Return where the frame header, the Huffman tables after it, and the scan start in an encoded tile.

    The same for all tiles: JFIF marker, quantisation tables, frame header, Huffman tables and scan follow one another,
    and all before the scan have a constant length.
    """
    full = _encode(np.zeros((16, 16, 3), np.uint8), jpeg)
    offset = len(_START)
    starts: dict[int, int] = {}
    while full[offset + 1] != _SCAN:
        starts.setdefault(full[offset + 1], offset)
        offset += 2 + int.from_bytes(full[offset + 2 : offset + 4], "big")
    if list(starts) != [_JFIF, _QUANTISATION, _FRAME, _HUFFMAN] or starts[_QUANTISATION] != _JFIF_END:
        raise AssertionError("imagecodecs lays out JPEG in a way that this module does not know")
    return starts[_FRAME], starts[_HUFFMAN], offset
