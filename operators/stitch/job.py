"""From maps to a published result: writes the image, judges it, gives the files their names."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.outputs.there import (
    missing_outputs,
    outputs_there,
    refuse_foreign,
    remove_orphans,
)
from nuclei_segmentation.operators.stitch.render_files import publish, publish_outputs, renew_render_config
from nuclei_segmentation.operators.stitch.result_folder import SPOOL, ResultFolder
from nuclei_segmentation.operators.stitch.stage import OutputSpec, StitchResult, TiledSlide, collect, stitch
from nuclei_segmentation.shared.batches import MapBatch
from nuclei_segmentation.shared.clara.render_config import RENDER, find_render_config
from nuclei_segmentation.shared.damage import list_damage
from nuclei_segmentation.shared.errors import NoSpace, OutputError, UnreadableSlide
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.guesses import warn_of_guesses
from nuclei_segmentation.shared.nuclei_outputs import NucleiOutputs, OutputFile
from nuclei_segmentation.shared.provenance import ModelProvenance, Provenance, SlideProvenance, recorded
from nuclei_segmentation.shared.result import IMAGE, SegmentationResult, checksum, read_result
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.output_folder import PUBLISHING
from nuclei_segmentation.shared.runtime.recorder import Recorder
from nuclei_segmentation.shared.runtime.resources import free_bytes, human
from nuclei_segmentation.shared.runtime.stage_timer import StageTimer
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.run_key import outputs_key
from nuclei_segmentation.shared.slides import Slide, SlideInfo, stat_of

if TYPE_CHECKING:  # most runs write no files of nuclei, and do without what they import
    from nuclei_segmentation.operators.stitch.outputs.job import OutputJob

log = logging.getLogger(__name__)


def provenance_of(info: SlideInfo, fingerprint: str, model: ModelProvenance, settings: Settings) -> Provenance:
    """Return what a result is made from.

    Parameters
    ----------
    info : SlideInfo
        Of the slide.
    fingerprint : str
        Of the slide.
    model : ModelProvenance
        The model that made the maps.
    settings : Settings
        Of the run.

    Returns
    -------
    Provenance
        With the program that runs here.
    """
    slide = SlideProvenance(info.path.name, fingerprint, info.format, info.width, info.height, info.mpp, info.objective)
    return Provenance(slide, model, recorded(settings))


def claim(
    folder: ResultFolder, key: str, provenance: Provenance, settings: Settings, slide: Path, *folders: Path
) -> bool:
    """Begin or continue a run; return False, with the small files renewed, if it is finished already.

    Parameters
    ----------
    folder : ResultFolder
        The output folder.
    key : str
        The run's.
    provenance : Provenance
        What the result is made from.
    settings : Settings
        Say whether another result is replaced.
    slide : pathlib.Path
        The slide, beside which a config_render.json may lie.
    *folders : pathlib.Path
        Where else it may lie; see `find_render_config`.
    """
    log.debug("run key %s", key)
    remove_orphans(folder.path, folder.work / PUBLISHING)
    refuse_foreign(folder.path, settings.outputs, overwrite=settings.overwrite)
    render = find_render_config(slide, *folders)
    if folder.claim(key, provenance.to_json(), overwrite=settings.overwrite, render_config=render):
        return True
    log.info("already done: %s is the result of this run", folder.path / IMAGE)
    if render is not None and renew_render_config(folder.work, folder.path, render, folder.check):
        log.info("%s has changed and was copied again", render)
    return False


def outputs_to_add(
    folder: ResultFolder, key: str, provenance: Provenance, settings: Settings
) -> tuple[SegmentationResult | None, tuple[str, ...]]:
    """Return a result that is finished, and the outputs that it lacks; if there are any, begin to make them.

    Parameters
    ----------
    folder : ResultFolder
        The output folder, which holds the result.
    key : str
        The run's.
    provenance : Provenance
        What the result is made from.
    settings : Settings
        Say which outputs are wanted.

    Returns
    -------
    result : SegmentationResult or None
        None if it has no summary.
    outputs : tuple of str
        Words of the setting `outputs`.

    Raises
    ------
    OutputError
        Outputs are wanted, and there is no summary to add them to.
    """
    result = read_result(folder.path, key)
    wanted = missing_outputs(folder.path, outputs_key(key, settings), settings.outputs)
    if not wanted:
        return result, ()
    if result is None:
        raise OutputError(
            f"{folder.path} holds this result without a summary.json that can be read, and files of nuclei are noted "
            f"there; use another folder, or remove {folder.path / IMAGE} to make the result again"
        )
    log.info("of its outputs %s will be made", ", ".join(wanted))
    folder.claim_outputs(key, provenance.to_json())
    return result, wanted


@dataclass(frozen=True, slots=True)
class WrittenResult(Closing):
    """What lies in the work folder, until it is closed.

    Attributes
    ----------
    image : StitchResult
        The image.
    nuclei : OutputJob or None
        The nuclei, to be written; None if no outputs are wanted.
    """

    image: StitchResult
    nuclei: OutputJob | None

    def close(self) -> None:
        """Give up the nuclei that were not written."""
        if self.nuclei is not None:
            self.nuclei.close()


@dataclass(frozen=True, slots=True)
class ImageJob:
    """All that it takes to make a result.

    Attributes
    ----------
    slide : Slide
        The slide.
    grid : TileGrid
        Its tiles.
    foreground : numpy.ndarray
        (n, 2) int32, row and column of the tiles with tissue.
    tissue : numpy.ndarray or None
        (h, w) bool, the tissue on the slide's thumbnail; None where every tile is inferred.
    settings : Settings
        Overlay, JPEG, limit of damage.
    folder : ResultFolder
        The output folder.
    key : str
        The run's.
    provenance : Provenance
        What the result is made from.
    before : object
        What `stat_of` said of the slide before it was read.
    guessed : numpy.ndarray or None
        (h, w) bool, where the tissue mask is only a guess; None if nowhere.
    folders : tuple of pathlib.Path
        Where a config_render.json may lie, if not beside the slide.
    """

    slide: Slide
    grid: TileGrid
    foreground: npt.NDArray[np.int32]
    tissue: npt.NDArray[np.bool_] | None
    settings: Settings
    folder: ResultFolder
    key: str
    provenance: Provenance
    before: object
    guessed: npt.NDArray[np.bool_] | None = None
    folders: tuple[Path, ...] = ()

    def check_space(self, needed: int, reserved: int = 0) -> None:
        """Refuse a disk that is too small.

        Parameters
        ----------
        needed : int
            Bytes.
        reserved : int, optional
            Of these, bytes that the run has already.

        Raises
        ------
        NoSpace
            The disk has less.
        """
        free = free_bytes(self.folder.work) + reserved
        if free < needed:
            raise NoSpace(
                f"{self.settings.output_path} has {human(free)} free, the run needs up to {human(needed)}; "
                "make room or use another output folder"
            )

    def write(
        self,
        maps: Iterator[MapBatch],
        channels: Sequence[str],
        pool: WorkerPool,
        progress: Callable[[int, int], None],
        reserve_bytes: int,
    ) -> WrittenResult:
        """Write the image into the work folder, and find the nuclei for the files that are wanted.

        Parameters
        ----------
        maps : Iterator of MapBatch
            The maps of the foreground tiles.
        channels : Sequence of str
            Their names.
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
        LockLost
            Another run holds the output folder by now.
        """
        source = self.source
        settings, folder = self.settings, self.folder.work
        output = OutputSpec(folder / IMAGE, folder / SPOOL, settings.overlay, settings.jpeg, reserve_bytes)
        limit = settings.damaged.limit

        def on_progress(done: int, of: int) -> None:
            self.folder.check_noticed()
            progress(done, of)

        if not settings.outputs:
            return WrittenResult(
                stitch(source, maps, output, pool, on_progress, channels=channels, damage_limit=limit), None
            )
        nuclei = self._outputs(channels, pool)
        try:
            image = stitch(
                source,
                maps,
                output,
                pool,
                on_progress,
                channels=channels,
                damage_limit=limit,
                collector=nuclei.collector,
            )
        except BaseException:
            nuclei.close()
            raise
        return WrittenResult(image, nuclei)

    def collect(
        self,
        maps: Iterator[MapBatch],
        channels: Sequence[str],
        pool: WorkerPool,
        progress: Callable[[int, int], None],
    ) -> OutputJob:
        """Find the nuclei for files beside an image that is finished already; `publish_outputs` writes them.

        Parameters
        ----------
        maps : Iterator of MapBatch
            The maps of the foreground tiles.
        channels : Sequence of str
            Their names.
        pool : WorkerPool
            The workers.
        progress : callable
            Called with the number of tiles whose maps have arrived, and of all.

        Raises
        ------
        LockLost
            Another run holds the output folder by now.
        """
        nuclei = self._outputs(channels, pool)
        try:
            for done in collect(self.source, maps, nuclei.collector, channels, self.settings.overlay, pool):
                self.folder.check_noticed()
                progress(done, len(self.foreground))
        except BaseException:
            nuclei.close()
            raise
        return nuclei

    def publish_outputs(
        self, found: SegmentationResult, wanted: Sequence[str], nuclei: OutputJob
    ) -> SegmentationResult:
        """Write files of nuclei, and give them their names beside an image that is finished already.

        Parameters
        ----------
        found : SegmentationResult
            Of the run that made the image.
        wanted : Sequence of str
            Words of the setting `outputs`.
        nuclei : OutputJob
            From `collect`; it is closed.

        Returns
        -------
        SegmentationResult
            As ``summary.json`` has it by now.

        Raises
        ------
        UnreadableSlide
            The slide changed meanwhile.
        LockLost
            Another run holds the output folder by now.
        """
        key = outputs_key(self.key, self.settings)
        with nuclei:
            made = nuclei.write(key, wanted, found, self.folder.path / IMAGE)
        self._check_slide()
        there = outputs_there(self.folder.path)
        kept: tuple[OutputFile, ...] = ()
        if there is not None and there.key == key:
            kept = tuple(one for one in there.files if one.output not in wanted)
        outputs = replace(made, files=(*kept, *made.files))
        result = replace(found, outputs=outputs)
        publish_outputs(
            self.folder.work,
            self.folder.path,
            summary=result.to_json(),
            check=self.folder.check,
            outputs=[one.file for one in made.files],
            stale=self._stale(outputs),
        )
        return result

    @property
    def source(self) -> TiledSlide:
        """The slide and its tiles."""
        return TiledSlide(self.slide, self.grid, self.foreground)

    def _outputs(self, channels: Sequence[str], pool: WorkerPool) -> OutputJob:
        from nuclei_segmentation.operators.stitch.outputs.job import OutputJob

        return OutputJob(
            self.slide,
            self.provenance.slide.fingerprint,
            self.grid,
            channels,
            self.settings,
            self.folder.work,
            pool,
        )

    def _stale(self, outputs: NucleiOutputs | None) -> list[str]:
        """Return the names of older files of nuclei that have no successor."""
        there = outputs_there(self.folder.path)
        kept = set() if outputs is None else {one.file for one in outputs.files}
        return [] if there is None else [one.file for one in there.files if one.file not in kept]

    def _check_slide(self) -> None:
        path = self.slide.info.path
        if stat_of(path) != self.before:
            raise UnreadableSlide(f"{path} changed while it was read; run again when it is complete")

    def publish(
        self,
        written: WrittenResult,
        recorder: Recorder,
        timer: StageTimer,
        *,
        resumed: int = 0,
        shards: int = 1,
        waited: float = 0.0,
    ) -> SegmentationResult:
        """Judge the image, and give it and the files beside it their names.

        Parameters
        ----------
        written : WrittenResult
            What was written.
        recorder : Recorder
            Of the run.
        timer : StageTimer
            Times by stage.
        resumed : int, optional
            Tiles that an earlier run had inferred.
        shards : int, optional
            Number of filter processes that shared the tiles.
        waited : float, optional
            Seconds spent on waiting for other stages.

        Returns
        -------
        SegmentationResult
            As ``summary.json`` has it.

        Raises
        ------
        UnreadableSlide
            The slide changed meanwhile.
        LockLost
            Another run holds the output folder by now.
        """
        image = written.image
        list_damage(image.damaged)
        guessed = warn_of_guesses(self.guessed, self.grid)
        path = self.slide.info.path
        self._check_slide()
        render = find_render_config(path, *self.folders)
        if render is None:
            log.info("no %s beside the slide; a plain one is written", RENDER)
        result = SegmentationResult(
            output=self.folder.path,
            key=self.key,
            provenance=self.provenance,
            tiles=len(self.grid),
            foreground=len(self.foreground),
            resumed=resumed,
            shards=shards,
            tissue_pixels=None if self.tissue is None else _area(self.tissue, self.grid),
            guessed_pixels=None if self.tissue is None else _area(self.guessed, self.grid),
            guessed=guessed,
            nuclei=image.nuclei,
            nuclear_pixels=image.nuclei_pixels,
            damaged=image.damaged,
            warnings=tuple(recorder.warnings),
            seconds=recorder.seconds,
            waited=waited,
            stages=dict(timer.stages),
            num_workers=self.settings.num_workers,
            peak_memory=recorder.peak_memory,
            image_bytes=image.bytes,
            image_checksum=checksum(self.folder.work / IMAGE),
        )
        outputs: NucleiOutputs | None = None
        if written.nuclei is not None:
            key = outputs_key(self.key, self.settings)
            outputs = written.nuclei.write(key, self.settings.outputs, result, self.folder.work / IMAGE)
            stages, peak = dict(timer.stages), recorder.peak_memory
            result = replace(result, outputs=outputs, seconds=recorder.seconds, stages=stages, peak_memory=peak)
        publish(
            self.folder.work,
            self.folder.path,
            name=self.provenance.model.name,
            run=self.key,
            damaged=len(image.damaged),
            render_config=render,
            summary=result.to_json(),
            check=self.folder.check,
            outputs=[] if outputs is None else [one.file for one in outputs.files],
            stale=self._stale(outputs),
        )
        return result


def _area(mask: npt.NDArray[np.bool_] | None, grid: TileGrid) -> int:
    """Return how many level-0 pixels a mask of the whole slide covers."""
    return 0 if mask is None else round(mask.mean() * grid.bounds.area)
