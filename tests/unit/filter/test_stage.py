"""filter infers the tiles whose maps are missing, and no others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nuclei_segmentation.operators.filter.inference.mock import MockEngine, darkness
from nuclei_segmentation.operators.filter.stage import infer
from nuclei_segmentation.operators.segmentation.journal import Journal
from nuclei_segmentation.shared.batches import Pixels, TileBatch
from nuclei_segmentation.shared.errors import InferenceUnavailable
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool

COUNT, SIDE = 23, 16


def tiles() -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3), np.uint8)


def batches(size: int, damaged: set[int]) -> Iterator[TileBatch]:
    for start in range(0, COUNT, size):
        tile_ids = np.arange(start, min(start + size, COUNT))
        yield TileBatch(tile_ids, tiles()[tile_ids], np.isin(tile_ids, list(damaged)))


def collect(engine: MockEngine, journal: Journal, size: int, damaged: set[int]) -> Pixels:
    with WorkerPool(2) as pool:
        found = list(infer(batches(size, damaged), engine, journal, pool))
    assert np.concatenate([batch.tile_ids for batch in found]).tolist() == list(range(COUNT))
    return np.concatenate([batch.maps for batch in found])


@pytest.mark.parametrize("size", [1, 4, 64])
@pytest.mark.parametrize("in_flight", [None, 3])
def test_only_tiles_that_are_neither_saved_nor_damaged_are_inferred(
    tmp_path: Path, size: int, in_flight: int | None
) -> None:
    saved, damaged = {0, 5, 6, 7, 22}, {3, 8}
    with Journal(tmp_path / "maps", (SIDE, SIDE, 2)) as journal:
        for tile_id in saved:
            journal.add(tile_id, np.full((SIDE, SIDE, 2), tile_id, np.uint8))
    with Journal(tmp_path / "maps", (SIDE, SIDE, 2)) as journal:
        engine = MockEngine(darkness, in_flight=in_flight)
        maps = collect(engine, journal, size, damaged)
        assert engine.tiles == COUNT - len(saved) - len(damaged)
        assert len(journal) == COUNT - len(damaged), "inferred maps are saved; those of damaged tiles are not"
    for tile_id in range(COUNT):
        expected = darkness(tiles()[tile_id : tile_id + 1])[0]
        if tile_id in saved:
            expected[...] = tile_id
        elif tile_id in damaged:
            expected[...] = 0
        np.testing.assert_array_equal(maps[tile_id], expected)


def test_maps_inferred_before_a_failure_are_saved(tmp_path: Path) -> None:
    with Journal(tmp_path / "maps", (SIDE, SIDE, 2)) as journal:
        engine = MockEngine(darkness, {11: InferenceUnavailable("gone")})
        with pytest.raises(InferenceUnavailable):
            collect(engine, journal, 1, set())
        assert len(journal) >= 10
        again = MockEngine(darkness)
        before = len(journal)
        np.testing.assert_array_equal(collect(again, journal, 1, set()), darkness(tiles()))
        assert again.tiles == COUNT - before
