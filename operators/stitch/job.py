"""From maps to a published result: writes the image, judges it, gives the files their names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.render_files import publish, renew_render_config
from nuclei_segmentation.operators.stitch.stage import OutputSpec, StitchResult, TiledSlide, stitch
from nuclei_segmentation.operators.stitch.workfolder import WorkFolder
from nuclei_segmentation.shared.batches import MapBatch
from nuclei_segmentation.shared.clara.render_config import RENDER, find_render_config
from nuclei_segmentation.shared.damage import list_damage
from nuclei_segmentation.shared.errors import NoSpace, UnreadableSlide
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.runtime.resources import free_bytes, human
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.slides import Slide, stat_of
from nuclei_segmentation.shared.slides.inputs import IMAGE

log = logging.getLogger("nuclei")


def claim(work: WorkFolder, key: str, settings: Settings, slide: Path, *folders: Path) -> bool:
    """Begin or continue a run; return False, with the small files renewed, if it is finished already.

    Parameters
    ----------
    work : WorkFolder
        The output folder.
    key : str
        The run's.
    settings : Settings
        Say whether another result is replaced.
    slide, folders : pathlib.Path
        Where a config_render.json may lie; see `find_render_config`.
    """
    log.debug("run key %s", key)
    if work.claim(key, overwrite=settings.overwrite):
        return True
    log.info("already done: %s is the result of this very run", work.output / IMAGE)
    render = find_render_config(slide, *folders)
    if render is not None and renew_render_config(work.path, work.output, render):
        log.info("%s has changed and was taken over anew", render)
    return False


@dataclass(frozen=True, slots=True)
class ImageJob:
    """All that it takes to make a result.

    Attributes
    ----------
    slide, grid, foreground : Slide, TileGrid, numpy.ndarray
        As for `stitch`.
    settings : Settings
        Overlay, JPEG, limit of damage.
    work : WorkFolder
        The output folder.
    key : str
        The run's.
    model : str
        Name of the model.
    before : object
        What `stat_of` said of the slide before it was read.
    folders : tuple of pathlib.Path
        Where a config_render.json may lie, if not beside the slide.
    """

    slide: Slide
    grid: TileGrid
    foreground: npt.NDArray[np.int32]
    settings: Settings
    work: WorkFolder
    key: str
    model: str
    before: object
    folders: tuple[Path, ...] = ()

    def check_space(self, needed: int, reserved: int = 0) -> None:
        """Raise `NoSpace` unless the disk has `needed` bytes, of which `reserved` are ours already."""
        free = free_bytes(self.work.path) + reserved
        if free < needed:
            raise NoSpace(
                f"{self.settings.output_path} has {human(free)} free, the run needs up to {human(needed)}; "
                "make room or use another output folder"
            )

    def write(
        self, maps: Iterator[MapBatch], pool: WorkerPool, progress: Callable[[int, int], None], reserve_bytes: int
    ) -> StitchResult:
        """Write the image into the work folder.

        Parameters
        ----------
        maps : Iterator of MapBatch
            The maps of the foreground tiles.
        pool : WorkerPool
            The workers.
        progress : callable
            Called with the number of finished TIFF tiles of level 0, and of all.
        reserve_bytes : int
            Bytes to reserve for the image.

        Raises
        ------
        TooMuchDamage
            Too much of the slide could not be read.
        """
        source = TiledSlide(self.slide, self.grid, self.foreground)
        settings, folder = self.settings, self.work.path
        output = OutputSpec(folder / IMAGE, folder / "spool", settings.overlay, settings.jpeg, reserve_bytes)
        return stitch(source, maps, output, pool, progress, damage_limit=settings.damaged.limit)

    def publish(self, result: StitchResult) -> None:
        """Give a good image and its two files their names.

        Raises
        ------
        UnreadableSlide
            The slide changed meanwhile.
        """
        list_damage(result.damaged)
        path = self.slide.info.path
        if stat_of(path) != self.before:
            raise UnreadableSlide(f"{path} changed while it was read; run again when it is complete")
        render = find_render_config(path, *self.folders)
        if render is None:
            log.info("no %s beside the slide; a plain one is written", RENDER)
        publish(
            self.work.path,
            self.work.output,
            name=self.model,
            run=self.key,
            damaged=len(result.damaged),
            render_config=render,
        )
