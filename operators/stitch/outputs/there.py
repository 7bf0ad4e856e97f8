"""What files of nuclei an output folder has already."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nuclei_segmentation.operators.stitch.outputs.names import FILES, PARQUET_NAME
from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.nuclei_outputs import NucleiOutputs
from nuclei_segmentation.shared.result import checksum, read_document
from nuclei_segmentation.shared.runtime.files import read_regular


def names_here(output: str) -> tuple[str, ...]:
    """Return the names that the files of an output may have where this program writes them."""
    without = () if importlib.util.find_spec("pyarrow") is not None else (PARQUET_NAME,)
    return tuple(name for name in FILES[output] if name not in without)


def outputs_there(folder: Path) -> NucleiOutputs | None:
    """Return what the summary in an output folder says of files of nuclei; None if nothing."""
    document = read_document(folder) or {}
    try:
        found = NucleiOutputs.from_json(document["outputs"])
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    # The summary may come from anywhere: no other name is looked at, or removed.
    return replace(found, files=tuple(one for one in found.files if one.file in FILES.get(one.output, ())))


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
    whole = {one.file for one in there.files if _is_whole(folder / one.file, one.bytes, one.xxh3)}
    return tuple(word for word in wanted if not _has_all(word, whole))


def refuse_foreign(folder: Path, wanted: Sequence[str], *, overwrite: bool) -> None:
    """Refuse to replace files that no run has written.

    Parameters
    ----------
    folder : pathlib.Path
        The output folder.
    wanted : Sequence of str
        Words of the setting `outputs`.
    overwrite : bool
        Whether files, but not folders, may be replaced all the same.

    Raises
    ------
    OutputError
        Something has the name of an output, and no summary knows it.
    """
    there = outputs_there(folder)
    ours = set() if there is None else {one.file for one in there.files}
    for name in (name for word in wanted for name in names_here(word)):
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            raise OutputError(f"{path} is a folder; remove it or use another output folder")
        if name not in ours and not overwrite and os.path.lexists(path):
            raise OutputError(
                f"{path} was not written by a run; move it away, use another folder, or set `overwrite: true` in "
                "config.yaml to replace it"
            )


def remove_orphans(folder: Path, marker: Path) -> None:
    """Remove what a run that was killed while it published has put into an output folder without a summary of it.

    Parameters
    ----------
    folder : pathlib.Path
        The output folder.
    marker : pathlib.Path
        The file in the work folder that says which files were about to get their names; it need not be there.
    """
    try:
        names = (read_regular(marker, 1 << 12) or b"").decode(errors="replace").splitlines()
    except FileNotFoundError:
        return
    there = outputs_there(folder)
    known = set() if there is None else {one.file for one in there.files}
    for name in {name for names_of in FILES.values() for name in names_of} & set(names) - known:
        (folder / name).unlink(missing_ok=True)


def _has_all(output: str, names: set[str]) -> bool:
    """Tell whether an output has all its files: of GeoJSON one of two, of the others each."""
    there = [name in names for name in names_here(output)]
    return any(there) if output == "geojson" else all(there)


def _is_whole(path: Path, size: int, xxh3: str) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size and checksum(path) == xxh3
    except OSError:
        return False
