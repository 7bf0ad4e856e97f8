"""The batches that pass from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class TileBatch:
    """A batch of tiles, from load to filter.

    Attributes
    ----------
    tile_ids : numpy.ndarray
        (b,) int64; the tile ids.
    pixels : numpy.ndarray
        (b, T, T, 3) uint8 RGB. Beyond the border of the slide they are a reflection.
    damaged : numpy.ndarray
        (b,) bool; True for a tile of which some pixels could not be read. Those pixels are hatched, and the tile is not
        inferred.
    """

    tile_ids: npt.NDArray[np.int64]
    pixels: Pixels
    damaged: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tile_ids)


@dataclass(frozen=True, slots=True)
class MapBatch:
    """A batch of tiles with their maps, from filter to stitch.

    Attributes
    ----------
    tile_ids : numpy.ndarray
        (b,) int64; the tile ids.
    maps : numpy.ndarray
        (b, T, T, C) uint8. Channel 0 is the probability of nucleus times 255.
    tiles : TileBatch
        The tiles that the maps belong to.
    """

    tile_ids: npt.NDArray[np.int64]
    maps: Pixels
    tiles: TileBatch

    def __len__(self) -> int:
        return len(self.tile_ids)
