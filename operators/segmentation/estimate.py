"""What a run will need: time, memory, disk. Measured on a few tiles of the slide itself, before the work starts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from operators.filter.inference import Engine
from operators.load.stage import read_tile
from operators.stitch import encode
from operators.stitch import memory_needed as stitch_memory
from shared.geometry import TileGrid
from shared.resources import MIB, human
from shared.settings import Settings
from shared.slides import Slide

PROBES = 6
"""Tiles of each kind that are tried."""
MARGIN = 1.5
"""The image is smaller than this times what the probes say."""
BASE_MEMORY = 160 * MIB
"""Interpreter, libraries, model."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will need.

    Attributes
    ----------
    seconds
        Wall time.
    memory
        Bytes of anonymous memory; an upper bound.
    image
        Bytes of image.tif; an upper bound, reserved before the work starts.
    scratch
        Bytes that are needed besides while the run lasts.
    infer_seconds, write_seconds
        Worker seconds for one foreground tile and for writing one tile.
    """

    seconds: float
    memory: int
    image: int
    scratch: int
    infer_seconds: float
    write_seconds: float

    @property
    def disk(self) -> int:
        """Bytes on the disk at the most crowded moment."""
        return self.image + self.scratch

    def __str__(self) -> str:
        return f"at most {human(self.memory)} of memory and {human(self.disk)} of disk"


def estimate(
    slide: Slide,
    grid: TileGrid,
    foreground: npt.NDArray[np.int32],
    engine: Engine,
    settings: Settings,
    known: int,
) -> Estimate:
    """Try a few tiles and extrapolate.

    Parameters
    ----------
    slide, grid, foreground, engine, settings
        As for the run.
    known
        Foreground tiles that need no inference, since an earlier run left their maps.
    """
    numbers = foreground[:, 0].astype(np.int64) * grid.columns + foreground[:, 1]
    some = _spread(len(grid), 8 * PROBES)
    background = some[~np.isin(some, numbers)]
    front = [_probe(slide, grid, engine, settings, number, infer=True) for number in numbers[_spread(len(numbers))]]
    back = [
        _probe(slide, grid, engine, settings, number, infer=False) for number in background[_spread(len(background))]
    ]
    n, rest = len(foreground), len(grid) - len(foreground)

    def mean(probes: list[tuple[float, float, int]], part: int, otherwise: float) -> float:
        return float(np.mean([probe[part] for probe in probes])) if probes else otherwise

    infer_seconds = mean(front, 0, 0.0)
    write_seconds = mean(front + back, 1, 0.0)
    encoded = n * mean(front, 2, mean(back, 2, 0)) + rest * mean(back, 2, mean(front, 2, 0))
    # where tiles overlap, more of them are read than pixels written
    shrink = (grid.stride / grid.tile) ** 2
    # all reduced levels together are a third of level 0; then come the tables: offsets, sizes, tags
    image = int(encoded * shrink * 4 / 3 * MARGIN) + 64 * len(grid) + MIB
    channels = len(engine.info.channels)
    # maps compress at least this well: measured 19-fold for one channel, less where everything is nuclei
    journal = n * (grid.tile**2 * channels // 8 + 64)
    work = (n - known) * infer_seconds / (engine.in_flight or settings.workers)
    return Estimate(
        seconds=work + len(grid) * write_seconds / settings.workers,
        memory=_memory(slide, grid, engine, settings),
        image=image,
        scratch=image // 4 + journal,
        infer_seconds=infer_seconds,
        write_seconds=write_seconds,
    )


def _memory(slide: Slide, grid: TileGrid, engine: Engine, settings: Settings) -> int:
    """Return the bytes of anonymous memory that a run may need: the formula of docs/memory.md."""
    channels, batch, workers = len(engine.info.channels), engine.info.batch, settings.workers
    senders = engine.in_flight or 0
    tile_bytes = grid.tile**2 * (3 + channels)
    under_way = (2 * workers + max(3 * workers, 2 * senders)) * batch * tile_bytes
    return (
        BASE_MEMORY
        + slide.cache_bytes
        + under_way
        + engine.memory_needed(grid.tile, workers)
        + stitch_memory(grid.width, grid.tile, workers, channels=channels)
    )


def _probe(
    slide: Slide, grid: TileGrid, engine: Engine, settings: Settings, number: np.int64, *, infer: bool
) -> tuple[float, float, int]:
    """Return the seconds of inference, the seconds of reading and encoding, and the encoded bytes of one tile."""
    start = time.perf_counter()
    pixels = np.empty((1, grid.tile, grid.tile, 3), np.uint8)
    read_tile(slide, grid, *divmod(int(number), grid.columns), pixels[0])
    encoded = len(encode(pixels[0], settings.jpeg))
    middle = time.perf_counter()
    if infer:
        engine.infer(pixels)
    return time.perf_counter() - middle, middle - start, encoded


def _spread(count: int, most: int = PROBES) -> npt.NDArray[np.int64]:
    """Return at most `most` of the numbers below `count`, evenly spread."""
    return np.arange(min(count, most), dtype=np.int64) * count // max(1, min(count, most))
