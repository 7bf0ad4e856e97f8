"""The stage filter: tiles in, maps out. Tiles whose maps an earlier run saved are not inferred again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from nuclei_segmentation.operators.filter.inference import Engine
from nuclei_segmentation.operators.filter.map_check import MapCheck
from nuclei_segmentation.shared.batches import MapBatch, Pixels, TileBatch
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool

STAGE = "filter"


class SavedMaps(Protocol):
    """Keeps maps so that the next run need not infer them again. Any thread may call both methods."""

    def get(self, tile_id: int) -> Pixels | None:
        """Return the (T, T, C) uint8 maps of a tile, or None if they are not saved."""

    def add(self, tile_id: int, maps: Pixels) -> None:
        """Save the maps of a tile.

        Parameters
        ----------
        tile_id : int
            The tile's number among the foreground tiles.
        maps : numpy.ndarray
            (T, T, C) uint8.
        """


def infer(
    batches: Iterator[TileBatch], engine: Engine, saved: SavedMaps, pool: WorkerPool, check: MapCheck | None = None
) -> Iterator[MapBatch]:
    """Infer tiles.

    Parameters
    ----------
    batches : Iterator of TileBatch
        What load yields.
    engine : Engine
        Computes the maps. If it is a server, requests run in threads of their own, so that no worker waits for them.
    saved : SavedMaps
        Gives the maps of an earlier run and takes the new ones.
    pool : WorkerPool
        The workers.
    check : MapCheck or None, optional
        Looks at all maps except those of damaged tiles, in the threads that infer.

    Yields
    ------
    MapBatch
        The maps in the order of `batches`. The maps of damaged tiles are zeros.
    """
    channels = len(engine.info.channels)

    def work(batch: TileBatch) -> MapBatch:
        known = {place: saved.get(tile_id) for place, tile_id in enumerate(batch.tile_ids.tolist())}
        missing = [place for place, maps in known.items() if maps is None and not batch.damaged[place]]
        if len(missing) == len(batch):
            maps = engine.infer(batch.pixels)
        else:
            maps = np.zeros((*batch.pixels.shape[:3], channels), np.uint8)
            for place, known_maps in known.items():
                if known_maps is not None:
                    maps[place] = known_maps
            if missing:
                maps[missing] = engine.infer(batch.pixels[missing])
        for place in missing:
            saved.add(int(batch.tile_ids[place]), maps[place])
        if check is not None:
            for place in np.flatnonzero(~batch.damaged).tolist():
                check.add(maps[place], batch.pixels[place])
        return MapBatch(batch.tile_ids, maps, batch)

    if engine.in_flight is None:
        yield from pool.map(STAGE, work, batches, ahead=2 * pool.workers)
    else:
        senders = WorkerPool(engine.in_flight, pool.timer)
        try:
            yield from senders.map(STAGE, work, batches, ahead=2 * engine.in_flight)
        finally:
            senders.close(wait=False)  # a server may hang; closing the engine ends the requests under way
