"""The command filter: tile store → map store."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.filter.advice import check_scale, explain_overlap
from nuclei_segmentation.operators.filter.inference import Engine, ModelInfo, open_engine
from nuclei_segmentation.operators.filter.map_check import MapCheck
from nuclei_segmentation.operators.filter.stage import STAGE, infer
from nuclei_segmentation.shared.batches import Pixels, TileBatch
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.runtime.memory import INFERENCE, LIBRARIES, check_memory
from nuclei_segmentation.shared.runtime.progress import Progress
from nuclei_segmentation.shared.runtime.resources import MemoryPeak, human
from nuclei_segmentation.shared.runtime.stage_timer import StageTimer
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

log = logging.getLogger(__name__)

_CHECKED_MAPS = 64
"""Of the maps that an earlier run stored, about so many are checked."""
READ = "load"
"""The time for reading tiles from their store counts for the stage that wrote them."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What was done, for the summary."""

    resumed: int
    damaged: int
    timer: StageTimer


def run(settings: Settings) -> None:
    """Infer the tiles of a tile store, and write a map store.

    Parameters
    ----------
    settings : Settings
        The settings of the run.

    Raises
    ------
    NucleiError
        One of its kinds; see `shared.errors`.
    """
    start = time.perf_counter()
    wait_limit = WaitLimit(settings.wait.limit)
    with ExitStack() as stack:
        # The output folder comes first: a run that cannot write must not wait for tiles.
        folder = stack.enter_context(StoreFolder(settings.output_path, settings.shard))
        source, tiles = find_store(settings, "tiles", wait_limit)
        for output in {settings.output_path, folder.path}:
            refuse_as_output(source, "tiles", output)
        log.info("%s: %s of %d pixels from %s", source, _tiles_text(tiles.n), tiles.tile, tiles.slide.name)
        settings = _with_tiling_of(tiles, settings)
        engine, memory = stack.enter_context(open_engine(settings)), stack.enter_context(MemoryPeak())
        check_scale(tiles.slide.mpp, engine.info)
        explain_overlap(tiles.grid, engine.info)
        manifest = _manifest(tiles, engine.info, settings)
        log.debug("key of the maps: %s", manifest.key)
        if not folder.claim(
            "masks",
            manifest.key,
            settings.run_id,
            overwrite=settings.overwrite,
            fastio=settings.fastio,
            made_from=manifest.made_from(),
        ):
            log.info("already done: %s holds the maps for these tiles, model and settings", folder.path)
            return
        check_memory(lambda workers: _memory_needed(engine, tiles.tile, workers), settings.num_workers)
        if manifest.shard is not None:
            log.info("shard %s", _shard_text(manifest))
        with StoreReader(source, tiles, wait_limit, settings.fastio) as reader:
            outcome = _fill_store(reader, folder, manifest, engine, settings)
        folder.finish()
    print_summary(
        _summary(manifest, outcome, settings, folder.path, time.perf_counter() - start, memory.peak, wait_limit.waited)
    )


def _with_tiling_of(tiles: Manifest, settings: Settings) -> Settings:
    """Return the settings with the tile size and overlap of the store, which load has decided."""
    if (settings.tile_size, settings.overlap) not in ((256, 0), (tiles.tile, tiles.overlap)):
        raise UsageError(
            f"-t {settings.tile_size} -o {settings.overlap}: the store has tiles of {tiles.tile} pixels with an "
            f"overlap of {tiles.overlap}; give -t and -o to load, and omit them here"
        )
    return replace(settings, tile_size=tiles.tile, overlap=tiles.overlap)


def _manifest(tiles: Manifest, model: ModelInfo, settings: Settings) -> Manifest:
    """Return the manifest of the map store."""
    shard = settings.shard
    first, stop = (0, tiles.n) if shard is None else shard.range(tiles.n)
    # Where there are no tiles, the array has one item all the same.
    shape = (max(1, stop - first), tiles.tile, tiles.tile, len(model.channels))
    return replace(
        tiles,
        kind="masks",
        run=settings.run_id,
        key=filter_key(tiles.key, model.name, model.engine, model.identity, settings),
        source=tiles.key,
        n=stop - first,
        shard=None if shard is None else ShardMetadata(shard.number, shard.count, first, tiles.n),
        model=ModelMetadata(model.name, model.engine, model.identity),
        arrays={"masks": ArrayMetadata("", shape, "uint8", model.channels)},
    )


def _memory_needed(engine: Engine, tile: int, workers: int) -> int:
    """Return the bytes of anonymous memory that the stage certainly takes; see docs/memory.md."""
    calls = engine.in_flight or workers
    under_way = 2 * workers + (3 * workers if engine.in_flight is None else 2 * calls)
    batches = under_way * engine.info.batch * tile**2 * (3 + len(engine.info.channels))
    return LIBRARIES + INFERENCE + batches + engine.memory_needed(tile, calls)


