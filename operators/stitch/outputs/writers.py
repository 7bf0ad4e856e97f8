"""Which writers make the files of which output."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nuclei_segmentation.operators.stitch.objects.nuclei import NucleiHeader
from nuclei_segmentation.operators.stitch.outputs.csv_table import CsvWriter
from nuclei_segmentation.operators.stitch.outputs.density import DensityWriter
from nuclei_segmentation.operators.stitch.outputs.geojson import geojson_name, geojson_writer
from nuclei_segmentation.operators.stitch.outputs.labels import LabelsWriter
from nuclei_segmentation.operators.stitch.outputs.names import CSV_NAME, DENSITY, LABELS, PARQUET_NAME, REPORT
from nuclei_segmentation.operators.stitch.outputs.report import ReportWriter
from nuclei_segmentation.operators.stitch.outputs.writer import Writer
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.result import SegmentationResult
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool


def open_writers(
    wanted: Sequence[str],
    work: Path,
    header: NucleiHeader,
    measurements: Sequence[str],
    result: SegmentationResult,
    overview: Callable[[], Pixels],
    pool: WorkerPool,
) -> list[tuple[str, str, Writer[Any]]]:
    """Open the writers of some outputs.

    Parameters
    ----------
    wanted : Sequence of str
        Words of the setting `outputs`.
    work : pathlib.Path
        The folder for the files.
    header : NucleiHeader
        What all nuclei have in common.
    measurements : Sequence of str
        Names of the measurements, in their order.
    result : SegmentationResult
        Of the run that made the image.
    overview : callable
        Returns the image, reduced: (h, w, 3) uint8 RGB.
    pool : WorkerPool
        The workers.

    Returns
    -------
    list of (str, str, Writer)
        The output, the name of the file, its writer.

    Raises
    ------
    NoSpace
        The disk is full.
    OutputError
        A file cannot be made.
    """
    named: list[tuple[str, str, Callable[[Path], Writer[Any]]]] = []
    if "geojson" in wanted:
        named.append(("geojson", geojson_name(header.count), lambda path: geojson_writer(path, header)))
    if "table" in wanted:
        named.append(("table", CSV_NAME, lambda path: CsvWriter(path, header, measurements)))
        if importlib.util.find_spec("pyarrow") is not None:  # the extra `parquet`
            from nuclei_segmentation.operators.stitch.outputs.parquet import ParquetWriter

            named.append(("table", PARQUET_NAME, lambda path: ParquetWriter(path, header, measurements)))
    if "labels" in wanted:
        named.append(("labels", LABELS, lambda path: LabelsWriter(path, header, pool)))
    if "density" in wanted:
        named.append(("density", DENSITY, lambda path: DensityWriter(path, header)))
    if "report" in wanted:
        named.append(("report", REPORT, lambda path: ReportWriter(path, header, result, overview())))
    opened: list[tuple[str, str, Writer[Any]]] = []
    try:
        for output, name, writer in named:
            opened.append((output, name, writer(work / name)))
    except BaseException:
        for _, _, one in opened:
            one.close()
        raise
    return opened
