"""What is kept of a tile whose maps have arrived: its nuclei, one bit a pixel, and the pieces to be counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.count import CorePieces, find_pieces
from nuclei_segmentation.operators.stitch.overlay import OverlayPainter
from nuclei_segmentation.shared.batches import MapBatch, Pixels
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.nuclei import channel


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
    nuclei_pixels : int
        How many pixels of the core are nucleus.
    pieces : CorePieces or None
        What is counted as nuclei; None if there is nothing to count.
    maps : numpy.ndarray or None
        (C, core's height, core's width) uint8, the maps of the core; None if there are no nuclei, or nobody needs them.
    """

    core: Region
    nuclei: Pixels | None
    pixels: Pixels | None
    damaged: bool
    nuclei_pixels: int = 0
    pieces: CorePieces | None = None
    maps: Pixels | None = None


@dataclass(frozen=True, slots=True)
class Examiner:
    """Makes of a batch of maps what is kept of it; may be called by several threads at once.

    Attributes
    ----------
    grid : TileGrid
        The grid of the tiles.
    foreground : numpy.ndarray
        (n, 2) int32, row and column of the tiles that maps arrive for.
    channels : Sequence of str
        Names of the maps.
    painter : OverlayPainter
        Says which pixels are nucleus.
    keeps_pixels : bool
        Whether the image is made from the pixels that were inferred; otherwise they are read from the slide again.
    keeps_maps : bool
        Whether nuclei become objects, which the maps are needed for.
    """

    grid: TileGrid
    foreground: npt.NDArray[np.int32]
    channels: Sequence[str]
    painter: OverlayPainter
    keeps_pixels: bool
    keeps_maps: bool = False

    def __call__(self, batch: MapBatch) -> list[ArrivedTile]:
        """Return what is kept of the tiles of a batch, in their order."""
        positions = self.foreground[batch.tile_ids].tolist()
        return [self._tile(batch, number, row, column) for number, (row, column) in enumerate(positions)]

    def _tile(self, batch: MapBatch, number: int, row: int, column: int) -> ArrivedTile:
        core, region = self.grid.core(row, column), self.grid.region(row, column)
        inside = np.s_[core.y - region.y : core.bottom - region.y, core.x - region.x : core.right - region.x]
        pixels = batch.tiles.pixels[number][inside] if self.keeps_pixels else None
        tile = ArrivedTile(core, None, pixels, bool(batch.tiles.damaged[number]))
        maps = batch.maps[number]
        # Most tiles of a slide have maps of zeros only, which this finds in a few microseconds.
        if tile.damaged or not cv2.hasNonZero(maps.reshape(len(maps), -1)):
            return tile
        maps = maps[inside]
        nuclei = self.painter.nuclei(channel(maps, 0))
        tile.nuclei_pixels = int(np.count_nonzero(nuclei))
        if tile.nuclei_pixels:
            tile.nuclei = np.packbits(nuclei, axis=1)
            if self.keeps_maps:
                # A copy: the batch holds the maps of other tiles.
                tile.maps = np.stack([channel(maps, number) for number in range(maps.shape[2])])
        tile.pieces = find_pieces(maps, self.channels, self.painter.threshold)
        return tile
