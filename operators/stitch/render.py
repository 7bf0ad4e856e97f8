"""Renders a span of level 0: pixels, overlay, hatching, segments. Runs in worker threads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nuclei_segmentation.operators.stitch.mosaic import SpanJob, nuclei_under
from nuclei_segmentation.operators.stitch.overlay import OverlayPainter
from nuclei_segmentation.operators.stitch.pyramid.segments import EncodedSpan, Encoder, finish
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.slides.hatching import hatch
from nuclei_segmentation.shared.slides.slide import Slide


@dataclass(frozen=True, slots=True)
class Rendered:
    """A span of level 0.

    Attributes
    ----------
    encoded : EncodedSpan
        Its segments and its half.
    damaged : list of tuple of int
        (row, column) of the grid's tiles in which pixels could not be read now.
    """

    encoded: EncodedSpan
    damaged: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Renderer:
    """Renders spans of level 0; may be called by several threads at once.

    Attributes
    ----------
    slide, grid : Slide, TileGrid
        Where pixels come from that no tile brought along, and the grid by which damage is counted.
    painter : OverlayPainter
        Draws the nuclei.
    side : int
        Side of an output tile.
    encode : Encoder
        Makes segments.
    last : bool
        Whether the pyramid ends with this level.
    """

    slide: Slide
    grid: TileGrid
    painter: OverlayPainter
    side: int
    encode: Encoder
    last: bool

    def __call__(self, job: SpanJob) -> Rendered:
        """Render a span."""
        damaged: list[tuple[int, int]] = []
        tiles = self._pixels(job, damaged)
        if job.nuclei:
            self._draw(job, tiles)
        for tile in job.damaged:
            self._hatch(job, tiles, tile.core)
        return Rendered(finish(tiles, self.side, self.encode, self.last), damaged)

    def _pixels(self, job: SpanJob, damaged: list[tuple[int, int]]) -> list[Pixels]:
        """Return the pixels of each tile; neighbours without pixels are read from the slide together."""
        tiles: list[Pixels] = []
        while len(tiles) < len(job.pixels):
            known = job.pixels[len(tiles)]
            if known is not None:
                tiles.append(known)
                continue
            end = next((n for n in range(len(tiles), len(job.pixels)) if job.pixels[n] is not None), len(job.pixels))
            stretch = Region(
                job.region.x + len(tiles) * self.side, job.region.y, (end - len(tiles)) * self.side, job.region.height
            ).intersect(job.region)
            pixels = self._read(stretch, damaged)
            tiles.extend(pixels[:, left : left + self.side] for left in range(0, stretch.width, self.side))
        return tiles

    def _read(self, region: Region, damaged: list[tuple[int, int]]) -> Pixels:
        read = self.slide.read(region)
        if not read.damaged:
            return read.pixels
        # Once more, tile by tile: this says which tiles are damaged, and saves the others.
        pixels = np.empty_like(read.pixels)
        for row, column in self.grid.tiles_under(region):
            part = self.grid.core(row, column).intersect(region)
            read = self.slide.read(part)
            pixels[part.y - region.y : part.bottom - region.y, part.x - region.x : part.right - region.x] = read.pixels
            if read.damaged:
                damaged.append((row, column))
        return pixels

    def _draw(self, job: SpanJob, tiles: list[Pixels]) -> None:
        margin = self.painter.margin
        nuclei = nuclei_under(job.nuclei, job.region, margin, self.grid.bounds)
        for number, tile in enumerate(tiles):
            left = number * self.side
            under = nuclei[:, left : left + tile.shape[1] + 2 * margin]
            if under.any():
                # A copy: the pixels belong to a batch that others may still read.
                tiles[number] = np.array(tile, order="C")
                self.painter.paint(tiles[number], under)

    def _hatch(self, job: SpanJob, tiles: list[Pixels], core: Region) -> None:
        for number, tile in enumerate(tiles):
            region = Region(job.region.x + number * self.side, job.region.y, tile.shape[1], tile.shape[0])
            part = core.intersect(region)
            if part.area:
                tiles[number] = np.array(tile, order="C")
                inside = np.s_[part.y - region.y : part.bottom - region.y, part.x - region.x : part.right - region.x]
                hatch(tiles[number][inside], part)
