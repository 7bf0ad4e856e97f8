"""The fused run: load, filter and stitch joined in one process. Composes the stages; touches no pixel itself."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nuclei_segmentation.operators.filter.advice import check_scale, explain_overlap
from nuclei_segmentation.operators.filter.inference import Engine, open_engine
from nuclei_segmentation.operators.filter.map_check import MapCheck
from nuclei_segmentation.operators.filter.stage import infer
from nuclei_segmentation.operators.load.foreground import find_foreground
from nuclei_segmentation.operators.load.stage import load
from nuclei_segmentation.operators.segmentation.estimate import estimate, memory_needed
from nuclei_segmentation.operators.segmentation.journal import Journal
from nuclei_segmentation.operators.stitch.job import ImageJob, claim, outputs_to_add, provenance_of
from nuclei_segmentation.operators.stitch.result_folder import ResultFolder
from nuclei_segmentation.shared.batches import MapBatch
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.provenance import ModelProvenance
from nuclei_segmentation.shared.result import SegmentationResult
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.memory import check_memory
from nuclei_segmentation.shared.runtime.output_folder import JOURNAL
from nuclei_segmentation.shared.runtime.progress import Progress, duration
from nuclei_segmentation.shared.runtime.recorder import Recorder
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.environment import SHARD
from nuclei_segmentation.shared.settings.run_key import filter_key, load_key, stitch_key
from nuclei_segmentation.shared.slides import fingerprint, stat_of
from nuclei_segmentation.shared.slides.describe import log_slide
from nuclei_segmentation.shared.slides.inputs import find_input_slide, open_input_slide

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Progress:
    """How far the run is: tiles inferred, of these from an earlier run, and the share of the image that is written."""

    inferred: int = 0
    resumed: int = 0
    written: float = 0.0


def segment(settings: Settings) -> SegmentationResult | None:
    """Segment the slide in the input folder.

    Parameters
    ----------
    settings : Settings
        Of the run.

    Returns
    -------
    SegmentationResult or None
        What the run found; of a result that an earlier run finished, what its summary says, and None if it has none.

    Raises
    ------
    NucleiError
        One of its kinds; see `shared.errors`.
    """
    if settings.shard is not None:
        raise UsageError(
            f"segmentation processes the whole slide, not shard {settings.shard} of it: unset {SHARD} (or `shard` in "
            "config.yaml), or run load, filter and stitch, of which filter can be divided"
        )
    with Recorder() as recorder:
        path = find_input_slide(settings)
        before = stat_of(path)
        with open_input_slide(path, settings) as slide:
            log_slide(slide.info)
            with ResultFolder(settings.output_path) as folder:
                with open_engine(settings) as engine, writing(folder.path):
                    model = engine.info
                    check_scale(slide.info.mpp, model)
                    identity = fingerprint(path)
                    tiles = load_key(identity, settings)
                    key = stitch_key(filter_key(tiles, model.name, model.engine, model.identity, settings), settings)
                    made_by = ModelProvenance(model.name, model.engine, model.identity)
                    provenance = provenance_of(slide.info, identity, made_by, settings)
                    done: SegmentationResult | None = None
                    wanted: tuple[str, ...] = ()
                    if not claim(folder, key, provenance, settings, path):
                        done, wanted = outputs_to_add(folder, key, provenance, settings)
                        if done is None or not wanted:
                            folder.finish(keep_maps=settings.keep_maps)
                            return done
                    grid = TileGrid(slide.info.width, slide.info.height, settings.tile_size, settings.overlap)
                    check_memory(
                        lambda workers: memory_needed(slide, grid, engine, replace(settings, num_workers=workers)),
                        settings.num_workers,
                    )
                    with Progress(lambda: 0.0, lambda: "looking for tissue"):
                        found = find_foreground(slide, grid, settings)
                    job = ImageJob(
                        slide, grid, found.tiles, found.tissue, settings, folder, key, provenance, before, found.guessed
                    )
                    result = _run(job, engine, recorder, done, wanted)
                folder.finish(keep_maps=settings.keep_maps)
                return result


def _run(
    job: ImageJob, engine: Engine, recorder: Recorder, found: SegmentationResult | None, wanted: Sequence[str]
) -> SegmentationResult:
    """Make the result; or, where an image was found, the outputs that are wanted beside it."""
    slide, grid, foreground, settings = job.slide, job.grid, job.foreground, job.settings
    explain_overlap(grid, engine.info)
    shape = (grid.tile, grid.tile, len(engine.info.channels))
    check = MapCheck()
    with Journal(job.folder.work / JOURNAL, shape) as journal, WorkerPool(settings.num_workers) as pool:
        done = _Progress(resumed=len(journal))
        needs = estimate(slide, grid, foreground, engine, settings, journal, pool)
        log.info(
            "%d tiles of %d, %d with tissue%s: about %s with %d worker%s, %s",
            len(grid),
            grid.tile,
            len(foreground),
            f" ({done.resumed} already inferred)" if done.resumed else "",
            duration(needs.seconds),
            settings.num_workers,
            "s" if settings.num_workers > 1 else "",
            needs,
        )
        job.check_space(needs.disk if found is None else needs.scratch, journal.size)
        total = len(grid) * needs.write_seconds + len(foreground) * needs.infer_seconds or 1.0

        def fraction() -> float:
            written = done.written * len(grid) * needs.write_seconds
            return (written + done.inferred * needs.infer_seconds) / total

        def details() -> str:
            return f"{done.inferred} of {len(foreground)} tiles with tissue done"

        def written(tiles: int, of: int) -> None:
            done.written = tiles / of

        with Progress(fraction, details):
            tiles = load(slide, grid, foreground, pool, engine.info.batch)
            maps = _watched(infer(tiles, engine, journal, pool, check), done)
            if found is not None:
                nuclei = job.collect(maps, engine.info.channels, pool, written)
            else:
                result = job.write(maps, engine.info.channels, pool, written, needs.image)
        if found is not None:
            return job.publish_outputs(found, wanted, nuclei)
        with result:
            check.report(engine)
            return job.publish(result, recorder, pool.timer, resumed=done.resumed)


def _watched(maps: Iterator[MapBatch], done: _Progress) -> Iterator[MapBatch]:
    """Count the tiles that pass."""
    for batch in maps:
        done.inferred += len(batch)
        yield batch
