"""From the pixels of a span to its segments, and to the span at half size."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from nuclei_segmentation.operators.stitch.pyramid.jpeg_segments import Encoder
from nuclei_segmentation.shared.batches import Pixels


@dataclass(frozen=True, slots=True)
class EncodedSpan:
    """An encoded span.

    Attributes
    ----------
    segments : list of bytes
        One per tile, from left to right.
    half : numpy.ndarray or None
        (ceil(h / 2), ceil(w / 2), 3) uint8 RGB, the span at half size; None at the coarsest level.
    """

    segments: list[bytes]
    half: Pixels | None


def encode_span(tiles: list[Pixels], side: int, encode: Encoder, *, coarsest: bool) -> EncodedSpan:
    """Encode the tiles of a span, and halve the span.

    Parameters
    ----------
    tiles : list of numpy.ndarray
        (h, w, 3) uint8 RGB each, from left to right, of the same height; all but the last of width `side`.
    side : int
        Side of a full tile in pixels, even.
    encode : Encoder
        Makes segments.
    coarsest : bool
        Whether this is the coarsest level, for which no half is made.
    """
    segments = [encode(pad_tile(tile, side)) for tile in tiles]
    if coarsest:
        return EncodedSpan(segments, None)
    height, width = len(tiles[0]), sum(tile.shape[1] for tile in tiles)
    half = np.empty((-(-height // 2), -(-width // 2), 3), np.uint8)
    for number, tile in enumerate(tiles):
        left = number * (side // 2)
        halve(tile, half[:, left : left + -(-tile.shape[1] // 2)])
    return EncodedSpan(segments, half)


def pad_tile(tile: Pixels, side: int) -> Pixels:
    """Return a tile at the image's edge padded to full size with its last row and column: in JPEG the smallest padding.

    Parameters
    ----------
    tile : numpy.ndarray
        (h, w, 3) uint8 RGB, at most `side` high and wide.
    side : int
        Side of a full tile in pixels.

    Returns
    -------
    numpy.ndarray
        (side, side, 3) uint8 RGB; `tile` itself if it has that size.
    """
    height, width = tile.shape[:2]
    if (height, width) == (side, side):
        return tile
    padded = cv2.copyMakeBorder(tile, 0, side - height, 0, side - width, cv2.BORDER_REPLICATE)
    return np.asarray(padded, np.uint8)


def halve(pixels: Pixels, out: Pixels) -> None:
    """Write the mean of every 2 × 2 pixels, with halves rounded up; an odd last row or column counts twice.

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
