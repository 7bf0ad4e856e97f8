"""An engine without a model, for tests of failing inference and for benchmarks of everything except inference."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

import numpy as np

from nuclei_segmentation.operators.filter.inference.engine import Engine, ModelInfo
from nuclei_segmentation.shared.batches import Pixels

#: What may happen at a call: an exception to raise, seconds to wait before the result, or another function's result.
Fault = BaseException | float | Callable[[Pixels], Pixels]


def no_nuclei(pixels: Pixels) -> Pixels:
    """Find no nuclei: (b, T, T, 3) uint8 to (b, T, T, 2) uint8 zeros."""
    return np.zeros((*pixels.shape[:3], 2), np.uint8)


def darkness(pixels: Pixels) -> Pixels:
    """Call dark pixels nuclei: (b, T, T, 3) uint8 to (b, T, T, 2) uint8, 255 where red is below 128."""
    maps = no_nuclei(pixels)
    maps[..., 0] = np.where(pixels[..., 0] < 128, 255, 0)
    return maps


class MockEngine(Engine):
    """Returns a function of the pixels, or fails at chosen calls.

    Parameters
    ----------
    function : callable, optional
        (b, T, T, 3) uint8 to (b, T, T, 2) uint8.
    faults : Mapping of int to Fault or None, optional
        What happens instead at the n-th call, counted from 1 over all threads.
    in_flight : int or None, optional
        See `Engine`.
    halo : int or None, optional
        See `ModelInfo`.

    Attributes
    ----------
    calls : int
        How often `infer` was called.
    tiles : int
        How many tiles it was given.
    closed : bool
        Whether `close` was called.
    """

    def __init__(
        self,
        function: Callable[[Pixels], Pixels] = no_nuclei,
        faults: Mapping[int, Fault] | None = None,
        *,
        in_flight: int | None = None,
        halo: int | None = 0,
    ) -> None:
        self.info = ModelInfo("mock", "mock", "mock", ("nucleus", "boundary"), halo, 1, None, 1)
        self.in_flight = in_flight
        self.calls = self.tiles = 0
        self.closed = False
        self._function = function
        self._faults = faults or {}
        self._lock = threading.Lock()

    def infer(self, pixels: Pixels) -> Pixels:
        """Return the function's maps, or do what is planned for this call."""
        with self._lock:
            self.calls += 1
            self.tiles += len(pixels)
            fault = self._faults.get(self.calls)
        if isinstance(fault, BaseException):
            raise fault
        if isinstance(fault, (int, float)):
            time.sleep(fault)
        elif fault is not None:
            return fault(pixels)
        return self._function(pixels)

    def close(self) -> None:
        """Set `closed`."""
        self.closed = True
