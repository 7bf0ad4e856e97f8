"""Assembles regions from the tiles or strips that a TIFF file stores."""

from __future__ import annotations

import os
from abc import abstractmethod
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.runtime.files import read_at
from nuclei_segmentation.shared.slides.hatching import hatch
from nuclei_segmentation.shared.slides.slide import RegionPixels, Slide, SlideInfo
from nuclei_segmentation.shared.slides.thumbnail import Thumbnail, make_thumbnail, shows_more, single_colour
from nuclei_segmentation.shared.slides.tiff_index import Directory
from nuclei_segmentation.shared.slides.tile_cache import TileCache

CACHE: Final = 192 << 20  # most bytes of decoded tiles, if two rows of tiles fit into them
CACHE_AT_MOST: Final = 384 << 20  # most bytes for one row of tiles, if two rows do not fit
_HEADER: Final = 8  # bytes at the start of a TIFF file, where no tile can lie
_PROBES: Final = 16  # most tiles of level 0 that are decoded to see whether a reduced tile is right in showing nothing
_SAMPLES: Final = 64  # tiles that are decoded at most to see whether any can be
_SPARE: Final = 32  # tiles in addition, for threads that are ahead of or behind the others


def cache_capacity(directory: Directory, budget: int | None = None) -> int:
    """Return how many decoded tiles to keep in memory.

    Two rows of stored tiles are enough for any grid; one row and a few more are enough for a grid without overlap.

    Parameters
    ----------
    directory : Directory
        The directory of level 0.
    budget : int or None, optional
        Most bytes. None: two rows if they fit into 192 MiB, else one row, up to 384 MiB.

    Returns
    -------
    int
        Number of tiles, at least 1.
    """
    tile = directory.tile_width * directory.tile_height * 3
    one, two = directory.columns + _SPARE, 2 * directory.columns + _SPARE
    if budget is None:
        budget = CACHE if two * tile <= CACHE else max(CACHE, min(one * tile, CACHE_AT_MOST))
    return max(1, min(two, budget // tile))


class StoredTiles(Slide):
    """Base of the readers that decode the stored tiles of a TIFF file themselves.

    A stored tile of level 0 that cannot be read is damage, and is hatched. One without stored bytes is
    background: white, as in OpenSlide, unless `background` says otherwise.

    Parameters
    ----------
    info : SlideInfo
        Metadata of the slide. Its `levels` are replaced.
    levels : tuple of Directory
        The directories of level 0 and of the reduced levels, largest first.
    cache : int or None, optional
        Most bytes of decoded tiles to keep; see `cache_capacity`.
    background : int, optional
        The level of the three colours, 0 to 255, where the writer left tiles out.
    """

    def __init__(
        self, info: SlideInfo, levels: tuple[Directory, ...], cache: int | None = None, *, background: int = 255
    ) -> None:
        self.info = replace(info, levels=tuple((level.width, level.height) for level in levels))
        self._levels = levels
        base = levels[0]
        self._columns, self._tile_width, self._tile_height = base.columns, base.tile_width, base.tile_height
        self._width, self._height = base.width, base.height
        capacity = cache_capacity(base, cache)
        self._cache = TileCache(self._tile, capacity)
        self.cache_bytes = capacity * base.tile_width * base.tile_height * 3
        self._background = np.uint8(background)
        self._blank: Pixels = np.broadcast_to(self._background, (base.tile_height, base.tile_width, 3))
        self._descriptor = os.open(info.path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size

    def can_decode(self) -> bool:
        """Tell whether any of some tiles of level 0, spread over the file, can be decoded.

        If not, either all are damaged, or they are of a kind that the decoder does not support.
        """
        sample = self._sample()
        return not sample or any(self._tile(number) is not None for number in sample)

    def _sample(self) -> list[int]:
        """Return the numbers of some stored tiles of level 0, spread over the file."""
        stored = np.flatnonzero(self._levels[0].counts)
        return [int(stored[i]) for i in np.linspace(0, len(stored) - 1, min(_SAMPLES, len(stored))).astype(int)]

    def close(self) -> None:
        """Close the file and drop the decoded tiles."""
        self._cache.clear()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def read(self, region: Region) -> RegionPixels:
        """See `Slide.read`."""
        number = self._stored_tile_number(region)
        if number is not None:
            return self._read_stored_tile(region, number)
        pixels = np.empty((region.height, region.width, 3), np.uint8)
        return RegionPixels(pixels, self._assemble(region, pixels))

    def read_into(self, region: Region, out: Pixels) -> bool:
        """See `Slide.read_into`."""
        number = self._stored_tile_number(region)
        if number is None:
            return self._assemble(region, out)
        # A whole stored tile is decoded in place. If that fails, it is read like any other region.
        if (region.width, region.height) == (self._tile_width, self._tile_height) and self._tile_into(number, out):
            return False
        return super().read_into(region, out)

    def thumbnail(self, limit: int) -> Thumbnail:
        """See `Slide.thumbnail`."""

        def open_level(number: int, size: tuple[int, int]) -> tuple[_Level, int]:
            factor = self._factor(self._levels[number], size)
            return _Level(self, number, factor), factor

        return make_thumbnail(self.info.levels, limit, open_level)

    def _stored_tile_number(self, region: Region) -> int | None:
        """Return the number of the stored tile that covers exactly the region, clipped to the slide, or None."""
        x, y, right, bottom = region.x, region.y, region.right, region.bottom
        if not (0 <= x < right <= self._width and 0 <= y < bottom <= self._height):
            raise ValueError(f"{region} is empty or not inside a slide of {self._width} × {self._height} pixels")
        column, left = divmod(x, self._tile_width)
        row, above = divmod(y, self._tile_height)
        if left or above or right != min(x + self._tile_width, self._width):
            return None
        return row * self._columns + column if bottom == min(y + self._tile_height, self._height) else None

    def _assemble(self, region: Region, out: Pixels) -> bool:
        """Assemble a region from all stored tiles under it; return whether any of them is damaged."""
        x, y, right, bottom = region.x, region.y, region.right, region.bottom
        width, height = self._tile_width, self._tile_height
        damaged = False
        for row in range(y // height, (bottom - 1) // height + 1):
            tile_y = row * height
            y0, y1 = max(y, tile_y), min(bottom, tile_y + height)
            below = tile_y + height <= bottom
            for column in range(x // width, (right - 1) // width + 1):
                tile_x = column * width
                x0, x1 = max(x, tile_x), min(right, tile_x + width)
                tile = self._cache.get(row * self._columns + column, below and tile_x + width <= right)
                part = out[y0 - y : y1 - y, x0 - x : x1 - x]
                if tile is None:
                    damaged = True
                    hatch(part, Region(x0, y0, x1 - x0, y1 - y0))
                else:
                    part[:] = tile[y0 - tile_y : y1 - tile_y, x0 - tile_x : x1 - tile_x]
        return damaged

    def _read_stored_tile(self, region: Region, number: int) -> RegionPixels:
        """Read a region that is exactly one stored tile. No other region needs it, so it bypasses the cache."""
        tile = self._tile(number)
        if tile is None:
            pixels = np.empty((region.height, region.width, 3), np.uint8)
            hatch(pixels, region)
            return RegionPixels(pixels, True)
        if tile.shape[:2] != (region.height, region.width) or not tile.flags.writeable:
            tile = tile[: region.height, : region.width].copy()
        return RegionPixels(tile, False)

    def _segment(self, level: Directory, number: int) -> bytes | None:
        """Return the stored bytes of a tile: empty if the writer left the tile out, None if they cannot be read."""
        offset, count = int(level.offsets[number]), int(level.counts[number])
        if count == 0:
            return b""
        if offset < _HEADER:
            return None
        pixels = level.tile_width * level.tile_height
        # No compression in use more than doubles the size of the pixels. A larger segment is an attack on the memory.
        if offset + count > self._size or count > 2 * pixels * level.samples * max(8, level.bits) // 8 + 65536:
            return None
        try:
            segment = read_at(self._descriptor, count, offset)
        except OSError:
            return None  # a bad sector of the disk is damage, too
        return segment if len(segment) == count else None

    def _thumbnail_tile(self, number: int, tile: int, factor: int) -> Pixels | None:
        """Return a stored tile of a level, reduced and cut at the border of the level.

        None if it cannot be read, or if it is missing or of a single colour although level 0 shows something there.
        """
        level = self._levels[number]
        row, column = divmod(tile, level.columns)
        height = -(-min(level.tile_height, level.height - row * level.tile_height) // factor)
        width = -(-min(level.tile_width, level.width - column * level.tile_width) // factor)
        if level.counts[tile] == 0:
            if number and len(self._stored_below(level, row, column)):
                return None
            return np.broadcast_to(self._background, (height, width, 3))
        pixels = self._reduced_tile(number, tile, factor)
        if pixels is None:
            return None
        pixels = pixels[:height, :width]
        if number and (colour := single_colour(pixels)) is not None:
            below = self._stored_below(level, row, column)
            for i in np.linspace(0, len(below) - 1, min(_PROBES, len(below))).astype(int):
                probe = self._thumbnail_tile(0, int(below[i]), self._factor(self._levels[0], (1, 1)))
                if probe is not None and shows_more(probe, colour):
                    return None
        return pixels

    def _stored_below(self, level: Directory, row: int, column: int) -> npt.NDArray[np.int64]:
        """Return the numbers of the stored tiles of level 0 under a tile of a reduced level that the file holds."""
        base = self._levels[0]
        across, down = base.width / level.width, base.height / level.height
        left, right = column * level.tile_width, min((column + 1) * level.tile_width, level.width)
        top, bottom = row * level.tile_height, min((row + 1) * level.tile_height, level.height)
        columns = np.arange(left * across // base.tile_width, min(base.columns, right * across / base.tile_width))
        rows = np.arange(top * down // base.tile_height, min(base.rows, bottom * down / base.tile_height))
        numbers = (rows[:, None] * base.columns + columns).astype(np.int64).reshape(-1)
        return numbers[base.counts[numbers] > 0]

    def _factor(self, level: Directory, size: tuple[int, int]) -> int:
        """Return by which factor tiles can be reduced while decoding, if `size` (width, height) is needed."""
        return 1

    @abstractmethod
    def _tile(self, number: int) -> Pixels | None:
        """Return a stored tile of level 0, (tile_height, tile_width, 3) uint8 RGB, or None if it is damaged."""

    def _tile_into(self, number: int, out: Pixels) -> bool:
        """Decode a stored tile of level 0 into (tile_height, tile_width, 3) uint8; return whether that succeeded."""
        return False

    @abstractmethod
    def _reduced_tile(self, level: int, number: int, factor: int) -> Pixels | None:
        """Return a stored tile of a level, reduced by `factor`, or None if it is damaged."""


class _Level:
    """One level of a slide, for its thumbnail; see `thumbnail.Level`."""

    def __init__(self, slide: StoredTiles, number: int, factor: int) -> None:
        level = slide._levels[number]
        self._slide, self._number, self._factor, self._columns = slide, number, factor, level.columns
        self.size = level.width / factor, level.height / factor
        self.block = level.tile_width // factor, level.tile_height // factor

    def rows(self, width: int) -> int:
        return self.block[1]

    def read(self, x: int, y: int, width: int, height: int) -> Pixels | None:
        out = np.empty((height, width, 3), np.uint8)
        tile_width, tile_height = self.block
        for row in range(y // tile_height, -(-(y + height) // tile_height)):
            for column in range(x // tile_width, -(-(x + width) // tile_width)):
                tile = self._slide._thumbnail_tile(self._number, row * self._columns + column, self._factor)
                if tile is None:
                    return None
                left, top = column * tile_width - x, row * tile_height - y  # of the tile, in `out`
                part = out[max(0, top) : top + len(tile), max(0, left) : left + tile.shape[1]]
                part[:] = tile[max(0, -top) :, max(0, -left) :][: part.shape[0], : part.shape[1]]
        return out
