"""Lays maps, which arrive tile by tile, under the spans of the output.

Maps arrive in the order of the tiles, row by row. A span can be rendered once the maps of all tiles under it, and under
the margin around it, have arrived. Of a map only the nuclei in the tile's core are kept, one bit a pixel, and only as
long as a later span may need them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.arrived import ArrivedTile, Examiner
from nuclei_segmentation.operators.stitch.count import NucleusCount
from nuclei_segmentation.operators.stitch.memory import batches_ahead
from nuclei_segmentation.operators.stitch.overlay import Mask
from nuclei_segmentation.operators.stitch.pyramid.levels import Level
from nuclei_segmentation.shared.batches import MapBatch, Pixels
from nuclei_segmentation.shared.damage import DamagedTiles
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool

if TYPE_CHECKING:  # most runs make no objects, and do without what they import
    from nuclei_segmentation.operators.stitch.objects.collect import NucleusCollector


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
    examine : Examiner
        Makes of a batch what is kept of it.
    level : Level
        Level 0 of the output.
    damaged : DamagedTiles
        Collects the damaged tiles that arrive.
    collector : NucleusCollector or None, optional
        Makes nuclei objects.

    Attributes
    ----------
    nuclei_pixels : int
        Nucleus pixels so far.
    nuclei : NucleusCount
        Nuclei so far.
    """

    def __init__(
        self,
        grid: TileGrid,
        foreground: npt.NDArray[np.int32],
        examine: Examiner,
        level: Level,
        damaged: DamagedTiles,
        collector: NucleusCollector | None = None,
    ) -> None:
        self._collector = collector
        self._grid, self._foreground, self._examine = grid, foreground, examine
        self._level, self._damaged = level, damaged
        self._margin = examine.painter.margin
        self._order = foreground[:, 0].astype(np.int64) * grid.columns + foreground[:, 1]
        self._arrived: dict[int, dict[int, ArrivedTile]] = {}  # by row and column
        self._received = 0
        self.nuclei_pixels = 0
        self.nuclei = NucleusCount(grid)

    def jobs(self, maps: Iterator[MapBatch], pool: WorkerPool) -> Iterator[SpanJob]:
        """Yield the spans of level 0 in order; take maps from their stream only when the next span needs them.

        Parameters
        ----------
        maps : Iterator of MapBatch
            The maps of the foreground tiles, in their order.
        pool : WorkerPool
            Examines them.

        Raises
        ------
        NucleiError
            The stream of maps was too short, too long or out of order.
        TooMuchDamage
            More tiles are damaged than the limit allows.
        """
        batches = pool.map("stitch", self._examine, self._checked(maps), ahead=batches_ahead(pool.workers))
        for row, span in self._level:
            region = self._level.region(row, span)
            self._receive_for(region, batches)
            yield self._job(region, row, span)
            if span == self._level.spans - 1:
                self._forget(region.bottom)
        # Asking for a batch after the last one lets the stream do what it does at its end.
        if next(batches, None) is not None:
            raise NucleiError("internal error: a batch without tiles arrived")

    def _checked(self, maps: Iterator[MapBatch]) -> Iterator[MapBatch]:
        """Yield batches that are in order."""
        first = 0
        for batch in maps:
            end = first + len(batch)
            if end > len(self._order):
                raise NucleiError("internal error: more maps arrived than there are foreground tiles")
            if not np.array_equal(batch.tile_ids, np.arange(first, end)):
                raise NucleiError(f"internal error: maps out of order, expected tile {first}, got {batch.tile_ids[:1]}")
            first = end
            yield batch

    def _receive_for(self, region: Region, batches: Iterator[list[ArrivedTile]]) -> None:
        """Receive all tiles under a region and its margin."""
        grown = grow(region, self._margin).intersect(self._grid.bounds)
        row, column = self._grid.row_of(grown.bottom - 1), self._grid.column_of(grown.right - 1)
        needed = int(np.searchsorted(self._order, row * self._grid.columns + column, side="right"))
        while self._received < needed:
            tiles = next(batches, None)
            if tiles is None:
                raise NucleiError(f"internal error: maps ended after {self._received} of {len(self._order)} tiles")
            for tile in tiles:
                self._receive(tile)

    def _receive(self, tile: ArrivedTile) -> None:
        row, column = self._foreground[self._received].tolist()
        self._received += 1
        if tile.damaged:
            self._damaged.add([(row, column)])
        self.nuclei_pixels += tile.nuclei_pixels
        self.nuclei.add(row, column, tile.pieces)
        tile.pieces = None  # counted
        if self._collector is not None:
            self._collector.add(row, tile.core, tile.maps, damaged=tile.damaged)
            tile.maps = None
        self._arrived.setdefault(row, {})[column] = tile

    def _job(self, region: Region, row: int, span: int) -> SpanJob:
        grown = grow(region, self._margin).intersect(self._grid.bounds)
        tiles = [
            tile
            for tile_row, tile_column in self._grid.tiles_under(grown)
            if (tile := self._arrived.get(tile_row, {}).get(tile_column)) is not None
        ]
        first = region.x // self._level.side
        pixels: list[Pixels | None] = [None] * -(-region.width // self._level.side)
        if self._examine.keeps_pixels and row in self._arrived:
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
        first = self._grid.row_of(max(0, bottom - self._margin))
        for row in [row for row in self._arrived if row < first]:
            del self._arrived[row]


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
