"""The fused run: load, filter and stitch joined in one process. Composes the stages; touches no pixel itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from nuclei_segmentation.operators.filter.advice import check_scale, explain_overlap
from nuclei_segmentation.operators.filter.count import NucleusCount
from nuclei_segmentation.operators.filter.inference import Engine, open_engine
from nuclei_segmentation.operators.filter.stage import infer
from nuclei_segmentation.operators.load.foreground import find_foreground
from nuclei_segmentation.operators.load.stage import DamageLimit, load
from nuclei_segmentation.operators.segmentation.estimate import estimate
from nuclei_segmentation.operators.segmentation.journal import Journal
from nuclei_segmentation.operators.stitch.job import ImageJob, claim
from nuclei_segmentation.operators.stitch.stage import StitchResult
from nuclei_segmentation.operators.stitch.summary import Outcome, summarise
from nuclei_segmentation.operators.stitch.workfolder import WorkFolder
from nuclei_segmentation.shared.batches import MapBatch
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.progress import Progress, duration
from nuclei_segmentation.shared.runtime.resources import MemoryPeak
from nuclei_segmentation.shared.runtime.stage_timer import StageTimer
from nuclei_segmentation.shared.runtime.summary import answer
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.environment import SHARD
from nuclei_segmentation.shared.settings.run_key import filter_key, load_key, stitch_key
from nuclei_segmentation.shared.slides import fingerprint, open_slide, stat_of
from nuclei_segmentation.shared.slides.describe import log_slide
from nuclei_segmentation.shared.slides.inputs import find_input_slide

log = logging.getLogger("nuclei")


@dataclass(slots=True)
class _Counts:
    """How far the run is."""

    inferred: int = 0
    resumed: int = 0
    nuclei: int = 0
    written: float = 0.0


def segment(settings: Settings) -> None:
    """Segment the slide in the input folder.

    Raises
    ------
    NucleiError
        One of its kinds; see `shared.errors`.
    """
    if settings.shard is not None:
        raise UsageError(
            f"segmentation does the whole slide, never shard {settings.shard} of it: unset {SHARD} (or `shard` in "
            "config.yaml), or run load, filter and stitch, of which filter can be divided"
        )
    start = time.perf_counter()
    path = find_input_slide(settings)
    before = stat_of(path)
    with open_slide(path) as slide:
        log_slide(slide.info)
        work = WorkFolder(settings.output_path)
        done = False
        try:
            with open_engine(settings) as engine, MemoryPeak() as memory:
                model = engine.info
                check_scale(slide.info.mpp, model)
                tiles = load_key(fingerprint(path), settings)
                key = stitch_key(filter_key(tiles, model.name, model.engine, model.identity, settings), settings)
                if not claim(work, key, settings, path):
                    done = True
                    return
                with writing(work.output):
                    grid = TileGrid(slide.info.width, slide.info.height, settings.tile_size, settings.overlap)
                    with Progress(lambda: 0.0, lambda: "looking for tissue"):
                        foreground, _ = find_foreground(slide, grid, settings)
                    job = ImageJob(slide, grid, foreground, settings, work, key, model.name, before)
                    result, counts, timer = _run(job, engine)
                    job.publish(result)
            done = True
        finally:
            work.close(remove=done)
    outcome = Outcome(
        info=slide.info,
        output=work.output,
        tiles=len(grid),
        foreground=len(foreground),
        resumed=counts.resumed,
        damaged=len(result.damaged),
        nuclei=counts.nuclei,
        shards=1,
        nuclei_pixels=result.nuclei_pixels,
        image_bytes=result.bytes,
        seconds=time.perf_counter() - start,
        peak_memory=memory.peak,
        workers=settings.num_workers,
    )
    answer(summarise(outcome, timer))


def _run(job: ImageJob, engine: Engine) -> tuple[StitchResult, _Counts, StageTimer]:
    slide, grid, foreground, settings = job.slide, job.grid, job.foreground, job.settings
    explain_overlap(grid, engine.info)
    shape = (grid.tile, grid.tile, len(engine.info.channels))
    nuclei = NucleusCount(grid, foreground, engine.info.channels)
    with Journal(job.work.path / "maps", shape) as journal, WorkerPool(settings.num_workers) as pool:
        counts = _Counts(resumed=len(journal))
        needs = estimate(slide, grid, foreground, engine, settings, journal, pool)
        log.info(
            "%d tiles of %d, %d with tissue%s: about %s with %d worker%s, %s",
            len(grid),
            grid.tile,
            len(foreground),
            f" ({counts.resumed} already inferred)" if counts.resumed else "",
            duration(needs.seconds),
            settings.num_workers,
            "s" if settings.num_workers > 1 else "",
            needs,
        )
        job.check_space(needs.disk, journal.size)
        total = len(grid) * needs.write_seconds + len(foreground) * needs.infer_seconds or 1.0

        def fraction() -> float:
            written = counts.written * len(grid) * needs.write_seconds
            return (written + counts.inferred * needs.infer_seconds) / total

        def details() -> str:
            return f"{counts.inferred} of {len(foreground)} tiles with tissue done"

        def written(done: int, of: int) -> None:
            counts.written = done / of

        with Progress(fraction, details):
            tiles = load(slide, grid, foreground, pool, engine.info.batch)
            limit = DamageLimit(settings.damaged.limit, len(grid))
            maps = _watched(infer(tiles, engine, journal, pool, nuclei), counts, limit)
            result = job.write(maps, pool, written, needs.image)
        counts.nuclei = nuclei.total
        return result, counts, pool.timer


def _watched(maps: Iterator[MapBatch], counts: _Counts, limit: DamageLimit) -> Iterator[MapBatch]:
    """Count what passes; stop as soon as more tiles are damaged than may be."""
    for batch in maps:
        counts.inferred += len(batch)
        limit.count(batch.tiles)
        yield batch
