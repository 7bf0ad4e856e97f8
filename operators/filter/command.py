"""The command filter: tile store → map store."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.filter.advice import check_scale, explain_overlap
from nuclei_segmentation.operators.filter.count import NucleusCount
from nuclei_segmentation.operators.filter.inference import Engine, open_engine
from nuclei_segmentation.operators.filter.stage import STAGE, infer
from nuclei_segmentation.shared.batches import Pixels, TileBatch
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.runtime.progress import Progress
from nuclei_segmentation.shared.runtime.resources import MemoryPeak, human
from nuclei_segmentation.shared.runtime.summary import named_lines, print_summary, time_lines
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.run_key import filter_key
from nuclei_segmentation.shared.store import (
    ArrayMetadata,
    Manifest,
    ModelMetadata,
    ShardMetadata,
    StoreFolder,
    StoreReader,
    StoreWriter,
    find_store,
    refuse_as_output,
)
from nuclei_segmentation.shared.store.ledger import DAMAGED

log = logging.getLogger("nuclei")

READ = "load"
"""Reading tiles from their store is booked to the stage that wrote them."""


def run(settings: Settings) -> None:
    """Infer the tiles of a store into another.

    Raises
    ------
    NucleiError
        One of its kinds; see `shared.errors`.
    """
    start = time.perf_counter()
    wait_limit = WaitLimit(settings.wait.limit)
    with ExitStack() as stack:
        # first: nobody waits for what must fail
        folder = stack.enter_context(StoreFolder(settings.output_path, settings.shard))
        source, tiles = find_store(settings, "tiles", wait_limit)
        for output in {settings.output_path, folder.path}:
            refuse_as_output(source, "tiles", output)
        log.info("%s: %d tiles of %d of %s", source, tiles.n, tiles.tile, tiles.slide.name)
        settings = _as_loaded(settings, tiles)
        engine, memory = stack.enter_context(open_engine(settings)), stack.enter_context(MemoryPeak())
        model = engine.info
        check_scale(tiles.slide.mpp, model)
        explain_overlap(tiles.grid, model)
        key = filter_key(tiles.key, model.name, model.engine, model.identity, settings)
        log.debug("key of the maps %s", key)
        if not folder.claim("masks", key, settings.run_id, overwrite=settings.overwrite, fastio=settings.fastio):
            log.info("already done: %s holds the maps of these very tiles, model and settings", folder.path)
            return
        shard = settings.shard
        first, stop = (0, tiles.n) if shard is None else shard.range(tiles.n)
        n = stop - first
        share = f"{shard}, {f'tiles {first} to {stop - 1}' if n else 'none'} of {tiles.n}" if shard else ""
        if share:
            log.info("shard %s", share)
        shape = (max(1, n), tiles.tile, tiles.tile, len(model.channels))
        manifest = replace(
            tiles,
            kind="masks",
            run=settings.run_id,
            key=key,
            source=tiles.key,
            n=n,
            shard=None if shard is None else ShardMetadata(shard.number, shard.count, first, tiles.n),
            model=ModelMetadata(model.name, model.engine, model.identity),
            arrays={"masks": ArrayMetadata("", shape, "uint8", model.channels)},
        )
        with StoreReader(source, tiles, wait_limit, settings.fastio) as reader:
            # an array has at least one item, if there are none
            small = {"index": reader.small("index")[first:stop] if n else np.zeros((1, 2), np.int32)}
            with (
                StoreWriter(
                    folder.path,
                    folder.work,
                    manifest,
                    small,
                    {},
                    shared=settings.store.shm,
                    fastio=settings.fastio,
                ) as store,
                WorkerPool(settings.num_workers) as pool,  # it ends first: nobody may read a store that is closed
            ):
                resumed = len(store.entries)
                log.info(
                    "%d tiles to infer%s, %s in %s",
                    n - resumed,
                    f", {resumed} already inferred" if resumed else "",
                    human(math.prod(shape)),
                    "shared memory" if settings.store.shm else folder.path,
                )
                # of all tiles: of those in other shards nothing comes, and what a border cuts counts here too
                count = NucleusCount(tiles.grid, reader.small("index")[: tiles.n], model.channels)
                damaged = _fill(reader, store, first, engine, pool, count)
                reader.wait_until_complete()
                nuclei = count.total
                store.finish({"damaged": damaged, "nuclei": nuclei})
        folder.finish()
    print_summary([
        *named_lines({
            "slide": f"{tiles.slide.name}  ({tiles.slide.width} x {tiles.slide.height} pixels)",
            "shard": share,
            "tiles": f"{n} inferred by {model.name} ({model.engine})"
                     + (f", {resumed} of them kept from an earlier run" if resumed else ""),
            "nuclei": f"{nuclei:,}",
            "damaged": f"{damaged} tiles could not be read, and were not inferred" if damaged else "",
        }),
        *time_lines(
            time.perf_counter() - start, settings.num_workers, memory.peak, pool.timer.stages, wait_limit.waited
        ),
        *named_lines({"result": f"{folder.path}  ({human(math.prod(shape))})",
                   "next": "stitch, with the slide, the tiles' folder and that folder as its inputs" if not shard else
                           f"the other shards; then stitch, with the slide, the tiles' folder and "
                           f"{settings.output_path} as its inputs"}),
    ])  # fmt: skip


class _Kept:
    """What filter keeps maps in: the store that it writes."""

    def __init__(self, store: StoreWriter, first: int) -> None:
        self._store, self._first = store, first

    def get(self, tile_id: int) -> Pixels | None:
        """Return nothing: tiles whose maps are there are not read again."""
        return None

    def add(self, tile_id: int, maps: Pixels) -> None:
        """Keep the maps of a tile."""
        self._store.put([tile_id - self._first], maps[np.newaxis])


def _as_loaded(settings: Settings, tiles: Manifest) -> Settings:
    """Return the settings with the tiles' size and overlap, which load decided."""
    if (settings.tile_size, settings.overlap) not in ((256, 0), (tiles.tile, tiles.overlap)):
        raise UsageError(
            f"-t {settings.tile_size} -o {settings.overlap}: the store has tiles of {tiles.tile} with an overlap of "
            f"{tiles.overlap}; give -t and -o to load, or leave them away here"
        )
    return replace(settings, tile_size=tiles.tile, overlap=tiles.overlap)


