"""The output ``labels``: an image in which each pixel of a nucleus has the number of the nucleus, and all others 0."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader
from nuclei_segmentation.operators.stitch.outputs.label_file import LabelFile, encode_tile
from nuclei_segmentation.operators.stitch.outputs.label_steps import Steps, TileKey, differences, steps_by_tile
from nuclei_segmentation.operators.stitch.outputs.new_file import NewFile
from nuclei_segmentation.operators.stitch.outputs.writer import Writer
from nuclei_segmentation.operators.stitch.pyramid.levels import levels_of
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool, abandon

SIDE = 512
"""Side of a TIFF tile in pixels, a power of two."""

_AHEAD = 4  # tiles under way for each worker


@dataclass(frozen=True, slots=True)
class EncodedLabels:
    """A chunk's part of the image.

    Attributes
    ----------
    tiles : list of (TileKey, numpy.ndarray)
        The steps of its nuclei by tile; a tile may be listed several times.
    horizon : int
        No nucleus of a later chunk has a pixel above this row of level-0 pixels.
    """

    tiles: list[tuple[TileKey, Steps]]
    horizon: int


class LabelsWriter(Writer[EncodedLabels]):
    """Writes ``nuclei-labels.ome.tif``: a pyramid of uint32, whose reduced levels are every second pixel of the finer.

    A tile is painted and compressed once no later nucleus can touch its row. Until then only the steps of its nuclei
    are kept, half a kilobyte for each nucleus and level; so the memory depends on how many nuclei lie beside one
    another, not on how many there are.

    Parameters
    ----------
    path : pathlib.Path
        The file, in a work folder. What is there is lost.
    header : NucleiHeader
        Of the slide.
    pool : WorkerPool
        The workers, which paint and compress the tiles.
    side : int, optional
        Side of a tile in pixels, a power of two.
    """

    def __init__(self, path: Path, header: NucleiHeader, pool: WorkerPool, side: int = SIDE) -> None:
        self._pool = pool
        self._levels = levels_of(header.width, header.height, side)
        self._file = NewFile(path)
        self._tiff = LabelFile(self._file, self._levels, header.mpp)
        self._pending: dict[tuple[int, int], dict[int, list[Steps]]] = {}
        """Steps by (level, row of tiles) and column."""
        # A row of tiles is complete below its last level-0 row. Sorted by that, the order of the tiles in the file is
        # the same however the nuclei come.
        ends = (
            ((row + 1) * side << level.number, level.number, row) for level in self._levels for row in range(level.rows)
        )
        self._open = deque(sorted(ends))
        self._under_way: deque[tuple[TileKey, Future[bytes]]] = deque()

    def encode(self, nuclei: Nuclei) -> EncodedLabels:
        """Return where a chunk's nuclei begin and end in each row of pixels."""
        return EncodedLabels(list(steps_by_tile(nuclei, self._levels)), nuclei.horizon)

    def append(self, encoded: EncodedLabels) -> None:
        """Take the next chunk, and write the tiles that it completes."""
        for tile, steps in encoded.tiles:
            self._pending.setdefault((tile.level, tile.row), {}).setdefault(tile.column, []).append(steps)
        self._complete(encoded.horizon)

    def finish(self) -> None:
        """Write the last tiles, and the directories."""
        self._complete(None)
        if self._pending:
            raise AssertionError("a nucleus lies above the horizon")
        self._write(0)
        self._tiff.finish()
        self._file.finish()

    def close(self) -> None:
        """Close the file. Tiles that are not painted yet are given up."""
        abandon(future for _, future in self._under_way)
        self._under_way.clear()
        self._file.close()

    def _complete(self, horizon: int | None) -> None:
        """Let the workers paint the rows of tiles above the horizon; all rows for None."""
        paint = partial(_paint, self._levels[0].side)
        while self._open and (horizon is None or self._open[0][0] <= horizon):
            _, level, row = self._open.popleft()
            for column, steps in sorted(self._pending.pop((level, row), {}).items()):
                self._under_way.append((TileKey(level, row, column), self._pool.submit("stitch", paint, steps)))
                self._write(_AHEAD * self._pool.workers)

    def _write(self, ahead: int) -> None:
        """Write painted tiles in the order of their submission; wait while more than `ahead` are under way."""
        while self._under_way and (len(self._under_way) > ahead or self._under_way[0][1].done()):
            tile, future = self._under_way.popleft()
            self._tiff.write(self._levels[tile.level], tile.row, tile.column, self._pool.result(future))


def _paint(side: int, steps: list[Steps]) -> bytes:
    return encode_tile(differences(np.concatenate(steps), side))
