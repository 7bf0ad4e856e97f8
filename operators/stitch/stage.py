"""The stage stitch: slide and maps → one pyramidal TIFF.

Level 0 streams from the maps and the slide straight into the file; the reduced levels are made on the way, wait in a
spool file, and follow as further pages. Whatever the workers, batches and order of completion, the bytes are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.memory import ahead
from nuclei_segmentation.operators.stitch.mosaic import Mosaic
from nuclei_segmentation.operators.stitch.overlay import OverlayPainter
from nuclei_segmentation.operators.stitch.pyramid.levels import SIDE, Level, levels_of
from nuclei_segmentation.operators.stitch.pyramid.reduce import Reducer
from nuclei_segmentation.operators.stitch.pyramid.segments import Encoder, shared_tables
from nuclei_segmentation.operators.stitch.pyramid.segments import encode as encode_jpeg
from nuclei_segmentation.operators.stitch.pyramid.space import open_reserved, reserve
from nuclei_segmentation.operators.stitch.pyramid.spool import Spool
from nuclei_segmentation.operators.stitch.pyramid.tiff import PyramidFile
from nuclei_segmentation.operators.stitch.render import Rendered, Renderer
from nuclei_segmentation.shared.batches import MapBatch
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool, abandon
from nuclei_segmentation.shared.settings import JpegSettings, OverlaySettings
from nuclei_segmentation.shared.slides.slide import Slide


@dataclass(frozen=True, slots=True)
class StitchResult:
    """What was written.

    Attributes
    ----------
    nuclei_pixels : int
        Level-0 pixels that are nucleus.
    damaged : tuple of Region
        The parts of the slide that could not be read and are hatched: cores of the grid's tiles, row by row.
    bytes : int
        Size of the file.
    """

    nuclei_pixels: int
    damaged: tuple[Region, ...]
    bytes: int


def stitch(
    slide: Slide,
    grid: TileGrid,
    foreground: npt.NDArray[np.int32],
    masks: Iterator[MapBatch],
    target: Path,
    spool: Path,
    overlay: OverlaySettings,
    jpeg: JpegSettings,
    pool: WorkerPool,
    progress: Callable[[int, int], None],
    *,
    reserve_bytes: int = 0,
    side: int = SIDE,
    encode: Encoder | None = None,
) -> StitchResult:
    """Write a slide with its nuclei drawn in as a pyramidal TIFF.

    Parameters
    ----------
    slide : Slide
        The slide.
    grid : TileGrid
        The grid of the tiles that maps arrive for.
    foreground : numpy.ndarray
        (n, 2) int32, row and column of these tiles in row-major order.
    masks : Iterator of MapBatch
        Their maps: batches whose `tile_ids` run from 0 to n - 1. Drawn in the calling thread, no sooner than needed.
        The arrays of a batch must not be written to afterwards.
    target : pathlib.Path
        The file to write, in a folder of work.
    spool : pathlib.Path
        A scratch file of about a quarter of the target's size; it is removed at the end.
    overlay, jpeg : OverlaySettings, JpegSettings
        How nuclei are drawn and the file is compressed.
    pool : WorkerPool
        The workers.
    progress : callable
        Called in the calling thread with the tiles of level 0 that are done, and all.
    reserve_bytes : int, optional
        Bytes to reserve for the target, and a quarter of them for the spool, before the first byte is written. The
        target is cut to its true length at the end; it may also grow beyond.
    side : int, optional
        Side of the file's tiles, a multiple of 16.
    encode : Encoder or None, optional
        Makes segments from tiles; JPEG as `jpeg` says unless given. Tests give one without loss.

    Returns
    -------
    StitchResult

    Raises
    ------
    NoSpace
        The disk, or the quota, is full.
    OutputError
        The files cannot be written.

    Notes
    -----
    Whatever ends it early leaves the two files as they are, and no task behind that still reads the slide.
    """
    levels = levels_of(grid.width, grid.height, side)
    tables = shared_tables(jpeg) if encode is None else None
    encode = encode or partial(encode_jpeg, jpeg=jpeg)
    painter = OverlayPainter(overlay)
    mosaic = Mosaic(grid, foreground, masks, painter, levels[0])
    render = Renderer(slide, grid, painter, side, encode, last=len(levels) == 1)
    reserve(target, reserve_bytes)
    with Spool(spool, reserve_bytes // 4, len(levels)) as shelf, open_reserved(target, reserve_bytes) as file:
        pyramid = PyramidFile(file, levels, jpeg, slide.info.mpp, slide.info.icc, tables)
        reducer = Reducer(levels, encode, shelf, pool, ahead(pool.workers))
        base = _Base(mosaic, render, reducer, pool, levels[0], progress)
        try:
            pyramid.write(levels[0], base.segments())
            base.finish()
            reducer.finish()
        finally:
            base.close()
            reducer.close()
        for level in levels[1:]:
            pyramid.write(level, shelf.segments(level.number))
        size = file.truncate(file.tell())
    damaged = tuple(grid.core(row, column) for row, column in sorted(mosaic.damaged | base.damaged))
    return StitchResult(mosaic.nuclei_pixels, damaged, size)


class _Base:
    """Renders level 0: submits its spans, and hands over their segments in order."""

    def __init__(
        self,
        mosaic: Mosaic,
        render: Renderer,
        reducer: Reducer,
        pool: WorkerPool,
        level: Level,
        progress: Callable[[int, int], None],
    ) -> None:
        self._jobs = mosaic.jobs()
        self._render, self._reducer, self._pool, self._level, self._progress = render, reducer, pool, level, progress
        self._under_way: deque[Future[Rendered]] = deque()
        self.damaged: set[tuple[int, int]] = set()

    def segments(self) -> Iterator[bytes]:
        """Yield the segments of level 0; maps are drawn and spans submitted as far ahead as the memory allows."""
        done, total = 0, self._level.rows * self._level.columns
        limit = ahead(self._pool.workers)
        for row, span in self._level:
            while len(self._under_way) < limit and (job := next(self._jobs, None)) is not None:
                self._under_way.append(self._pool.submit("stitch", self._render, job))
            rendered = self._pool.result(self._under_way.popleft())
            self.damaged.update(rendered.damaged)
            self._reducer.put(0, row, span, rendered.encoded.half)
            yield from rendered.encoded.segments
            done += len(rendered.encoded.segments)
            self._progress(done, total)

    def finish(self) -> None:
        """Let the stream of maps end."""
        if next(self._jobs, None) is not None:
            raise AssertionError("a span was left over")

    def close(self) -> None:
        """Cancel what is queued and wait for what is running."""
        abandon(self._under_way)
