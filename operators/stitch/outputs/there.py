"""What files of nuclei an output folder has already."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.nuclei_outputs import NucleiOutputs
from nuclei_segmentation.shared.result import checksum, read_document

FILES = {
    "geojson": ("nuclei.geojson.gz", "nuclei.geojson.zip"),
    "table": ("nuclei.csv.gz", "nuclei.parquet"),
    "labels": ("nuclei-labels.ome.tif",),
    "density": ("density.tif",),
    "report": ("report.html",),
}
"""The names that the files of an output may have."""


def outputs_there(folder: Path) -> NucleiOutputs | None:
    """Return what the summary in an output folder says of files of nuclei; None if nothing."""
    document = read_document(folder) or {}
    try:
        return NucleiOutputs.from_json(document["outputs"])
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def missing_outputs(folder: Path, key: str, wanted: Sequence[str]) -> tuple[str, ...]:
    """Return the outputs that are wanted and not there, whole and of this key.

    Parameters
    ----------
    folder : pathlib.Path
        The output folder.
    key : str
        From `outputs_key`.
    wanted : Sequence of str
        Words of the setting `outputs`.
    """
    there = outputs_there(folder)
    if there is None or there.key != key:
        return tuple(wanted)
    whole = {one.output for one in there.files}
    whole -= {one.output for one in there.files if not _is_whole(folder / one.file, one.bytes, one.xxh3)}
    return tuple(word for word in wanted if word not in whole)


def refuse_foreign(folder: Path, wanted: Sequence[str]) -> None:
    """Refuse to replace files that no run has written.

    Parameters
    ----------
    folder : pathlib.Path
        The output folder.
    wanted : Sequence of str
        Words of the setting `outputs`.

    Raises
    ------
    OutputError
        A file has the name of an output, and no summary knows it.
    """
    there = outputs_there(folder)
    ours = set() if there is None else {one.file for one in there.files}
    for name in (name for word in wanted for name in FILES[word]):
        if name not in ours and os.path.lexists(folder / name):
            raise OutputError(
                f"{folder / name} was not written by a run; move it away, use another folder, or set "
                "`overwrite: true` in config.yaml to replace it"
            )


def _is_whole(path: Path, size: int, xxh3: str) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size and checksum(path) == xxh3
    except OSError:
        return False
