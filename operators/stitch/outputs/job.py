"""From maps to files of nuclei in the work folder: what a run with `outputs` does besides the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from nuclei_segmentation.operators.stitch.objects.collect import NucleusCollector
from nuclei_segmentation.operators.stitch.objects.find import NucleusFinder
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader, NucleusClass
from nuclei_segmentation.operators.stitch.objects.spool import NucleusSpool
from nuclei_segmentation.operators.stitch.outputs.area_counts import AreaCounts
from nuclei_segmentation.operators.stitch.outputs.chunks import chunks
from nuclei_segmentation.operators.stitch.outputs.report_figures import read_overview
from nuclei_segmentation.operators.stitch.outputs.writers import open_writers
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.nuclei_outputs import NucleiOutputs, OutputFile
from nuclei_segmentation.shared.result import SegmentationResult, checksum
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.progress import Progress
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.slides import Slide

SPOOL = "nuclei"
STAGE = "stitch"
NUCLEUS = NucleusClass("Nucleus", (0, 255, 0))
"""The class of all nuclei of a model without classes."""


class OutputJob(Closing):
    """The nuclei of a run, and the files that they go into.

    Parameters
    ----------
    slide : Slide
        The slide.
    fingerprint : str
        Of the slide.
    grid : TileGrid
        Its tiles.
    channels : Sequence of str
        Names of the maps.
    settings : Settings
        Say what is measured and written.
    work : pathlib.Path
        The work folder.
    pool : WorkerPool
        The workers.

    Attributes
    ----------
    collector : NucleusCollector
        Takes the maps.
    """

    def __init__(
        self,
        slide: Slide,
        fingerprint: str,
        grid: TileGrid,
        channels: Sequence[str],
        settings: Settings,
        work: Path,
        pool: WorkerPool,
    ) -> None:
        self._slide, self._fingerprint, self._work, self._pool = slide, fingerprint, work, pool
        finder = NucleusFinder.of(slide, grid, channels, settings)
        with writing(work / SPOOL):
            self._spool = NucleusSpool(work / SPOOL, finder.measurements, slide.info.mpp)
        self.collector = NucleusCollector(finder, self._spool, pool)

    def write(self, key: str, wanted: Sequence[str], result: SegmentationResult, image: Path) -> NucleiOutputs:
        """Write the files of all nuclei that were collected.

        Parameters
        ----------
        key : str
            From `outputs_key`.
        wanted : Sequence of str
            Words of the setting `outputs`.
        result : SegmentationResult
            Of the run that made the image.
        image : pathlib.Path
            The image.

        Raises
        ------
        NoSpace
            The disk is full.
        OutputError
            A file cannot be written.
        """
        info, total = self._slide.info, len(self._spool)
        header = NucleiHeader(self._fingerprint, info.width, info.height, info.mpp, total, (NUCLEUS,))
        areas = AreaCounts(header)
        done = 0
        with (
            ExitStack() as stack,
            Progress(lambda: done / max(1, total), lambda: f"{done:,} of {total:,} nuclei written"),
        ):
            overview = partial(read_overview, image)
            named = open_writers(wanted, self._work, header, self._spool.measurements, result, overview, self._pool)
            writers = [stack.enter_context(writer) for _, _, writer in named]

            def encode(nuclei: Nuclei) -> list[Any]:
                return [writer.encode(nuclei) for writer in writers]

            for nuclei, encoded in self._encoded(encode):
                areas.add(areas.areas(nuclei))
                for writer, part in zip(writers, encoded, strict=True):
                    writer.append(part)
                done += len(nuclei)
            for writer in writers:
                writer.finish()
        files = tuple(
            OutputFile(output, name, (self._work / name).stat().st_size, checksum(self._work / name))
            for output, name, _ in named
        )
        low, median, high = (areas.quantile(share) * areas.pixel for share in (0.25, 0.5, 0.75)) if total else (0, 0, 0)
        return NucleiOutputs(
            key=key,
            written=total,
            too_small=self.collector.left_out,
            too_large=self.collector.too_large,
            areas=(low, median, high) if total else None,
            classes={},
            files=files,
        )

    def close(self) -> None:
        """End what is under way, and remove the spool."""
        self.collector.close()
        self._spool.close()

    def _encoded(self, encode: Callable[[Nuclei], list[Any]]) -> Iterator[tuple[Nuclei, list[Any]]]:
        ahead = 2 * self._pool.workers
        read = self._pool.map(STAGE, self._spool.read, self._spool.chunks(), ahead)
        return self._pool.map(STAGE, lambda nuclei: (nuclei, encode(nuclei)), chunks(read), ahead)
