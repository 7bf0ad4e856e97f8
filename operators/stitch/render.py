"""Renders a span of level 0: pixels, overlay, hatching, segments. Runs in worker threads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nuclei_segmentation.operators.stitch.mosaic import SpanJob, nuclei_under
from nuclei_segmentation.operators.stitch.overlay import OverlayPainter
from nuclei_segmentation.operators.stitch.pyramid.jpeg_segments import Encoder
from nuclei_segmentation.operators.stitch.pyramid.spans import EncodedSpan, encode_span
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.slides.hatching import hatch
from nuclei_segmentation.shared.slides.slide import Slide


@dataclass(frozen=True, slots=True)
class RenderedSpan:
    """A rendered span of level 0.

    Attributes
    ----------
    encoded : EncodedSpan
        Its segments, and the span at half size.
    damaged : list of tuple of int
        Row and column of the grid's tiles in which pixels could not be read while rendering.
    """

    encoded: EncodedSpan
    damaged: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class SpanRenderer:
    """Renders spans of level 0; may be called by several threads at once.

    Attributes
    ----------
    slide : Slide
        The slide, read where no tile brought its pixels along.
    grid : TileGrid
        The grid of tiles, by which damage is counted.
    painter : OverlayPainter
        Draws the nuclei.
    side : int
        Side of the TIFF tiles in pixels.
    encode : Encoder
        Makes segments.
    coarsest : bool
        Whether level 0 is the only level.
    """

    slide: Slide
    grid: TileGrid
    painter: OverlayPainter
    side: int
    encode: Encoder
    coarsest: bool

    def __call__(self, job: SpanJob) -> RenderedSpan:
        """Render a span."""
        damaged: list[tuple[int, int]] = []
        tiles = self._pixels(job, damaged)
        if job.nuclei:
            self._draw(job, tiles)
        for tile in job.damaged:
            self._hatch(job, tiles, tile.core)
        return RenderedSpan(encode_span(tiles, self.side, self.encode, coarsest=self.coarsest), damaged)

    def _pixels(self, job: SpanJob, damaged: list[tuple[int, int]]) -> list[Pixels]:
        """Return the pixels of each TIFF tile; adjacent tiles without pixels are read from the slide in one call."""
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
        # Read again, tile by tile: this shows which tiles are damaged, and keeps the others.
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
