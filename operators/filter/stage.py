"""The stage filter: tiles in, maps out. Tiles whose maps are kept from an earlier run are not inferred again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from nuclei_segmentation.operators.filter.count import NucleusCount
from nuclei_segmentation.operators.filter.inference import Engine
from nuclei_segmentation.shared.batches import MapBatch, Pixels, TileBatch
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool

STAGE = "filter"


class MapStore(Protocol):
    """Keeps maps beyond the life of the process. Both methods may be called from any thread."""

    def get(self, tile_id: int) -> Pixels | None:
        """Return the (T, T, C) uint8 maps of a tile, or None if they are not kept."""

    def add(self, tile_id: int, maps: Pixels) -> None:
        """Keep the (T, T, C) uint8 maps of a tile."""


def infer(
    batches: Iterator[TileBatch], engine: Engine, kept: MapStore, pool: WorkerPool, count: NucleusCount | None = None
) -> Iterator[MapBatch]:
    """Infer tiles.

    Parameters
    ----------
    batches : Iterator of TileBatch
        What load yields.
    engine : Engine
        Who infers. Where it is a server, requests wait in threads of their own and no worker waits for them.
    kept : MapStore
        Maps of an earlier run; takes the new ones.
    pool : WorkerPool
        The workers.
    count : NucleusCount or None, optional
        Is given all maps but those of damaged tiles, by the threads that infer.

    Yields
    ------
    MapBatch
        The maps in the order of `batches`. Damaged tiles have maps of zeros.
    """
    channels = len(engine.info.channels)

    def work(batch: TileBatch) -> MapBatch:
        found = {place: kept.get(tile_id) for place, tile_id in enumerate(batch.tile_ids.tolist())}
        wanted = [place for place, maps in found.items() if maps is None and not batch.damaged[place]]
        if len(wanted) == len(batch):
            maps = engine.infer(batch.pixels)
        else:
            maps = np.zeros((*batch.pixels.shape[:3], channels), np.uint8)
            for place, known in found.items():
                if known is not None:
                    maps[place] = known
            if wanted:
                maps[wanted] = engine.infer(batch.pixels[wanted])
        for place in wanted:
            kept.add(int(batch.tile_ids[place]), maps[place])
        if count is not None:
            for place in np.flatnonzero(~batch.damaged).tolist():
                count.add(int(batch.tile_ids[place]), maps[place])
        return MapBatch(batch.tile_ids, maps, batch)

    if engine.in_flight is None:
        # three batches per worker: two inferred at a time would do, were they all equally long
        yield from pool.map(STAGE, work, batches, ahead=3 * pool.workers)
    else:
        senders = WorkerPool(engine.in_flight, pool.timer)
        try:
            yield from senders.map(STAGE, work, batches, ahead=2 * engine.in_flight)
        finally:
            senders.close(wait=False)  # a server may be silent; closing the engine ends the requests under way
