"""Lays maps, which arrive tile by tile, under the spans of the output.

Maps arrive in the order of the tiles, row by row. A span can be rendered once the maps of all tiles under it, and under
the margin around it, have arrived. Of a map only the nuclei in the tile's core are kept, one bit a pixel, and only as
long as a later span may need them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.overlay import Mask, OverlayPainter
from nuclei_segmentation.operators.stitch.pyramid.levels import Level
from nuclei_segmentation.shared.batches import MapBatch, Pixels
from nuclei_segmentation.shared.damage import DamagedTiles
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.geometry import Region, TileGrid


@dataclass(slots=True)
class ArrivedTile:
    """What is kept of a foreground tile.

    Attributes
    ----------
    core : Region
        The tile's core.
    nuclei : numpy.ndarray or None
        (core's height, ceil(core's width / 8)) uint8, one bit a pixel; None if there are no nuclei.
    pixels : numpy.ndarray or None
        (core's height, core's width, 3) uint8 RGB, a view into the tile's batch; None if they are read from the slide.
    damaged : bool
        Whether the tile could not be read.
    """

    core: Region
    nuclei: Pixels | None
    pixels: Pixels | None
    damaged: bool


@dataclass(frozen=True, slots=True)
class SpanJob:
    """A span of level 0 and all that rendering it takes, apart from the slide.

    Attributes
    ----------
    region : Region
        The span, in level-0 pixels.
    nuclei : list of ArrivedTile
        Tiles with nuclei under the span or its margin.
    damaged : list of ArrivedTile
        Tiles under the span that could not be read.
    pixels : list of (numpy.ndarray or None)
        For each TIFF tile of the span its (h, w, 3) uint8 RGB pixels, or None if the slide must be read.
    """

    region: Region
    nuclei: list[ArrivedTile]
    damaged: list[ArrivedTile]
    pixels: list[Pixels | None]


class Mosaic:
    """Takes maps from their stream as the spans of level 0 need them.

    Parameters
    ----------
    grid : TileGrid
        The grid of the tiles.
    foreground : numpy.ndarray
        (n, 2) int32, row and column of the tiles that maps arrive for, in row-major order.
    maps : Iterator of MapBatch
        Their maps, in the same order.
    painter : OverlayPainter
        Says which pixels are nucleus, and how wide a margin a span needs.
    level : Level
        Level 0 of the output.
    damaged : DamagedTiles
        Collects the damaged tiles that arrive.

    Attributes
    ----------
    nuclei_pixels : int
        Nucleus pixels so far.
    """

    def __init__(
        self,
        grid: TileGrid,
        foreground: npt.NDArray[np.int32],
        maps: Iterator[MapBatch],
        painter: OverlayPainter,
        level: Level,
        damaged: DamagedTiles,
    ) -> None:
        self._grid, self._maps, self._painter, self._level, self._damaged = grid, maps, painter, level, damaged
        self._foreground = foreground
        self._order = foreground[:, 0].astype(np.int64) * grid.columns + foreground[:, 1]
        self._arrived: dict[int, dict[int, ArrivedTile]] = {}  # by row and column
        self._received = 0
        # If the TIFF tiles are the grid's tiles, the pixels that were inferred are those to write: none is read again.
        self._same_tiles = grid.tile == level.side and grid.overlap == 0
        self.nuclei_pixels = 0

    def jobs(self) -> Iterator[SpanJob]:
        """Yield the spans of level 0 in order; take maps from the stream only when the next span needs them.

        Raises
        ------
        NucleiError
            The stream of maps was too short, too long or out of order.
        TooMuchDamage
            More tiles are damaged than the limit allows.
        """
        for row, span in self._level:
            region = self._level.region(row, span)
            self._receive_for(region)
            yield self._job(region, row, span)
            if span == self._level.spans - 1:
                self._forget(region.bottom)
        # Asking for a batch after the last one lets the stream do what it does at its end.
        if next(self._maps, None) is not None:
            raise NucleiError("internal error: more maps arrived than there are foreground tiles")

    def _receive_for(self, region: Region) -> None:
        """Receive the maps of all tiles under a region and its margin."""
        grown = grow(region, self._painter.margin).intersect(self._grid.bounds)
        row, column = self._grid.row_of(grown.bottom - 1), self._grid.column_of(grown.right - 1)
        needed = int(np.searchsorted(self._order, row * self._grid.columns + column, side="right"))
        while self._received < needed:
            batch = next(self._maps, None)
            if batch is None:
                raise NucleiError(f"internal error: maps ended after {self._received} of {len(self._order)} tiles")
            self._receive(batch)

    def _receive(self, batch: MapBatch) -> None:
        first, end = self._received, self._received + len(batch)
        if end > len(self._order) or not np.array_equal(batch.tile_ids, np.arange(first, end)):
            raise NucleiError(f"internal error: maps out of order, expected tile {first}, got {batch.tile_ids[:1]}")
        self._received = end
        positions = self._foreground[first:end]
        self._damaged.add(positions[batch.tiles.damaged].tolist())
        nuclei = self._painter.nuclei(first_channel(batch.maps))
        for number, (row, column) in enumerate(positions.tolist()):
            tile = self._arrived_tile(batch, nuclei[number], number, row, column)
            self._arrived.setdefault(row, {})[column] = tile

    def _arrived_tile(
        self, batch: MapBatch, nuclei: npt.NDArray[np.bool_], number: int, row: int, column: int
    ) -> ArrivedTile:
        core, region = self._grid.core(row, column), self._grid.region(row, column)
        inside = np.s_[core.y - region.y : core.bottom - region.y, core.x - region.x : core.right - region.x]
        pixels = batch.tiles.pixels[number][inside] if self._same_tiles else None
        if batch.tiles.damaged[number]:
            return ArrivedTile(core, None, pixels, True)
        nuclei = nuclei[inside]
        count = int(np.count_nonzero(nuclei))
        self.nuclei_pixels += count
        return ArrivedTile(core, np.packbits(nuclei, axis=1) if count else None, pixels, False)

    def _job(self, region: Region, row: int, span: int) -> SpanJob:
        grown = grow(region, self._painter.margin).intersect(self._grid.bounds)
        tiles = [
            tile
            for tile_row, tile_column in self._grid.tiles_under(grown)
            if (tile := self._arrived.get(tile_row, {}).get(tile_column)) is not None
        ]
        first = region.x // self._level.side
        pixels: list[Pixels | None] = [None] * -(-region.width // self._level.side)
        if self._same_tiles and row in self._arrived:
            for number in range(len(pixels)):
                tile = self._arrived[row].get(first + number)
                if tile is not None:
                    # Moved, not shared, so that the batch's memory is free once this span is rendered.
                    pixels[number], tile.pixels = tile.pixels, None
        return SpanJob(
            region,
            [tile for tile in tiles if tile.nuclei is not None],
            [tile for tile in tiles if tile.damaged and tile.core.intersect(region).area],
            pixels,
        )

    def _forget(self, bottom: int) -> None:
        """Drop the rows of tiles that no span below pixel row `bottom` needs."""
        first = self._grid.row_of(max(0, bottom - self._painter.margin))
        for row in [row for row in self._arrived if row < first]:
            del self._arrived[row]


def first_channel(maps: Pixels) -> Pixels:
    """Return the first channel of maps, (b, T, T, C) uint8, as contiguous (b, T, T)."""
    rows = maps.reshape(-1, *maps.shape[2:])
    # NumPy copies every C-th byte one by one; OpenCV separates interleaved channels with vector instructions.
    return np.asarray(cv2.extractChannel(rows, 0), np.uint8).reshape(maps.shape[:3])


def nuclei_under(tiles: list[ArrivedTile], region: Region, margin: int, bounds: Region) -> Mask:
    """Return the nuclei under a region and the margin around it.

    Parameters
    ----------
    tiles : list of ArrivedTile
        The tiles with nuclei; tiles elsewhere are ignored.
    region : Region
        In level-0 pixels.
    margin : int
        Pixels around the region, 0 or 1.
    bounds : Region
        The slide. A pixel outside has the value of the nearest pixel inside: a nucleus that the slide's border cuts
        continues beyond it.

    Returns
    -------
    numpy.ndarray
        (height + 2 margin, width + 2 margin) uint8, 1 in nuclei and 0 elsewhere.
    """
    grown = grow(region, margin)
    nuclei = np.zeros((grown.height, grown.width), np.uint8)
    for tile in tiles:
        part = tile.core.intersect(grown)
        if part.area and tile.nuclei is not None:
            x, y = part.x - tile.core.x, part.y - tile.core.y
            packed = tile.nuclei[y : y + part.height, x // 8 : (x + part.width + 7) // 8]
            bits = np.unpackbits(packed, axis=1)[:, x % 8 : x % 8 + part.width]
            nuclei[part.y - grown.y : part.bottom - grown.y, part.x - grown.x : part.right - grown.x] = bits
    if grown.y < bounds.y:
        nuclei[0] = nuclei[1]
    if grown.bottom > bounds.bottom:
        nuclei[-1] = nuclei[-2]
    if grown.x < bounds.x:
        nuclei[:, 0] = nuclei[:, 1]
    if grown.right > bounds.right:
        nuclei[:, -1] = nuclei[:, -2]
    return nuclei


def grow(region: Region, margin: int) -> Region:
    """Return a region with `margin` more pixels on every side.

    Parameters
    ----------
    region : Region
        The region.
    margin : int
        In pixels.
    """
    return Region(region.x - margin, region.y - margin, region.width + 2 * margin, region.height + 2 * margin)
