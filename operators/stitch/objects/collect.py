"""Collects the nuclei of a slide as its maps arrive, tile by tile, and keeps them in a spool.

Blocks are searched by the workers, as soon as the maps under their windows are there. Their nuclei go into the spool in
the order of the blocks; those that were joined follow after the row of blocks that completes them. So labels, order and
bytes are the same whatever the number of workers and the size of the tiles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np

from nuclei_segmentation.operators.stitch.objects.find import BlockJob, BlockNuclei, NucleusFinder
from nuclei_segmentation.operators.stitch.objects.join import JoinedNucleus, Joiner
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.operators.stitch.objects.outline import border_pixels
from nuclei_segmentation.operators.stitch.objects.spool import NucleusSpool
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool, abandon

STAGE = "stitch"
_JOINED_AT_ONCE = 1000


class NucleusCollector(Closing):
    """Finds the nuclei in maps that arrive in row-major order of their tiles.

    Parameters
    ----------
    find : NucleusFinder
        Finds the nuclei of a block.
    spool : NucleusSpool
        Takes them.
    pool : WorkerPool
        The workers.

    Attributes
    ----------
    left_out : int
        Nuclei so far that were too small.
    """

    def __init__(self, find: NucleusFinder, spool: NucleusSpool, pool: WorkerPool) -> None:
        self._find, self._spool, self._pool = find, spool, pool
        self._blocks, self._grid = find.blocks, find.describe.grid
        self._joiner = Joiner()
        self._tiles: dict[int, dict[int, tuple[Region, Pixels]]] = {}  # by row and column
        self._damaged: dict[int, dict[int, Region]] = {}
        self._tile_row = self._row = 0
        self._searched: deque[Future[BlockNuclei] | int] = deque()  # a number ends a row of blocks
        self._joined: deque[Future[tuple[Nuclei, int]]] = deque()
        self.left_out = 0

    @property
    def too_large(self) -> int:
        """Nuclei so far that were too large."""
        return self._joiner.too_large

    def add(self, row: int, core: Region, maps: Pixels | None, *, damaged: bool = False) -> None:
        """Add a tile.

        Parameters
        ----------
        row : int
            Its row.
        core : Region
            Its core.
        maps : numpy.ndarray or None
            (C, h, w) uint8, the maps of its core; None if there is no nucleus.
        damaged : bool, optional
            Whether it could not be read.
        """
        if row > self._tile_row:
            self._search(self._grid.core(row, 0).y)
            self._tile_row = row
        if damaged:
            self._damaged.setdefault(row, {})[self._grid.column_of(core.x)] = core
        elif maps is not None:
            self._tiles.setdefault(row, {})[self._grid.column_of(core.x)] = core, maps

    def finish(self) -> None:
        """Wait until all nuclei are in the spool."""
        self._search(self._grid.height)
        self._tiles.clear()
        self._damaged.clear()
        self._take(0)
        self._describe(self._joiner.complete(self._blocks.rows))
        self._keep_joined()

    def close(self) -> None:
        """End what is under way: the caller may close what it reads."""
        abandon([future for future in self._searched if isinstance(future, Future)])
        abandon(self._joined)

    def _search(self, bottom: int) -> None:
        """Search the blocks whose windows end above a row of pixels."""
        while self._row < self._blocks.rows and self._blocks.window(self._row, 0).bottom <= bottom:
            for column in range(self._blocks.columns if self._tiles else 0):
                places = list(self._grid.tiles_under(self._blocks.window(self._row, column)))
                tiles = [self._tiles[row][at] for row, at in places if at in self._tiles.get(row, ())]
                if tiles:
                    damaged = [self._damaged[row][at] for row, at in places if at in self._damaged.get(row, ())]
                    job = BlockJob(self._row, column, tiles, damaged)
                    self._searched.append(self._pool.submit(STAGE, self._find, job))
                    self._take(2 * self._pool.workers)
            self._searched.append(self._row)
            self._row += 1
            self._forget()

    def _forget(self) -> None:
        """Drop the tiles that no later block looks at."""
        if self._row == self._blocks.rows:
            return
        top = self._blocks.window(self._row, 0).y
        for kept in (self._tiles, self._damaged):
            for row in [row for row in kept if self._grid.core(row, 0).bottom <= top]:
                del kept[row]

    def _take(self, ahead: int) -> None:
        """Take the results of blocks until at most some are under way."""
        while len(self._searched) > ahead or (self._searched and isinstance(self._searched[0], int)):
            first = self._searched.popleft()
            if isinstance(first, int):
                self._keep_joined()
                self._describe(self._joiner.complete(first))
            else:
                found = self._pool.result(first)
                self._joiner.add(found)
                self._keep(found.inner, found.left_out)

    def _describe(self, joined: Sequence[JoinedNucleus]) -> None:
        for first in range(0, len(joined), _JOINED_AT_ONCE):
            part = joined[first : first + _JOINED_AT_ONCE]
            self._joined.append(self._pool.submit(STAGE, self._describe_joined, part))

    def _describe_joined(self, joined: Sequence[JoinedNucleus]) -> tuple[Nuclei, int]:
        borders = [
            border_pixels(nucleus.mask.astype(np.int32))[1][0] + np.array((nucleus.box.x, nucleus.box.y), np.int32)
            for nucleus in joined
        ]
        return self._find.describe(borders, np.stack([nucleus.sums for nucleus in joined]))

    def _keep_joined(self) -> None:
        while self._joined:
            self._keep(*self._pool.result(self._joined.popleft()))

    def _keep(self, nuclei: Nuclei, left_out: int) -> None:
        self._spool.add(nuclei)
        self.left_out += left_out
