"""The tile cache decodes each tile once, and keeps few."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from nuclei_segmentation.shared.slides.tile_cache import TileCache


def test_threads_that_request_a_tile_together_share_one_decoding():
    calls = []

    def decode(number):
        calls.append(number)
        time.sleep(0.05)
        return np.full((1, 1, 3), number, np.uint8)

    cache = TileCache(decode, 10)
    start = threading.Barrier(8)

    def ask(_):
        start.wait()
        return cache.get(3, False)

    with ThreadPoolExecutor(8) as pool:
        assert all(pixels[0, 0, 0] == 3 for pixels in pool.map(ask, range(8)))
    assert calls == [3]


def test_damage_is_remembered():
    calls = []
    cache = TileCache(lambda number: calls.append(number), 10)
    assert cache.get(1, False) is None
    assert cache.get(1, False) is None
    assert calls == [1]


def test_finished_tiles_are_evicted_first():
    calls = []
    cache = TileCache(lambda number: calls.append(number) or np.zeros((1, 1, 3), np.uint8), 3)
    cache.get(0, False)
    cache.get(1, True)
    cache.get(2, False)
    cache.get(3, False)  # evicts 1
    for number in (0, 2, 3):
        cache.get(number, False)
    assert calls == [0, 1, 2, 3]


def test_lack_of_memory_is_not_damage():
    results = [MemoryError(), np.zeros((1, 1, 3), np.uint8)]

    def decode(_):
        result = results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    cache = TileCache(decode, 3)
    with pytest.raises(MemoryError):
        cache.get(1, False)
    assert cache.get(1, False) is not None