def _fill(
    reader: StoreReader, store: StoreWriter, first: int, engine: Engine, pool: WorkerPool, count: NucleusCount
) -> int:
    """Infer the tiles from `first` on that the store lacks; return how many of its could not be read from the slide."""
    n = store.manifest.n
    there = {item: entry.flags for item, entry in store.entries.items()}
    for item, maps in pool.map(STAGE, lambda item: (item, store.get(item)), sorted(there), ahead=2 * pool.workers):
        count.add(first + item, maps)
    wanted = np.array([first + item for item in range(n) if item not in there], np.int64)
    damaged = sum(1 for flags in there.values() if flags & DAMAGED)
    done = len(there)
    with Progress(lambda: done / max(1, n), lambda: f"{done} of {n} tiles done"):
        for batch in infer(_tiles(reader, wanted, engine.info.batch, pool), engine, _Kept(store, first), pool, count):
            done += len(batch)
            bad = np.flatnonzero(batch.tiles.damaged)
            if len(bad):
                damaged += len(bad)
                store.put((batch.tile_ids[bad] - first).tolist(), batch.maps[bad], DAMAGED)
    return damaged


def _tiles(reader: StoreReader, wanted: npt.NDArray[np.int64], batch: int, pool: WorkerPool) -> Iterator[TileBatch]:
    def read(span: tuple[int, int]) -> TileBatch:
        pixels, damaged = reader.read(*span)
        return TileBatch(np.arange(*span, dtype=np.int64), pixels, damaged)

    return pool.map(READ, read, reader.ranges(wanted, batch), ahead=2 * pool.workers)
