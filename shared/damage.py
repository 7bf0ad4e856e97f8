"""Damaged tiles: which could not be read, and how many of them a run tolerates."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence

from nuclei_segmentation.shared.errors import TooMuchDamage
from nuclei_segmentation.shared.geometry import Region, TileGrid

log = logging.getLogger(__name__)

LISTED = 20
"""Damaged tiles that the log lists one by one; the rest are only counted."""


class DamagedTiles:
    """Collects damaged tiles, and stops the run when there are too many.

    Parameters
    ----------
    grid : TileGrid
        The grid of the tiles.
    limit : float
        Share of the grid's tiles that may be damaged, from 0 to 1.
    """

    def __init__(self, grid: TileGrid, limit: float) -> None:
        self._grid, self._allowed = grid, math.floor(limit * len(grid))
        self._positions: set[tuple[int, int]] = set()

    def add(self, positions: Iterable[Sequence[int]]) -> None:
        """Add tiles by row and column; a tile that is added twice counts once.

        Raises
        ------
        TooMuchDamage
            More tiles are damaged than the limit allows.
        """
        self._positions.update((row, column) for row, column in positions)
        if len(self) > self._allowed:
            raise TooMuchDamage(
                f"{len(self)} of {len(self._grid)} tiles could not be read, `damaged.limit` allows {self._allowed}; "
                "copy the slide again, or raise the limit in config.yaml to get what can be read"
            )

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def cores(self) -> tuple[Region, ...]:
        """The tiles' cores, row by row."""
        return tuple(self._grid.core(row, column) for row, column in sorted(self._positions))


def list_damage(cores: Sequence[Region]) -> None:
    """Log where damaged tiles lie: one line each for the first `LISTED`, and the number of the others."""
    for core in cores[:LISTED]:
        log.warning(
            "could not be read, hatched: x %d to %d, y %d to %d", core.x, core.right - 1, core.y, core.bottom - 1
        )
    if (others := len(cores) - LISTED) > 0:
        log.warning("... and %d more tile%s", others, "s" if others > 1 else "")
