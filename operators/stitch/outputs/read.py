"""Reads the nuclei of a result back, from its GeoJSON file."""

from __future__ import annotations

import gzip
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.operators.stitch.outputs.geojson import LABEL, PROBABILITY
from nuclei_segmentation.operators.stitch.outputs.names import FILES
from nuclei_segmentation.shared.errors import InputError
from nuclei_segmentation.shared.result import SegmentationResult
from nuclei_segmentation.shared.runtime.outside import parse_json

_NOT_MEASURED = (LABEL, PROBABILITY)


def read_nuclei(result: SegmentationResult | str | os.PathLike[str]) -> Nuclei:
    """Return the nuclei that a run wrote with the output ``geojson``.

    What that file does not hold is empty: tiles are 0, no nucleus is at the border, and the class is 0. Centroids are
    those of the outlines.

    Parameters
    ----------
    result : SegmentationResult, str or os.PathLike
        The result, or its folder.

    Returns
    -------
    Nuclei
        All of them, in memory.

    Raises
    ------
    InputError
        The folder has no such file, or it cannot be read.
    """
    folder = result.output if isinstance(result, SegmentationResult) else Path(result)
    path = next((folder / name for name in FILES["geojson"] if (folder / name).is_file()), None)
    if path is None:
        raise InputError(f"{folder} has no {FILES['geojson'][0]}: run again with `outputs: [geojson]`")
    try:
        features = [feature for document in _documents(path) for feature in document["features"]]
        return _nuclei(features)
    except (AttributeError, EOFError, LookupError, OSError, TypeError, ValueError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}; run again with `outputs: [geojson]`") from error


def _documents(path: Path) -> Iterator[dict[str, Any]]:
    if path.suffix == ".gz":
        yield parse_json(gzip.decompress(path.read_bytes()))
        return
    with zipfile.ZipFile(path) as file:
        for name in sorted(file.namelist()):
            yield parse_json(file.read(name))


def _nuclei(features: list[dict[str, Any]]) -> Nuclei:
    outlines = [
        np.rint(np.asarray(feature["geometry"]["coordinates"][0], np.float64)[:-1] * 4).astype(np.int32)
        for feature in features
    ]
    measured = [feature["properties"]["measurements"] for feature in features]
    names = list(dict.fromkeys(name for one in measured for name in one if name not in _NOT_MEASURED))
    vertices = np.concatenate([np.empty((0, 2), np.int32), *outlines])
    return Nuclei(
        labels=np.array([one[LABEL] for one in measured], np.uint32),
        vertices=vertices,
        starts=np.cumsum([0, *map(len, outlines)], dtype=np.int64),
        centroids=np.array([_centroid(outline) for outline in outlines]).reshape(-1, 2),
        tiles=np.zeros((len(features), 2), np.int32),
        at_border=np.zeros(len(features), bool),
        probability=np.array([one[PROBABILITY] for one in measured], np.float64),
        classes=np.zeros(len(features), np.uint8),
        measurements={name: np.array([one.get(name, np.nan) for one in measured], np.float64) for name in names},
        horizon=0 if len(vertices) == 0 else int(vertices[:, 1].min() // 4),
    )


def _centroid(outline: np.ndarray[Any, np.dtype[np.int32]]) -> tuple[float, float]:
    x, y = (outline - outline[0]).T.astype(np.float64)
    next_x, next_y = np.roll(x, -1), np.roll(y, -1)
    cross = x * next_y - next_x * y
    twice = cross.sum()
    middle_x, middle_y = ((x + next_x) * cross).sum() / (3 * twice), ((y + next_y) * cross).sum() / (3 * twice)
    return float(outline[0, 0] + middle_x) / 4, float(outline[0, 1] + middle_y) / 4
