"""The fast reader: takes the stored JPEG tiles of a TIFF or SVS file and decodes them itself.

OpenSlide's way from a stored tile to a NumPy array goes through Cairo, premultiplied alpha and a PIL image; it gives
the same pixels at a fifth of the speed.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.slides.jpeg import RGB, YCBCR, BadJpeg, JpegDecoder
from nuclei_segmentation.shared.slides.slide import SlideInfo
from nuclei_segmentation.shared.slides.stored_tiles import StoredTiles
from nuclei_segmentation.shared.slides.tiff_index import Directory

JPEG: Final = 7  # TIFF's number for the compression
_SAMPLES: Final = 5  # tiles that are tried before the reader is trusted with a file


def is_plain_jpeg(directory: Directory) -> bool:
    """Tell whether a directory's tiles are what this reader decodes: by OpenSlide's own test for a shortcut."""
    return (
        directory.tiled
        and directory.compression == JPEG
        and directory.photometric in (RGB, YCBCR)
        and directory.bits == 8
        and directory.samples == 3
        and directory.planar == 1
        and directory.tile_width < 1 << 16
        and directory.tile_height < 1 << 16
    )


def decoder_of(directory: Directory) -> JpegDecoder:
    """Return what decodes a directory's tiles; `BadJpeg` if its tables are broken."""
    return JpegDecoder(directory.tables, directory.photometric, directory.tile_width, directory.tile_height)


class JpegTiles(StoredTiles):
    """A slide whose levels are all tiled, 8 bits, three samples, JPEG.

    Parameters
    ----------
    info, levels, cache : SlideInfo, tuple of Directory, int or None
        See `StoredTiles`. All `levels` must be plain (`is_plain_jpeg`).
    """

    def __init__(self, info: SlideInfo, levels: tuple[Directory, ...], cache: int | None = None) -> None:
        self._decoders = tuple(decoder_of(level) for level in levels)
        super().__init__(info, levels, cache)

    def looks_sound(self) -> bool:
        """Tell whether any of a few tiles can be decoded.

        If not one can, then either all are damaged, or they are of a kind that this decoder does not know.
        """
        stored = np.flatnonzero(self._levels[0].counts)
        picks = stored[np.linspace(0, len(stored) - 1, min(_SAMPLES, len(stored))).astype(int)]
        return not len(picks) or any(self._tile(int(number)) is not None for number in picks)

    def _tile(self, number: int) -> Pixels | None:
        segment = self._segment(self._levels[0], number)
        if not segment:
            return None if segment is None else self._blank
        try:
            return self._decoders[0].decode(segment)
        except BadJpeg:
            return None

    def _tile_into(self, number: int, out: Pixels) -> bool:
        segment = self._segment(self._levels[0], number)
        if not segment:
            return False
        try:
            self._decoders[0].decode(segment, out)
        except BadJpeg:
            return False
        return True

    def _factor(self, level: Directory, size: tuple[int, int]) -> int:
        for factor in (8, 4, 2):
            divides = level.tile_width % factor == 0 and level.tile_height % factor == 0
            if divides and level.width // factor >= 2 * size[0] and level.height // factor >= 2 * size[1]:
                return factor
        return 1

    def _reduced_tile(self, level: int, number: int, factor: int) -> Pixels | None:
        segment = self._segment(self._levels[level], number)
        if not segment:
            return None
        try:
            return self._decoders[level].decode_scaled(segment, factor)
        except BadJpeg:
            return None
