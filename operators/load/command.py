"""The command load: reads a slide and writes a tile store."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.load.foreground import find_foreground, mask_memory
from nuclei_segmentation.operators.load.stage import load
from nuclei_segmentation.shared.batches import TileBatch
from nuclei_segmentation.shared.clara.render_config import RENDER, find_render_config, take_over
from nuclei_segmentation.shared.damage import DamagedTiles
from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.guesses import warn_of_guesses
from nuclei_segmentation.shared.runtime.memory import LIBRARIES, check_memory
from nuclei_segmentation.shared.runtime.progress import Progress
from nuclei_segmentation.shared.runtime.resources import MemoryPeak, human
from nuclei_segmentation.shared.runtime.summary import named_lines, print_summary, time_lines
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.scale import describe_scale
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.run_key import load_key
from nuclei_segmentation.shared.slides import Slide, SlideInfo, fingerprint, stat_of
from nuclei_segmentation.shared.slides.describe import log_slide
from nuclei_segmentation.shared.slides.inputs import find_input_slide, open_input_slide
from nuclei_segmentation.shared.store import ArrayMetadata, Manifest, SlideMetadata, StoreFolder, StoreWriter
from nuclei_segmentation.shared.store.ledger import DAMAGED

log = logging.getLogger(__name__)

BATCH_BYTES = 2 << 20
"""Bytes of tiles in a batch: many enough to spread the cost of a call, few enough to stay in the processor's caches."""


def run(settings: Settings) -> None:
    """Read the foreground tiles of a slide into a tile store.

    Raises
    ------
    NucleiError
        Any of its subclasses; see `shared.errors`.
    """
    start = time.perf_counter()
    path = find_input_slide(settings)
    before = stat_of(path)
    with open_input_slide(path, settings) as slide, StoreFolder(settings.output_path) as folder, MemoryPeak() as memory:
        info = slide.info
        log_slide(info)
        slide_metadata = _slide_metadata(info, fingerprint(path), settings)
        key = load_key(slide_metadata.fingerprint, settings)
        log.debug("key of the tile store: %s", key)
        files = _files_to_copy(path)
        manifest = Manifest(
            kind="tiles",
            generation="",
            run=settings.run_id,
            key=key,
            source="",
            slide=slide_metadata,
            tile=settings.tile_size,
            overlap=settings.overlap,
            n=0,  # not known yet
            mask=settings.mask.method,
        )
        if not folder.claim(
            "tiles",
            key,
            settings.run_id,
            overwrite=settings.overwrite,
            files=files,
            made_from=manifest.made_from(),
        ):
            log.info("already done: %s holds the tiles of this slide with the same settings", folder.path)
            return
        grid = TileGrid(info.width, info.height, settings.tile_size, settings.overlap)
        check_memory(lambda workers: _memory_needed(slide, grid, settings, workers), settings.num_workers)
        with Progress(lambda: 0.0, lambda: "looking for tissue"):
            found = find_foreground(slide, grid, settings)
        foreground = found.tiles
        warn_of_guesses(found.guessed, grid)
        n, shape = len(foreground), (max(1, len(foreground)), grid.tile, grid.tile, 3)
        manifest = replace(manifest, n=n, arrays={"tiles": ArrayMetadata("", shape, "uint8")})
        # An array has at least one item. Without tissue that is a tile which no stage reads.
        small_arrays: dict[str, npt.NDArray[Any]] = {"index": foreground if n else np.zeros((1, 2), np.int32)}
        if found.tissue is not None:
            small_arrays["tissue"] = found.tissue
        if found.guessed is not None:
            small_arrays["guessed"] = found.guessed
        log.info(
            "%d tiles of %d pixels, %d with tissue: %s in %s",
            len(grid),
            grid.tile,
            n,
            human(shape[0] * shape[1] * shape[2] * 3),
            "shared memory" if settings.store.shm else folder.path,
        )
        with (
            StoreWriter(
                folder.path,
                folder.work,
                manifest,
                small_arrays,
                files,
                shared=settings.store.shm,
                fastio=settings.fastio,
                check=folder.check,
            ) as store,
            WorkerPool(settings.num_workers) as pool,
        ):
            resumed = len(store.entries)
            damaged = _fill(slide, grid, foreground, store, settings, pool)
            if stat_of(path) != before:
                raise UnreadableSlide(f"{path} changed while it was read; run again when it is complete")
            store.finish({"damaged": damaged})
        folder.finish()
    print_summary([
        *named_lines({
            "slide": f"{path.name}  ({info.format}, {info.width} x {info.height} pixels, "
                     f"{describe_scale(info.mpp, info.objective)})",
            "tiles": f"{len(grid)}: {n} with tissue" + (f", {resumed} kept from an earlier run" if resumed else ""),
            "damaged": _damage(damaged),
        }),
        *time_lines(time.perf_counter() - start, settings.num_workers, memory.peak, pool.timer.stages),
        *named_lines({"result": f"{folder.path}  ({human(shape[0] * grid.tile**2 * 3)})",
                   "next": "run filter with this folder as its input (numpy.load opens the arrays)"}),
    ])  # fmt: skip


def _memory_needed(slide: Slide, grid: TileGrid, settings: Settings, workers: int) -> int:
    """Return the bytes of anonymous memory that the stage certainly takes; see docs/memory.md."""
    return LIBRARIES + max(
        mask_memory(grid, settings), slide.cache_bytes + 3 * workers * max(BATCH_BYTES, grid.tile**2 * 3)
    )


def _fill(
    slide: Slide,
    grid: TileGrid,
    foreground: npt.NDArray[np.int32],
    store: StoreWriter,
    settings: Settings,
    pool: WorkerPool,
) -> int:
    """Read the tiles that the store lacks; return how many of all its tiles are damaged."""
    done = len(store.entries)
    missing = np.array([tile_id for tile_id in range(len(foreground)) if tile_id not in store.entries], np.int64)
    damaged = DamagedTiles(grid, settings.damaged.limit)

    def keep(batch: TileBatch) -> None:
        store.put(batch.tile_ids.tolist(), batch.pixels, [DAMAGED if damaged else 0 for damaged in batch.damaged])

    def details() -> str:
        return f"{done} of {len(foreground)} tiles with tissue done"

    with Progress(lambda: done / max(1, len(foreground)), details):
        batch_size = max(1, BATCH_BYTES // (grid.tile**2 * 3))
        for batch in load(slide, grid, foreground, pool, batch_size, tile_ids=missing, keep=keep):
            done += len(batch)
            damaged.add(foreground[batch.tile_ids[batch.damaged]].tolist())
    return len(damaged)


def _damage(tiles: int) -> str:
    if tiles == 1:
        return "1 tile could not be read; it is hatched"
    return f"{tiles} tiles could not be read; they are hatched" if tiles else ""


def _slide_metadata(info: SlideInfo, identity: str, settings: Settings) -> SlideMetadata:
    return SlideMetadata(
        info.path.name, identity, info.width, info.height, info.mpp, info.objective, settings.channel, settings.plane
    )


def _files_to_copy(slide: Path) -> dict[str, bytes]:
    """Return name and content of the files that are copied into the store."""
    found = find_render_config(slide)
    return {} if found is None else {RENDER: take_over(found)}