def _fill_store(
    reader: StoreReader, folder: StoreFolder, manifest: Manifest, engine: Engine, settings: Settings
) -> _Outcome:
    """Write the map store of a manifest, or resume it."""
    n, first = manifest.n, _first_tile(manifest)
    small = {"index": reader.small("index")[first : first + n] if n else np.zeros((1, 2), np.int32)}
    with (
        StoreWriter(
            folder.path,
            folder.work,
            manifest,
            small,
            {},
            shared=settings.store.shm,
            fastio=settings.fastio,
            check=folder.check,
        ) as store,
        WorkerPool(settings.num_workers) as pool,  # it ends first, since no worker may read from a closed store
    ):
        resumed = len(store.entries)
        log.info(
            "%s to infer%s, %s in %s",
            _tiles_text(n - resumed),
            f", {resumed} already inferred" if resumed else "",
            human(manifest.arrays["masks"].bytes),
            "shared memory" if settings.store.shm else folder.path,
        )
        check = MapCheck()
        damaged = _infer_missing(reader, store, engine, pool, check)
        reader.wait_until_complete()
        check.report(engine)
        store.finish({"damaged": damaged})
    return _Outcome(resumed, damaged, pool.timer)


class _StoredMaps:
    """The store that filter writes, as the stage's `SavedMaps`."""

    def __init__(self, store: StoreWriter) -> None:
        self._store, self._first = store, _first_tile(store.manifest)

    def get(self, tile_id: int) -> Pixels | None:
        """Return None: tiles whose maps are in the store are not read again."""
        return None

    def add(self, tile_id: int, maps: Pixels) -> None:
        """See `SavedMaps.add`."""
        self._store.put([tile_id - self._first], maps[np.newaxis])


def _infer_missing(reader: StoreReader, store: StoreWriter, engine: Engine, pool: WorkerPool, check: MapCheck) -> int:
    """Infer the tiles that the store lacks. Return how many of its tiles are damaged."""
    n, first = store.manifest.n, _first_tile(store.manifest)
    stored = {item: entry.flags for item, entry in store.entries.items()}
    sound = [item for item in sorted(stored) if not stored[item] & DAMAGED]
    for maps in pool.map(STAGE, store.get, sound[:: 1 + len(sound) // _CHECKED_MAPS], ahead=2 * pool.workers):
        check.add(maps)
    missing = np.array([first + item for item in range(n) if item not in stored], np.int64)
    damaged = sum(1 for flags in stored.values() if flags & DAMAGED)
    done = len(stored)
    with Progress(lambda: done / max(1, n), lambda: f"{done} of {n} tiles done"):
        batches = _read_tiles(reader, missing, engine.info.batch, pool)
        for batch in infer(batches, engine, _StoredMaps(store), pool, check):
            done += len(batch)
            places = np.flatnonzero(batch.tiles.damaged)
            if len(places):
                damaged += len(places)
                store.put((batch.tile_ids[places] - first).tolist(), batch.maps[places], DAMAGED)
    return damaged


def _read_tiles(
    reader: StoreReader, tile_ids: npt.NDArray[np.int64], batch: int, pool: WorkerPool
) -> Iterator[TileBatch]:
    def read(span: tuple[int, int]) -> TileBatch:
        pixels, damaged = reader.read(*span)
        return TileBatch(np.arange(*span, dtype=np.int64), pixels, damaged)

    return pool.map(READ, read, reader.ranges(tile_ids, batch), ahead=2 * pool.workers)


def _summary(
    manifest: Manifest,
    outcome: _Outcome,
    settings: Settings,
    folder: Path,
    seconds: float,
    peak_memory: int,
    waited: float,
) -> list[str]:
    """Return the lines of the summary."""
    slide, model = manifest.slide, manifest.model
    assert model is not None, "maps are made by a model"
    resumed, damaged = outcome.resumed, outcome.damaged
    shards_first, result = (
        ("", "this folder") if manifest.shard is None else ("the other shards; then ", settings.output_path)
    )
    following = f"{shards_first}stitch, with the slide, the folder of the tiles and {result} as its inputs"
    return [
        *named_lines({
            "slide": f"{slide.name}  ({slide.width} x {slide.height} pixels)",
            "shard": _shard_text(manifest),
            "tiles": f"{manifest.n} inferred by {model.name} ({model.engine})"
                     + (f", {resumed} of them kept from an earlier run" if resumed else ""),
            "damaged": f"{_tiles_text(damaged)} could not be read and {'was' if damaged == 1 else 'were'} not inferred"
                       if damaged else "",
        }),
        *time_lines(seconds, settings.num_workers, peak_memory, outcome.timer.stages, waited),
        *named_lines({"result": f"{folder}  ({human(manifest.arrays['masks'].bytes)})", "next": following}),
    ]  # fmt: skip


def _first_tile(manifest: Manifest) -> int:
    """Return the tile id of a store's first tile."""
    return 0 if manifest.shard is None else manifest.shard.first


def _shard_text(manifest: Manifest) -> str:
    """Return which tiles a shard has; nothing for a store that has all."""
    if manifest.shard is None:
        return ""
    first, last = manifest.shard.first, manifest.shard.first + manifest.n - 1
    tiles = f"tiles {first} to {last}" if manifest.n > 1 else f"tile {first}" if manifest.n else "none"
    return f"{manifest.shard.shard}, {tiles} of {_tiles_text(manifest.shard.total)}"


def _tiles_text(count: int) -> str:
    return "1 tile" if count == 1 else f"{count} tiles"
