"""The stage stitch: slide and maps → one pyramidal TIFF.

Level 0 streams from the maps and the slide straight into the file. The reduced levels are made at the same time, wait
in a spool file, and follow as further pages. The bytes depend neither on the number of workers, nor on the size of the
batches, nor on the order in which tasks finish.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.arrived import Examiner
from nuclei_segmentation.operators.stitch.memory import batches_ahead, spans_ahead
from nuclei_segmentation.operators.stitch.mosaic import Mosaic, SpanJob
from nuclei_segmentation.operators.stitch.overlay import OverlayPainter
from nuclei_segmentation.operators.stitch.pyramid.disk_space import open_reserved, reserve
from nuclei_segmentation.operators.stitch.pyramid.jpeg_segments import Encoder, encode_jpeg, shared_tables
from nuclei_segmentation.operators.stitch.pyramid.levels import SIDE, Level, levels_of
from nuclei_segmentation.operators.stitch.pyramid.reduced_levels import ReducedLevels
from nuclei_segmentation.operators.stitch.pyramid.spool import Spool
from nuclei_segmentation.operators.stitch.pyramid.tiff import PyramidFile
from nuclei_segmentation.operators.stitch.render import RenderedSpan, SpanRenderer
from nuclei_segmentation.shared.batches import MapBatch
from nuclei_segmentation.shared.damage import DamagedTiles
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool, abandon
from nuclei_segmentation.shared.settings import JpegSettings, OverlaySettings
from nuclei_segmentation.shared.slides.slide import Slide

if TYPE_CHECKING:  # most runs make no objects, and do without what they import
    from nuclei_segmentation.operators.stitch.objects.collect import NucleusCollector


@dataclass(frozen=True, slots=True)
class TiledSlide:
    """A slide, its grid, and the tiles that maps arrive for.

    Attributes
    ----------
    slide : Slide
        The slide.
    grid : TileGrid
        Its grid of tiles.
    foreground : numpy.ndarray
        (n, 2) int32, row and column of each foreground tile, in row-major order.
    """

    slide: Slide
    grid: TileGrid
    foreground: npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """The file to write, and how nuclei are drawn and pixels are compressed in it.

    Attributes
    ----------
    path : pathlib.Path
        The file to write, in the work folder.
    spool : pathlib.Path
        A scratch file of about a quarter of the image's size. It is removed at the end.
    overlay : OverlaySettings
        How nuclei are drawn.
    jpeg : JpegSettings
        How the TIFF tiles are compressed.
    reserve_bytes : int
        Bytes to reserve for the image, and a quarter of them for the spool, before the first byte is written. The
        image is cut to its true length at the end, and may also become larger than this.
    side : int
        Side of the TIFF tiles in pixels, a multiple of 16.
    encode : Encoder or None
        Makes segments from tiles; None for JPEG as `jpeg` says. Tests give a lossless one.
    """

    path: Path
    spool: Path
    overlay: OverlaySettings
    jpeg: JpegSettings
    reserve_bytes: int = 0
    side: int = SIDE
    encode: Encoder | None = None


@dataclass(frozen=True, slots=True)
class StitchResult:
    """What was written.

    Attributes
    ----------
    nuclei : int
        The nuclei in the maps.
    nuclei_pixels : int
        Level-0 pixels that are nucleus.
    damaged : tuple of Region
        The parts of the slide that could not be read and are hatched: cores of tiles, row by row.
    bytes : int
        Size of the file.
    """

    nuclei: int
    nuclei_pixels: int
    damaged: tuple[Region, ...]
    bytes: int


def stitch(
    source: TiledSlide,
    maps: Iterator[MapBatch],
    output: OutputSpec,
    pool: WorkerPool,
    progress: Callable[[int, int], None],
    *,
    channels: Sequence[str] = ("nucleus",),
    damage_limit: float = 1.0,
    collector: NucleusCollector | None = None,
) -> StitchResult:
    """Write a slide, with its nuclei drawn in, as a pyramidal TIFF.

    Parameters
    ----------
    source : TiledSlide
        The slide and its tiles.
    maps : Iterator of MapBatch
        The maps of the foreground tiles: batches whose `tile_ids` run from 0 to n - 1. They are taken in the calling
        thread, a few batches before they are needed. The arrays of a batch must not be written to afterwards.
    output : OutputSpec
        The file to write.
    pool : WorkerPool
        The workers.
    progress : callable
        Called in the calling thread with the number of finished TIFF tiles of level 0, and of all.
    channels : Sequence of str, optional
        Names of the maps. They decide how touching nuclei are told apart; see `shared.nuclei`.
    damage_limit : float, optional
        Share of the grid's tiles that may be damaged, from 0 to 1.
    collector : NucleusCollector or None, optional
        Makes nuclei objects; it has all of them at the end.

    Returns
    -------
    StitchResult
        What was written.

    Raises
    ------
    TooMuchDamage
        More tiles are damaged than the limit allows.
    NoSpace
        The disk, or the quota, is full.
    OutputError
        The files cannot be written.

    Notes
    -----
    When it ends early, for whatever reason, it leaves both files as they are. No task that reads the slide outlives it.
    """
    slide, grid, jpeg = source.slide, source.grid, output.jpeg
    levels = levels_of(grid.width, grid.height, output.side)
    tables = shared_tables(jpeg) if output.encode is None else None
    encode = output.encode or partial(encode_jpeg, jpeg=jpeg)
    painter = OverlayPainter(output.overlay)
    damaged = DamagedTiles(grid, damage_limit)
    # If the TIFF tiles are the grid's tiles, the pixels that were inferred are those to write: none is read again.
    same_tiles = grid.tile == output.side and grid.overlap == 0
    examine = Examiner(grid, source.foreground, channels, painter, same_tiles, keeps_maps=collector is not None)
    mosaic = Mosaic(grid, source.foreground, examine, levels[0], damaged, collector)
    render = SpanRenderer(slide, grid, painter, output.side, encode, coarsest=len(levels) == 1)
    reserve(output.path, output.reserve_bytes)
    with (
        Spool(output.spool, output.reserve_bytes // 4, len(levels)) as spool,
        open_reserved(output.path, output.reserve_bytes) as file,
    ):
        pyramid = PyramidFile(file, levels, jpeg, slide.info.mpp, slide.info.icc, tables)
        reduced = ReducedLevels(levels, encode, spool, pool, spans_ahead(pool.workers))
        jobs = mosaic.jobs(maps, pool)
        segments = _level_0(levels[0], jobs, render, reduced, pool, damaged, progress)
        try:
            pyramid.write(levels[0], segments)
            # Asking once more lets the stream of maps do what it does at its end.
            if next(jobs, None) is not None:
                raise AssertionError("a span was not rendered")
            if collector is not None:
                collector.finish()
            reduced.finish()
        finally:
            segments.close()
            reduced.close()
        for level in levels[1:]:
            pyramid.write(level, spool.segments(level.number))
        size = file.truncate(file.tell())
        pyramid.finish()
    return StitchResult(mosaic.nuclei.total, mosaic.nuclei_pixels, damaged.cores, size)


def collect(
    source: TiledSlide,
    maps: Iterator[MapBatch],
    collector: NucleusCollector,
    channels: Sequence[str],
    overlay: OverlaySettings,
    pool: WorkerPool,
) -> Iterator[int]:
    """Make nuclei objects without writing an image.

    Parameters
    ----------
    source : TiledSlide
        The slide and its tiles.
    maps : Iterator of MapBatch
        The maps of the foreground tiles, as for `stitch`.
    collector : NucleusCollector
        Has all nuclei at the end.
    channels : Sequence of str
        Names of the maps.
    overlay : OverlaySettings
        Say which pixels are nucleus.
    pool : WorkerPool
        The workers.

    Yields
    ------
    int
        The number of tiles whose maps have arrived.
    """
    examine = Examiner(source.grid, source.foreground, channels, OverlayPainter(overlay), False, keeps_maps=True)
    received = 0
    for tiles in pool.map("stitch", examine, maps, ahead=batches_ahead(pool.workers)):
        rows = source.foreground[received : received + len(tiles), 0].tolist()
        for tile, row in zip(tiles, rows, strict=True):
            collector.add(row, tile.core, tile.maps, damaged=tile.damaged)
        received += len(tiles)
        yield received
    if received != len(source.foreground):
        raise NucleiError(f"internal error: maps ended after {received} of {len(source.foreground)} tiles")
    collector.finish()


def _level_0(
    level: Level,
    jobs: Iterator[SpanJob],
    render: SpanRenderer,
    reduced: ReducedLevels,
    pool: WorkerPool,
    damaged: DamagedTiles,
    progress: Callable[[int, int], None],
) -> Generator[bytes, None, None]:
    """Yield the segments of level 0. Spans are submitted as far ahead as the memory allows, and rendered by workers."""
    done, total = 0, level.rows * level.columns
    limit = spans_ahead(pool.workers)
    under_way: deque[Future[RenderedSpan]] = deque()
    try:
        for row, span in level:
            while len(under_way) < limit and (job := next(jobs, None)) is not None:
                under_way.append(pool.submit("stitch", render, job))
            rendered = pool.result(under_way.popleft())
            damaged.add(rendered.damaged)
            reduced.put(level.number, row, span, rendered.encoded.half)
            yield from rendered.encoded.segments
            done += len(rendered.encoded.segments)
            progress(done, total)
    finally:
        abandon(under_way)
