"""What a run will need: time, memory, disk. Measured on a few tiles of the slide itself, before the work starts."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.filter.inference import Engine
from nuclei_segmentation.operators.load.foreground import mask_memory
from nuclei_segmentation.operators.load.stage import read_tile
from nuclei_segmentation.operators.segmentation.journal import Journal
from nuclei_segmentation.operators.stitch import memory_needed as stitch_memory
from nuclei_segmentation.operators.stitch.estimate import PROBES, estimate_image, mean, spread
from nuclei_segmentation.operators.stitch.objects.memory import disk_needed as nuclei_disk
from nuclei_segmentation.operators.stitch.objects.memory import finding_memory, writing_memory
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.resources import MIB, human
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.slides import Slide

BASE_MEMORY = 160 * MIB
"""Interpreter, libraries, model."""
JOURNAL_BYTES = 160
"""For each tile: where its maps lie, and the tables of the image."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run will need.

    Attributes
    ----------
    seconds : float
        Wall time.
    memory : int
        Bytes of anonymous memory; an upper bound.
    image : int
        Bytes of image.tif; an upper bound, reserved before the work starts.
    scratch : int
        Bytes that are needed besides while the run lasts.
    infer_seconds, write_seconds : float
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
    pool: WorkerPool,
) -> Estimate:
    """Try a few tiles and extrapolate. What is inferred for that goes into the journal, so it is not inferred again.

    Parameters
    ----------
    slide : Slide
        The slide.
    grid : TileGrid
        Its tiles.
    foreground : numpy.ndarray
        (n, 2) int32, row and column of each tile with tissue.
    engine : Engine
        What infers.
    settings : Settings
        Of the run.
    journal : Journal
        Takes the maps of the tiles that are tried.
    pool : WorkerPool
        The workers.
    """
    missing = [tile_id for tile_id in range(len(foreground)) if tile_id not in journal]
    # large tiles take long, and vary less
    probes = max(2, min(PROBES, PROBES * 256**2 // grid.tile**2))
    chosen = [missing[place] for place in spread(len(missing), probes)]
    # by all workers at once, as the run will do it: cores share memory, and one alone is faster
    infer_one = partial(_infer_one, slide, grid, foreground, engine, journal)
    infer_seconds = mean(list(pool.map("filter", infer_one, chosen, ahead=probes)))
    writing = estimate_image(slide, grid, foreground, settings.jpeg, pool)
    n = len(foreground)
    # maps compress at least this well: measured 19-fold for one channel, less where everything is nuclei
    maps = n * (grid.tile**2 * len(engine.info.channels) // 8 + 64)
    nuclei = nuclei_disk(n * grid.stride**2) if settings.outputs else 0
    work = (n - len(journal)) * infer_seconds / (engine.in_flight or settings.num_workers)
    return Estimate(
        seconds=work + len(grid) * writing.tile_seconds / settings.num_workers,
        memory=memory_needed(slide, grid, engine, settings),
        image=writing.image,
        scratch=writing.spool + maps + nuclei,
        infer_seconds=infer_seconds,
        write_seconds=writing.tile_seconds,
    )


def memory_needed(slide: Slide, grid: TileGrid, engine: Engine, settings: Settings) -> int:
    """Return the most bytes of anonymous memory that a run takes: the formula of docs/memory.md.

    Parameters
    ----------
    slide : Slide
        The slide.
    grid : TileGrid
        Its tiles.
    engine : Engine
        What infers.
    settings : Settings
        Of the run.
    """
    channels, batch, workers = len(engine.info.channels), engine.info.batch, settings.num_workers
    calls = engine.in_flight or workers
    tile_bytes = grid.tile**2 * (3 + channels)
    under_way = (2 * workers + (2 * workers if engine.in_flight is None else 2 * calls)) * batch * tile_bytes
    work = (
        slide.cache_bytes
        + under_way
        + engine.memory_needed(grid.tile, calls)
        + stitch_memory(grid.width, grid.tile, workers, channels=channels, batch=batch)
        + len(grid) * JOURNAL_BYTES
    )
    if settings.outputs:
        work += finding_memory(grid.width, grid.height, grid.tile, workers, channels)
        work = max(work, slide.cache_bytes + writing_memory(grid.width, grid.height, workers))
    return BASE_MEMORY + max(mask_memory(grid, settings), work)


def _infer_one(
    slide: Slide, grid: TileGrid, foreground: npt.NDArray[np.int32], engine: Engine, journal: Journal, tile_id: int
) -> float:
    """Infer one foreground tile, and return the seconds that took."""
    pixels = np.empty((1, grid.tile, grid.tile, 3), np.uint8)
    row, column = foreground[tile_id].tolist()
    if read_tile(slide, grid, row, column, pixels[0]):
        return 0.0  # damaged: not inferred
    start = time.perf_counter()
    maps = engine.infer(pixels)[0]
    seconds = time.perf_counter() - start
    journal.add(tile_id, maps)
    return seconds
