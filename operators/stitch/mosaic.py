"""Puts maps that arrive tile by tile under the spans of the output.

Maps arrive in the order of the tiles, row by row. A span can be rendered once the maps of all tiles under it, and under
the margin around it, are there. Of a map only the core's nuclei are kept, one bit a pixel, and only as long as a
later span may ask for them.
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
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.geometry import Region, TileGrid


@dataclass(slots=True)
class ArrivedTile:
    """What is kept of a foreground tile.

    Attributes
    ----------
    core : Region
        The part of the slide that it decides.
    nuclei : numpy.ndarray or None
        (core's height, ceil(core's width / 8)) uint8, one bit a pixel; None where there are none.
    pixels : numpy.ndarray or None
        (core's height, core's width, 3) uint8 RGB, a view into its batch; None where the slide is read instead.
    damaged : bool
        Whether it could not be read.
    """

    core: Region
    nuclei: Pixels | None
    pixels: Pixels | None
    damaged: bool


@dataclass(frozen=True, slots=True)
class SpanJob:
    """A span of level 0 and all that is needed to render it, apart from the slide.

    Attributes
    ----------
    region : Region
        The span, in level-0 pixels.
    nuclei : list of ArrivedTile
        Tiles with nuclei under the span or its margin.
    damaged : list of ArrivedTile
        Tiles under the span that could not be read.
    pixels : list of numpy.ndarray or None
        For each output tile of the span its pixels, or None where the slide must be read.
    """

    region: Region
    nuclei: list[ArrivedTile]
    damaged: list[ArrivedTile]
    pixels: list[Pixels | None]


class Mosaic:
    """Draws maps from their stream as the output needs them.

    Parameters
    ----------
    grid : TileGrid
        The grid of the tiles.
    foreground : numpy.ndarray
        (n, 2) int32, row and column of the tiles that maps arrive for, in row-major order.
    masks : Iterator of MapBatch
        Their maps, in the same order.
    painter : OverlayPainter
        Says which pixels are nucleus, and how far around itself a span needs them.
    level : Level
        Level 0 of the output.

    Attributes
    ----------
    nuclei_pixels : int
        Nucleus pixels seen so far.
    damaged : set of tuple of int
        (row, column) of the damaged tiles seen so far.
    """

    def __init__(
        self,
        grid: TileGrid,
        foreground: npt.NDArray[np.int32],
        masks: Iterator[MapBatch],
        painter: OverlayPainter,
        level: Level,
    ) -> None:
        self._grid, self._masks, self._painter, self._level = grid, masks, painter, level
        self._places = foreground
        self._order = foreground[:, 0].astype(np.int64) * grid.columns + foreground[:, 1]
        self._rows: dict[int, dict[int, ArrivedTile]] = {}
        self._received = 0
        # Where output tiles are the grid's tiles, inferred pixels are the output's, and nothing is read again.
        self._same = grid.tile == level.side and grid.overlap == 0
        self.nuclei_pixels = 0
        self.damaged: set[tuple[int, int]] = set()

    def jobs(self) -> Iterator[SpanJob]:
        """Yield the spans of level 0 in order; draws maps from the stream only when the next span needs them.

        Raises
        ------
        NucleiError
            The stream ended early, went on too long or was out of order.
        """
        for row, span in self._level:
            region = self._level.region(row, span)
            self._draw(region)
            yield self._job(region, row, span)
            if span == self._level.spans - 1:
                self._forget(region.bottom)
        # Asking for the batch behind the last lets the stream finish what it does at its end.
        if next(self._masks, None) is not None:
            raise NucleiError("internal error: more maps arrived than there are foreground tiles")

    def _draw(self, region: Region) -> None:
        grown = grow(region, self._painter.margin).intersect(self._grid.bounds)
        row, column = self._grid.row_of(grown.bottom - 1), self._grid.column_of(grown.right - 1)
        wanted = int(np.searchsorted(self._order, row * self._grid.columns + column, side="right"))
        while self._received < wanted:
            batch = next(self._masks, None)
            if batch is None:
                raise NucleiError(f"internal error: maps ended after {self._received} of {len(self._order)} tiles")
            self._take(batch)

    def _take(self, batch: MapBatch) -> None:
        first, end = self._received, self._received + len(batch)
        if end > len(self._order) or not np.array_equal(batch.tile_ids, np.arange(first, end)):
            raise NucleiError(f"internal error: maps out of order, wanted tile {first}, got {batch.tile_ids[:1]}")
        self._received = end
        nuclei = self._painter.nuclei(first_channel(batch.maps))
        for number, (row, column) in enumerate(self._places[first:end].tolist()):
            arrived = self._keep(batch, nuclei[number], number, row, column)
            if arrived.damaged:
                self.damaged.add((row, column))
            self._rows.setdefault(row, {})[column] = arrived

    def _keep(self, batch: MapBatch, nuclei: npt.NDArray[np.bool_], number: int, row: int, column: int) -> ArrivedTile:
        core, region = self._grid.core(row, column), self._grid.region(row, column)
        inside = np.s_[core.y - region.y : core.bottom - region.y, core.x - region.x : core.right - region.x]
        pixels = batch.tiles.pixels[number][inside] if self._same else None
        if batch.tiles.damaged[number]:
            return ArrivedTile(core, None, pixels, True)
        nuclei = nuclei[inside]
        count = int(np.count_nonzero(nuclei))
        self.nuclei_pixels += count
        return ArrivedTile(core, np.packbits(nuclei, axis=1) if count else None, pixels, False)

    def _job(self, region: Region, row: int, span: int) -> SpanJob:
        grid, margin = self._grid, self._painter.margin
        grown = grow(region, margin).intersect(grid.bounds)
        tiles = [
            tile
            for place in range(grid.row_of(grown.y), grid.row_of(grown.bottom - 1) + 1)
            if place in self._rows
            for column in range(grid.column_of(grown.x), grid.column_of(grown.right - 1) + 1)
            if (tile := self._rows[place].get(column)) is not None
        ]
        first = region.x // self._level.side
        pixels: list[Pixels | None] = [None] * -(-region.width // self._level.side)
        if self._same and row in self._rows:
            for number in range(len(pixels)):
                tile = self._rows[row].get(first + number)
                if tile is not None:
                    # Moved, not shared: the batch's memory is free once this span is rendered.
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
        for row in [row for row in self._rows if row < first]:
            del self._rows[row]


def first_channel(maps: Pixels) -> Pixels:
    """Return the first channel of maps, (b, T, T, C) uint8, as contiguous (b, T, T)."""
    rows = maps.reshape(-1, *maps.shape[2:])
    # NumPy goes through channels that lie side by side one by one; OpenCV takes them apart by the register.
    return np.asarray(cv2.extractChannel(rows, 0), np.uint8).reshape(maps.shape[:3])


def nuclei_under(tiles: list[ArrivedTile], region: Region, margin: int, bounds: Region) -> Mask:
    """Return the nuclei under a region and the margin around it.

    Parameters
    ----------
    tiles : list of ArrivedTile
        The tiles with nuclei; more than these may be given.
    region : Region
        In level-0 pixels.
    margin : int
        Pixels around it, 0 or 1.
    bounds : Region
        The slide. What lies outside is as its nearest pixel inside: a nucleus that is cut by the border goes on.

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
    """Return a region with `margin` pixels more on every side."""
    return Region(region.x - margin, region.y - margin, region.width + 2 * margin, region.height + 2 * margin)
