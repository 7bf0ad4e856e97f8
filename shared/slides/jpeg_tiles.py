"""The fast reader: decodes the stored JPEG tiles of a TIFF or SVS file directly.

OpenSlide takes a stored tile through Cairo, premultiplied alpha and a PIL image to a NumPy array. The pixels are the
same, at a fifth of the speed.
"""

from __future__ import annotations

from typing import Final

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.slides.jpeg import RGB, YCBCR, BadJpeg, JpegDecoder
from nuclei_segmentation.shared.slides.slide import SlideInfo
from nuclei_segmentation.shared.slides.stored_tiles import StoredTiles
from nuclei_segmentation.shared.slides.tiff_index import Directory

JPEG: Final = 7  # TIFF's number for the compression


def is_plain_jpeg(directory: Directory) -> bool:
    """Tell whether a directory has tiles that this reader can decode. OpenSlide's own fast path has the same test."""
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


def tile_decoder(directory: Directory) -> JpegDecoder:
    """Return a decoder for the tiles of a directory.

    Raises
    ------
    BadJpeg
        The shared JPEG tables of the directory are broken.
    """
    return JpegDecoder(directory.tables, directory.photometric, directory.tile_width, directory.tile_height)


class JpegTiles(StoredTiles):
    """A slide all of whose levels have JPEG tiles with three samples of 8 bits.

    Parameters
    ----------
    info : SlideInfo
        Metadata of the slide. Its `levels` are replaced.
    levels : tuple of Directory
        The directories of level 0 and of the reduced levels, largest first; `is_plain_jpeg` is true for all of them.
    cache : int or None, optional
        Most bytes of decoded tiles to keep; see `cache_capacity`.

    Raises
    ------
    BadJpeg
        The shared JPEG tables of a level are broken.
    """

    def __init__(self, info: SlideInfo, levels: tuple[Directory, ...], cache: int | None = None) -> None:
        self._decoders = tuple(tile_decoder(level) for level in levels)
        super().__init__(info, levels, cache)

    def contradicts_its_tag(self) -> bool:
        """Tell whether any of some tiles has other colours than the TIFF tag says, so that OpenSlide misreads it."""
        for number in self._sample():
            try:
                segment = self._segment(self._levels[0], number)
                if segment and self._decoders[0].colours(segment) != self._levels[0].photometric:
                    return True
            except BadJpeg:
                continue
        return False

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
