"""The fused run: load, filter and stitch joined in one process. Composes the stages; touches no pixel itself."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from operators.filter.inference import Engine, ModelInfo, open_engine
from operators.filter.stage import infer
from operators.load.stage import load
from operators.load.tiling import foreground_tiles
from operators.load.tissue import looks_like_fluorescence, tissue_mask
from operators.segmentation.estimate import estimate
from operators.segmentation.journal import Journal
from operators.segmentation.runkey import run_key
from operators.segmentation.summary import Outcome, summarise
from operators.segmentation.workfolder import WorkFolder
from operators.stitch import StitchResult, publish, stitch
from operators.stitch.render_files import IMAGE, RENDER, renew_render_config
from shared.batches import MaskBatch
from shared.crew import Crew
from shared.disk import writing
from shared.errors import NoSpace, OutputError, TooMuchDamage, UnreadableSlide
from shared.geometry import TileGrid, Window
from shared.progress import Progress, duration
from shared.resources import MemoryPeak, free_bytes, human
from shared.settings import MaskSettings, Settings
from shared.slides import Slide, SlideInfo, find_slide, fingerprint, open_slide, stat_of

log = logging.getLogger("nuclei")

LISTED = 20
"""Damaged places that are named in the log; the rest are counted."""


@dataclass(slots=True)
class _Counts:
    """How far the run is."""

    inferred: int = 0
    written: float = 0.0
    damaged: int = 0


def segment(settings: Settings) -> None:
    """Segment the slide in the input folder.

    Raises
    ------
    NucleiError
        One of its kinds; see `shared.errors`.
    """
    start = time.perf_counter()
    path = find_slide(settings.input_path)
    _refuse_input_as_output(path, settings)
    before = stat_of(path)
    with open_slide(path) as slide:
        _describe(slide.info)
        work = WorkFolder(settings.output_path)
        done = False
        try:
            with open_engine(settings) as engine, MemoryPeak() as memory:
                _check_scale(slide.info, engine.info)
                key = run_key(fingerprint(path), settings, engine.info)
                log.debug("run key %s", key)
                if not work.claim(key, overwrite=settings.overwrite):
                    log.info("already done: %s is the result of this very run", work.output / IMAGE)
                    _renew_render_config(path, work)
                    done = True
                    return
                with writing(work.output):
                    outcome = _run(slide, engine, settings, work, memory, start, before, key)
            done = True
        finally:
            work.close(remove=done)
    _answer(outcome)


def _run(
    slide: Slide,
    engine: Engine,
    settings: Settings,
    work: WorkFolder,
    memory: MemoryPeak,
    start: float,
    before: object,
    key: str,
) -> str:
    info = slide.info
    grid = TileGrid(info.width, info.height, settings.tile, settings.overlap)
    with Progress(lambda: 0.0, lambda: "looking for tissue"):
        foreground = _foreground(slide, grid, settings.mask)
    channels = len(engine.info.channels)
    _explain_overlap(grid, engine.info)
    with Journal(work.path / "maps", (grid.tile, grid.tile, channels)) as journal, Crew(settings.workers) as crew:
        resumed = len(journal)
        needs = estimate(slide, grid, foreground, engine, settings, journal, crew)
        log.info(
            "%d tiles of %d, %d with tissue%s: about %s with %d worker%s, %s",
            len(grid),
            grid.tile,
            len(foreground),
            f" ({resumed} already inferred)" if resumed else "",
            duration(needs.seconds),
            settings.workers,
            "s" if settings.workers > 1 else "",
            needs,
        )
        free = free_bytes(work.path) + journal.size
        if free < needs.disk:
            raise NoSpace(
                f"{settings.output_path} has {human(free)} free, the run needs up to {human(needs.disk)}; "
                "make room or use another output folder"
            )
        counts = _Counts()
        total = len(grid) * needs.write_seconds + len(foreground) * needs.infer_seconds or 1.0

        def fraction() -> float:
            written = counts.written * len(grid) * needs.write_seconds
            return (written + counts.inferred * needs.infer_seconds) / total

        def details() -> str:
            return f"{counts.inferred} of {len(foreground)} tiles with tissue done"

        def written(done: int, of: int) -> None:
            counts.written = done / of

        with Progress(fraction, details):
            tiles = load(slide, grid, foreground, crew, engine.info.batch)
            maps = _watched(infer(tiles, engine, journal, crew), counts, settings.damaged_limit * len(grid))
            result = stitch(
                slide,
                grid,
                foreground,
                maps,
                work.path / IMAGE,
                work.path / "spool",
                settings.overlay,
                settings.jpeg,
                crew,
                written,
                reserve_bytes=needs.image,
            )
        _check_damage(result, settings.damaged_limit, len(grid))
        if stat_of(info.path) != before:
            raise UnreadableSlide(f"{info.path} changed while it was read; run again when it is complete")
        render = _render_config(info.path)
        if render is None:
            log.info("no %s beside the slide; a plain one is written", RENDER)
        publish(
            work.path,
            work.output,
            name=engine.info.name,
            run=key,
            damaged=len(result.damaged),
            render_config=render,
        )
    outcome = Outcome(
        info=info,
        output=work.output,
        tiles=len(grid),
        foreground=len(foreground),
        resumed=resumed,
        damaged=len(result.damaged),
        nuclei_pixels=result.nuclei_pixels,
        image_bytes=result.bytes,
        seconds=time.perf_counter() - start,
        peak_memory=memory.peak,
        workers=settings.workers,
    )
    return summarise(outcome, crew.clock)


def _foreground(slide: Slide, grid: TileGrid, mask: MaskSettings) -> npt.NDArray[np.int32]:
    if mask.method == "none":
        return foreground_tiles(grid, None)
    overview = slide.overview(mask.pixel_limit)
    log.debug("tissue mask from an overview of %d x %d pixels", overview.shape[1], overview.shape[0])
    if looks_like_fluorescence(overview):
        log.warning(
            "the slide is dark where a stained one is light; for fluorescence put `mask: none` into config.yaml"
        )
    foreground = foreground_tiles(grid, tissue_mask(overview))
    if len(foreground) == 0:
        log.warning("no tissue found: the result is the slide without overlay; `mask: none` infers every tile")
    return foreground


def _watched(maps: Iterator[MaskBatch], counts: _Counts, most: float) -> Iterator[MaskBatch]:
    """Count what passes; stop as soon as more tiles are damaged than may be."""
    for batch in maps:
        counts.inferred += len(batch)
        counts.damaged += int(np.count_nonzero(batch.tiles.damaged))
        if counts.damaged > most:
            raise TooMuchDamage(
                f"{counts.damaged} tiles could not be read, {most:.0f} may be (`damaged.limit`); "
                "copy the slide again, or raise the limit in config.yaml to get what can be read"
            )
        yield batch


def _check_damage(result: StitchResult, limit: float, tiles: int) -> None:
    if not result.damaged:
        return
    if len(result.damaged) > limit * tiles:
        raise TooMuchDamage(
            f"{len(result.damaged)} of {tiles} places could not be read, {limit * tiles:.0f} may be (`damaged.limit`); "
            "copy the slide again, or raise the limit in config.yaml to get what can be read"
        )
    for window in result.damaged[:LISTED]:
        log.warning("could not be read, hatched: %s", _place(window))
    if len(result.damaged) > LISTED:
        log.warning("... and %d more places", len(result.damaged) - LISTED)


def _place(window: Window) -> str:
    return f"x {window.x} to {window.right - 1}, y {window.y} to {window.bottom - 1}"


def _describe(info: SlideInfo) -> None:
    log.info("%s: %s, %d x %d pixels", info.path, info.format, info.width, info.height)
    log.debug("reader: %s; levels: %s", info.reader, ", ".join(f"{w} x {h}" for w, h in info.levels))
    if info.mpp_note:
        log.warning("pixel size: %s", info.mpp_note)


def _check_scale(info: SlideInfo, model: ModelInfo) -> None:
    log.debug(
        "model %s in the %s engine, channels %s, %d tiles a request, identity %s",
        model.name,
        model.engine,
        ", ".join(model.channels),
        model.batch,
        model.identity,
    )
    if info.mpp is None or model.mpp is None:
        return
    low, high = model.mpp
    if not low <= sum(info.mpp) / 2 <= high:
        log.warning(
            "the slide has %.3g µm per pixel, the model was made for %.3g to %.3g: expect missed or merged nuclei",
            sum(info.mpp) / 2,
            low,
            high,
        )


def _explain_overlap(grid: TileGrid, model: ModelInfo) -> None:
    cost = (grid.tile / grid.stride) ** 2
    steps = model.grid or 1  # a tile must start where the model's own grid of pooled pixels has a line
    if model.halo is None:
        exact = (
            "whether that makes tile borders exact is unknown, since the model's graph does not bound how far it looks"
        )
    elif len(grid) == 1 or (grid.overlap >= 2 * model.halo and grid.stride % steps == grid.tile % steps == 0):
        exact = "tile borders are exact"
    else:
        enough = -(-2 * model.halo // steps) * steps
        # tiles four times the overlap cost 1.8 times the pixels
        tile = f"-t {-(-4 * enough // steps) * steps} " if 2 * enough > grid.tile or grid.tile % steps else ""
        exact = f"tile borders are not exact; the model looks {model.halo} pixels far, so {tile}-o {enough} would be"
    level = logging.INFO if grid.overlap else logging.DEBUG
    log.log(level, "overlap %d: %.2f times the pixels are inferred; %s", grid.overlap, cost, exact)


def _refuse_input_as_output(path: Path, settings: Settings) -> None:
    folder = settings.input_path if settings.input_path.is_dir() else None
    output = os.path.realpath(settings.output_path)  # unlike Path.resolve it takes a loop of links for what it is
    if (folder is not None and os.path.realpath(folder) == output) or os.path.realpath(path) == f"{output}/{IMAGE}":
        raise OutputError(f"{settings.output_path} is the input folder; the result needs a folder of its own")


def _render_config(path: Path) -> Path | None:
    """Return the config_render.json that came with the slide."""
    for folder in (path.parent, path.parent.parent if path.parent.name == "slide" else path.parent):
        if (folder / RENDER).exists():
            return folder / RENDER
    return None


def _renew_render_config(path: Path, work: WorkFolder) -> None:
    render = _render_config(path)
    if render is not None and renew_render_config(work.path, work.output, render):
        log.info("%s has changed and was taken over anew", render)


def _answer(text: str) -> None:
    """Print the summary. The result is there, whether or not somebody still listens."""
    try:
        print(text, flush=True)  # noqa: T201 - the command's answer
    except OSError as error:
        log.debug("nobody reads the summary: %s", error)
        # else the interpreter would try to write it again at its end, and fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
