"""The command load: slide → tile store."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.load.foreground import find_foreground
from nuclei_segmentation.operators.load.stage import load
from nuclei_segmentation.shared.batches import TileBatch
from nuclei_segmentation.shared.clara.render_config import RENDER, find_render_config, take_over
from nuclei_segmentation.shared.damage import DamagedTiles
from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.progress import Progress
from nuclei_segmentation.shared.runtime.resources import MemoryPeak, human
from nuclei_segmentation.shared.runtime.summary import named_lines, print_summary, time_lines
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.run_key import load_key
from nuclei_segmentation.shared.slides import Slide, SlideInfo, fingerprint, open_slide, stat_of
from nuclei_segmentation.shared.slides.describe import describe, scale
from nuclei_segmentation.shared.slides.inputs import slide_of
from nuclei_segmentation.shared.store import ArrayMetadata, Manifest, SlideMetadata, StoreFolder, StoreWriter
from nuclei_segmentation.shared.store.ledger import DAMAGED

log = logging.getLogger(__name__)

BATCH_BYTES = 2 << 20
"""Tiles read and stored at a time: enough to share what each call costs, few enough to stay in the caches."""


def run(settings: Settings) -> None:
    """Read the tiles with tissue into a store.

    Raises
    ------
    NucleiError
        One of its kinds; see `shared.errors`.
    """
    start = time.perf_counter()
    path = slide_of(settings)
    before = stat_of(path)
    with open_slide(path) as slide, StoreFolder(settings.output_path) as folder, MemoryPeak() as memory:
        info = slide.info
        describe(info)
        slide_metadata = _facts(info, fingerprint(path))
        key = load_key(slide_metadata.fingerprint, settings)
        log.debug("key of the tiles %s", key)
        files = _beside(path)
        if not folder.claim("tiles", key, settings.run_id, overwrite=settings.overwrite, files=files):
            log.info("already done: %s holds the tiles of this very slide and settings", folder.path)
            return
        grid = TileGrid(info.width, info.height, settings.tile_size, settings.overlap)
        with Progress(lambda: 0.0, lambda: "looking for tissue"):
            foreground, tissue = find_foreground(slide, grid, settings)
        n, shape = len(foreground), (max(1, len(foreground)), grid.tile, grid.tile, 3)
        manifest = Manifest(
            kind="tiles",
            generation="",
            run=settings.run_id,
            key=key,
            source="",
            slide=slide_metadata,
            tile=grid.tile,
            overlap=grid.overlap,
            n=n,
            mask=settings.mask.method,
            arrays={"tiles": ArrayMetadata("", shape, "uint8")},
        )
        # an array has at least one item: where there is no tissue, a tile that nobody looks at
        small: dict[str, npt.NDArray[Any]] = {"index": foreground if n else np.zeros((1, 2), np.int32)}
        if tissue is not None:
            small["tissue"] = tissue
        log.info(
            "%d tiles of %d, %d with tissue: %s in %s",
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
                small,
                files,
                shared=settings.store.shm,
                fastio=settings.fastio,
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
                     f"{scale(info.mpp, info.objective)})",
            "tiles": f"{len(grid)}: {n} with tissue" + (f", {resumed} kept from an earlier run" if resumed else ""),
            "damaged": f"{damaged} tiles could not be read; they are hatched" if damaged else "",
        }),
        *time_lines(time.perf_counter() - start, settings.num_workers, memory.peak, pool.timer.stages),
        *named_lines({"result": f"{folder.path}  ({human(shape[0] * grid.tile**2 * 3)})",
                   "next": "filter, with that folder as its input (numpy.load opens the arrays)"}),
    ])  # fmt: skip


def _fill(
    slide: Slide,
    grid: TileGrid,
    foreground: npt.NDArray[np.int32],
    store: StoreWriter,
    settings: Settings,
    pool: WorkerPool,
) -> int:
    """Read the tiles that the store lacks; return how many of all could not be read."""
    done = len(store.entries)
    wanted = np.array([item for item in range(len(foreground)) if item not in store.entries], np.int64)
    damaged = DamagedTiles(grid, settings.damaged.limit)

    def keep(batch: TileBatch) -> None:
        store.put(batch.tile_ids.tolist(), batch.pixels, [DAMAGED if bad else 0 for bad in batch.damaged])

    def details() -> str:
        return f"{done} of {len(foreground)} tiles with tissue done"

    with Progress(lambda: done / max(1, len(foreground)), details):
        batch = max(1, BATCH_BYTES // (grid.tile**2 * 3))
        for tiles in load(slide, grid, foreground, pool, batch, wanted=wanted, keep=keep):
            done += len(tiles)
            damaged.add(foreground[tiles.tile_ids[tiles.damaged]].tolist())
    return len(damaged)


def _facts(info: SlideInfo, identity: str) -> SlideMetadata:
    return SlideMetadata(info.path.name, identity, info.width, info.height, info.mpp, info.objective)


def _beside(slide: Path) -> dict[str, bytes]:
    """Return the files that go into the store as they are."""
    found = find_render_config(slide)
    return {} if found is None else {RENDER: take_over(found)}
