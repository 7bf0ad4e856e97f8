"""What the stages hand to one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TileBatch:
    """Tiles on their way from load to filter.

    Attributes
    ----------
    tile_ids : numpy.ndarray
        (b,) int64; each tile's number among the foreground tiles.
    pixels : numpy.ndarray
        (b, T, T, 3) uint8 RGB; reflected beyond the slide's border.
    damaged : numpy.ndarray
        (b,) bool; tiles that could not be read. Their pixels are hatched where unreadable; they are not inferred.
    """

    tile_ids: npt.NDArray[np.int64]
    pixels: Pixels
    damaged: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tile_ids)


@dataclass(frozen=True, slots=True)
class MapBatch:
    """Tiles and their maps on their way from filter to stitch.

    Attributes
    ----------
    tile_ids : numpy.ndarray
        (b,) int64; each tile's number among the foreground tiles.
    maps : numpy.ndarray
        (b, T, T, C) uint8; channel 0 is the nucleus probability times 255.
    tiles : TileBatch
        The tiles that the maps belong to.
    """

    tile_ids: npt.NDArray[np.int64]
    maps: Pixels
    tiles: TileBatch

    def __len__(self) -> int:
        return len(self.tile_ids)
