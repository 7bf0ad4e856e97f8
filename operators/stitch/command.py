"""The command stitch: slide, tile store and map store → image.tif and its two files."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from nuclei_segmentation.operators.stitch.estimate import estimate_image
from nuclei_segmentation.operators.stitch.job import ImageJob, WrittenResult, claim, outputs_to_add, provenance_of
from nuclei_segmentation.operators.stitch.memory import memory_needed
from nuclei_segmentation.operators.stitch.objects.memory import disk_needed as nuclei_disk
from nuclei_segmentation.operators.stitch.objects.memory import finding_memory, writing_memory
from nuclei_segmentation.operators.stitch.pyramid.levels import SIDE
from nuclei_segmentation.operators.stitch.result_folder import ResultFolder
from nuclei_segmentation.shared.batches import MapBatch, TileBatch
from nuclei_segmentation.shared.provenance import ModelProvenance, Provenance
from nuclei_segmentation.shared.result import SegmentationResult
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.memory import check_memory
from nuclei_segmentation.shared.runtime.progress import Progress, duration
from nuclei_segmentation.shared.runtime.recorder import Recorder
from nuclei_segmentation.shared.runtime.resources import MIB, human
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import MaskSettings, Settings
from nuclei_segmentation.shared.settings.run_key import stitch_key
from nuclei_segmentation.shared.slides import SlideInfo, fingerprint, stat_of
from nuclei_segmentation.shared.slides.describe import log_slide
from nuclei_segmentation.shared.slides.inputs import find_input_slide, open_input_slide
from nuclei_segmentation.shared.store import (
    Manifest,
    ShardedReader,
    ShardSet,
    StoreReader,
    find_store,
    refuse_as_output,
    release_shared_memory,
)
from nuclei_segmentation.shared.store.manifest import is_complete

log = logging.getLogger(__name__)

READ = "load"
"""Reading stores is booked to load."""
BATCH_BYTES = 2 << 20
BASE_MEMORY = 150 * MIB
"""Interpreter and libraries."""


def run(settings: Settings) -> SegmentationResult | None:
    """Draw the maps of a store into its slide.

    Parameters
    ----------
    settings : Settings
        Of the stage.

    Returns
    -------
    SegmentationResult or None
        What the run found; of a result that an earlier run finished, what its summary says, and None if it has none.

    Raises
    ------
    NucleiError
        One of its kinds; see `shared.errors`.
    """
    with Recorder() as recorder:
        path = find_input_slide(settings)
        before = stat_of(path)
        wait_limit = WaitLimit(settings.wait.limit)
        with open_input_slide(path, settings) as slide:
            log_slide(slide.info)
            identity = fingerprint(path)
            with ResultFolder(settings.output_path) as folder:
                at, tiles = find_store(
                    settings, "tiles", wait_limit, lambda it: _of_slide(it, identity, slide.info, settings)
                )
                refuse_as_output(at, "tiles", settings.output_path)
                masks = ShardSet(settings, wait_limit, lambda it: _of_tiles(it, tiles))
                for store in masks.folders:
                    refuse_as_output(store, "masks", settings.output_path)
                key = stitch_key(masks.manifest.key, settings)
                provenance = _provenance(slide.info, identity, tiles, masks.manifest, settings)
                done: SegmentationResult | None = None
                wanted: tuple[str, ...] = ()
                if not claim(folder, key, provenance, settings, path, at):
                    done, wanted = outputs_to_add(folder, key, provenance, settings)
                    if done is None or not wanted:
                        folder.finish()
                        masks.look()
                        if is_complete(at, tiles) and masks.complete:  # else another process still works on them
                            _free(settings, tiles, *masks.manifests)
                        return done
                with (
                    writing(folder.path),
                    StoreReader(at, tiles, wait_limit, settings.fastio) as first,
                    ShardedReader(masks, wait_limit, settings.fastio) as second,
                    WorkerPool(settings.num_workers) as pool,  # it ends first: nobody may read a store that is closed
                ):
                    tissue, guessed = (
                        first.small(name) if name in tiles.arrays else None for name in ("tissue", "guessed")
                    )
                    job = ImageJob(
                        slide,
                        tiles.grid,
                        first.tile_positions,
                        tissue,
                        settings,
                        folder,
                        key,
                        provenance,
                        before,
                        guessed,
                        (at,),
                    )
                    stores = _Stores(first, second)
                    if done is not None:
                        result = _add_outputs(job, done, wanted, stores, masks.manifest, pool)
                    else:
                        with _run(job, stores, masks.manifest, pool) as written:
                            first.wait_until_complete()
                            second.wait_until_complete()
                            result = job.publish(
                                written,
                                recorder,
                                pool.timer,
                                shards=masks.count,
                                waited=wait_limit.waited,
                            )
                folder.finish()
        _free(settings, tiles, *masks.manifests)
        return result


def _provenance(info: SlideInfo, fingerprint: str, tiles: Manifest, maps: Manifest, settings: Settings) -> Provenance:
    """Return what the image is made from: tiles and maps were made with settings of their own."""
    assert maps.model is not None
    model = ModelProvenance(maps.model.name, maps.model.engine, maps.model.identity)
    settings = replace(
        settings,
        tile_size=tiles.tile,
        overlap=tiles.overlap,
        mask=MaskSettings("none" if tiles.mask == "none" else "tissue"),
        model_name=model.name,
    )
    return provenance_of(info, fingerprint, model, settings)


@dataclass(frozen=True, slots=True)
class _Stores:
    """Tiles and their maps, read together."""

    tiles: StoreReader
    masks: ShardedReader

    def batches(self, pool: WorkerPool) -> Iterator[MapBatch]:
        """Yield all maps in order, with their tiles' pixels where the image takes them from there."""
        manifest = self.tiles.manifest
        side = manifest.tile
        same = side == SIDE and manifest.overlap == 0  # else the image's tiles are read from the slide

        def read(span: tuple[int, int]) -> MapBatch:
            tile_ids = np.arange(*span, dtype=np.int64)
            maps, not_inferred = self.masks.read(*span)
            if same:
                pixels, damaged = self.tiles.read(*span)
            else:
                pixels, damaged = np.empty((len(tile_ids), 0, 0, 3), np.uint8), self.tiles.damaged(*span)
            return MapBatch(tile_ids, maps, TileBatch(tile_ids, pixels, damaged | not_inferred))

        def spans() -> Iterator[tuple[int, int]]:
            for span in self.masks.ranges(max(1, BATCH_BYTES // (side * side * 3))):
                self.tiles.wait_for(*span)
                yield span

        return pool.map(READ, read, spans(), ahead=2 * pool.workers)


def _free(settings: Settings, *stores: Manifest) -> None:
    """Give back what lies in shared memory: it has served."""
    for store in stores:
        release_shared_memory(store, settings.fastio)


def _of_slide(tiles: Manifest, identity: str, info: SlideInfo, settings: Settings) -> str:
    there = tiles.slide
    if (there.fingerprint, there.width, there.height) == (identity, info.width, info.height):
        for name, made_with, here in (
            ("channel", there.channel, settings.channel),
            ("plane", there.plane, settings.plane),
        ):
            if made_with != here:
                return (
                    f"load made it with `{name}: {made_with}`, stitch has `{name}: {here}`; give both one config.yaml"
                )
        return ""
    return f"it is of another slide, {there.name}, not of the {info.path.name} that is given here"


def _of_tiles(masks: Manifest, tiles: Manifest) -> str:
    same = (masks.source, masks.total, masks.grid) == (tiles.key, tiles.n, tiles.grid)
    return "" if same else "it was made from another tile store than the one given here"


def _add_outputs(
    job: ImageJob,
    done: SegmentationResult,
    wanted: Sequence[str],
    stores: _Stores,
    masks: Manifest,
    pool: WorkerPool,
) -> SegmentationResult:
    """Make outputs beside an image that is finished already."""
    share = 0.0

    def arrived(tiles: int, of: int) -> None:
        nonlocal share
        share = tiles / of

    check_memory(partial(_memory, job, len(masks.arrays["masks"].channels)), pool.workers)
    job.check_space(nuclei_disk(stores.tiles.manifest.n * job.grid.stride**2))
    with Progress(lambda: share, lambda: "looking for nuclei"):
        nuclei = job.collect(stores.batches(pool), masks.arrays["masks"].channels, pool, arrived)
    return job.publish_outputs(done, wanted, nuclei)


def _memory(job: ImageJob, channels: int, workers: int) -> int:
    """Return the most bytes of anonymous memory that the stage takes."""
    grid = job.grid
    batch = 2 * workers * BATCH_BYTES // 3 * (3 + channels)
    work = memory_needed(grid.width, grid.tile, workers, channels=channels) + batch
    if job.settings.outputs:
        finding = finding_memory(grid.width, grid.height, grid.tile, workers, channels)
        work = max(work + finding, writing_memory(grid.width, grid.height, workers))
    return BASE_MEMORY + job.slide.cache_bytes + work


def _run(job: ImageJob, stores: _Stores, masks: Manifest, pool: WorkerPool) -> WrittenResult:
    grid, tiles = job.grid, stores.tiles.manifest
    channels = masks.arrays["masks"].channels
    memory = partial(_memory, job, len(channels))
    check_memory(memory, pool.workers)
    needs = estimate_image(job.slide, grid, job.foreground, job.settings.jpeg, pool)
    disk = needs.image + needs.spool
    if job.settings.outputs:
        disk += nuclei_disk(tiles.n * grid.stride**2)
    log.info(
        "%d tiles of %d, %d with maps: about %s with %d worker%s, at most %s of memory and %s of disk",
        len(grid),
        grid.tile,
        tiles.n,
        duration(len(grid) * needs.tile_seconds / pool.workers),
        pool.workers,
        "s" if pool.workers > 1 else "",
        human(memory(pool.workers)),
        human(disk),
    )
    job.check_space(disk)
    share = 0.0

    def written(done: int, of: int) -> None:
        nonlocal share
        share = done / of

    def details() -> str:
        return f"{stores.masks.count} of {tiles.n} tiles with maps there"

    with Progress(lambda: share, details):
        return job.write(stores.batches(pool), channels, pool, written, needs.image)
