"""What a run will need: time, memory, disk. Measured on a few tiles of the slide itself, before the work starts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from operators.filter.inference import Engine
from operators.load.stage import read_tile
from operators.segmentation.journal import Journal
from operators.stitch import encode
from operators.stitch import memory_needed as stitch_memory
from shared.crew import Crew
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
MASK_BYTES = 64
"""For each pixel of the overview, while the tissue is looked for; it is given back before tiles are inferred."""
JOURNAL_BYTES = 160
"""For each tile: where its maps lie, and the tables of the image."""


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
    journal: Journal,
    crew: Crew,
) -> Estimate:
    """Try a few tiles and extrapolate. What is inferred for that goes into the journal, so it is not inferred again.

    Parameters
    ----------
    slide, grid, foreground, engine, settings, journal, crew
        As for the run.
    """
    numbers = foreground[:, 0].astype(np.int64) * grid.columns + foreground[:, 1]
    some = _spread(len(grid), 8 * PROBES)
    missing = [index for index in range(len(foreground)) if index not in journal]
    # large tiles take long, and vary less
    probes = max(2, min(PROBES, PROBES * 256**2 // grid.tile**2))
    chosen = [missing[place] for place in _spread(len(missing), probes)]
    # by all workers at once, as the run will do it: cores share memory, and one alone is faster
    infer_one = partial(_infer_one, slide, grid, foreground, engine, journal)
    infer_seconds = _mean(list(crew.map("filter", infer_one, chosen, ahead=probes)))
    write_one = partial(_write_one, slide, grid, settings)
    front = list(crew.map("stitch", write_one, numbers[_spread(len(numbers))], ahead=PROBES))
    others = some[~np.isin(some, numbers)]
    back = list(crew.map("stitch", write_one, others[_spread(len(others))], ahead=PROBES))
    write_seconds = _mean([seconds for seconds, _ in front + back])
    n, rest = len(foreground), len(grid) - len(foreground)
    encoded = n * _mean([size for _, size in front or back]) + rest * _mean([size for _, size in back or front])
    # where tiles overlap, more of them are read than pixels written
    shrink = (grid.stride / grid.tile) ** 2
    # all reduced levels together are a third of level 0; then come the tables: offsets, sizes, tags
    image = int(encoded * shrink * 4 / 3 * MARGIN) + 64 * len(grid) + MIB
    # maps compress at least this well: measured 19-fold for one channel, less where everything is nuclei
    maps = n * (grid.tile**2 * len(engine.info.channels) // 8 + 64)
    work = (n - len(journal)) * infer_seconds / (engine.in_flight or settings.workers)
    return Estimate(
        seconds=work + len(grid) * write_seconds / settings.workers,
        memory=_memory(slide, grid, engine, settings),
        image=image,
        scratch=image // 4 + maps,
        infer_seconds=infer_seconds,
        write_seconds=write_seconds,
    )


def _memory(slide: Slide, grid: TileGrid, engine: Engine, settings: Settings) -> int:
    """Return the bytes of anonymous memory that a run may need: the formula of docs/memory.md."""
    channels, batch, workers = len(engine.info.channels), engine.info.batch, settings.workers
    calls = engine.in_flight or workers
    tile_bytes = grid.tile**2 * (3 + channels)
    under_way = (2 * workers + (3 * workers if engine.in_flight is None else 2 * calls)) * batch * tile_bytes
    mask = 0
    if settings.mask.method != "none":
        mask = MASK_BYTES * min(settings.mask.pixel_limit, grid.width * grid.height)
    work = (
        slide.cache_bytes
        + under_way
        + engine.memory_needed(grid.tile, calls)
        + stitch_memory(grid.width, grid.tile, workers, channels=channels)
        + len(grid) * JOURNAL_BYTES
    )
    return BASE_MEMORY + max(mask, work)


def _infer_one(
    slide: Slide, grid: TileGrid, foreground: npt.NDArray[np.int32], engine: Engine, journal: Journal, index: int
) -> float:
    """Infer one foreground tile, and return the seconds that took."""
    pixels = np.empty((1, grid.tile, grid.tile, 3), np.uint8)
    row, column = foreground[index].tolist()
    if read_tile(slide, grid, row, column, pixels[0]):
        return 0.0  # damaged: not inferred
    start = time.perf_counter()
    maps = engine.infer(pixels)[0]
    seconds = time.perf_counter() - start
    journal.add(index, maps)
    return seconds


def _write_one(slide: Slide, grid: TileGrid, settings: Settings, number: np.int64) -> tuple[float, int]:
    """Read and encode one tile; return the seconds that took, and the encoded bytes."""
    start = time.perf_counter()
    pixels = np.empty((grid.tile, grid.tile, 3), np.uint8)
    read_tile(slide, grid, *divmod(int(number), grid.columns), pixels)
    size = len(encode(pixels, settings.jpeg))
    return time.perf_counter() - start, size


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _spread(count: int, most: int = PROBES) -> npt.NDArray[np.int64]:
    """Return at most `most` of the numbers below `count`, evenly spread."""
    return np.arange(min(count, most), dtype=np.int64) * count // max(1, min(count, most))
