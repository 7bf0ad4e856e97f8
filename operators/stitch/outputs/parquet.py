"""The table of nuclei as GeoParquet 1.1.0, with the outlines as polygons.

Writing it takes pyarrow, the extra ``parquet`` of the package; this module is imported only where it is installed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader
from nuclei_segmentation.operators.stitch.outputs.columns import columns
from nuclei_segmentation.operators.stitch.outputs.identity import ids
from nuclei_segmentation.operators.stitch.outputs.new_file import NewFile
from nuclei_segmentation.operators.stitch.outputs.rings import closed
from nuclei_segmentation.operators.stitch.outputs.writer import Writer

ROWS = 50_000
"""Fewest rows of a row group; the most are one less than twice as many."""
GROUP_BYTES = 256 << 20
"""A row group that is larger than this in memory ends earlier: outlines of noise may have thousands of vertices."""

_BOX = ("xmin", "ymin", "xmax", "ymax")
_GEO = {
    "version": "1.1.0",
    "primary_column": "geometry",
    "columns": {
        "geometry": {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "crs": None,  # pixels; without this key, readers take degrees on a globe
            "edges": "planar",
            "covering": {"bbox": {side: ["bbox", side] for side in _BOX}},
        }
    },
}
_KINDS: Mapping[str, Any] = {
    "label": pa.uint32(),
    "id": pa.string(),
    "tile_row": pa.int32(),
    "tile_column": pa.int32(),
    "at_border": pa.bool_(),
    "class": pa.string(),
}
"""Types of the columns that are not float64."""
_BOX_KIND = pa.struct([pa.field(side, pa.float32(), nullable=False) for side in _BOX])
_WKB = np.dtype([("order", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4")])
_POLYGON = 3
_POINT = 16  # bytes


class ParquetWriter(Writer[pa.RecordBatch]):
    """Writes the table as GeoParquet. A row group is compressed when it is complete.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    header : NucleiHeader
        What all nuclei have in common.
    measurements : Sequence of str
        Names of the measurements, in their order; a table without nuclei has these columns too.
    rows : int, optional
        Fewest rows of a row group, as far as there are so many.
    """

    def __init__(self, path: Path, header: NucleiHeader, measurements: Sequence[str], rows: int = ROWS) -> None:
        self._header = header
        self._schema = schema(header, measurements)
        self._classes = pa.array([one.name for one in header.classes], pa.string())
        groups = max(1, header.count // rows)
        self._ends = [header.count * number // groups for number in range(1, groups + 1)]
        self._written = 0
        self._pending: list[pa.RecordBatch] = []
        self._file = NewFile(path)
        try:
            self._parquet = pq.ParquetWriter(
                _Sink(self._file),
                self._schema,
                compression="zstd",
                compression_level=1,
                use_dictionary=["class"],
                write_statistics=[*self._schema.names[:-2], *(f"bbox.{side}" for side in _BOX)],
            )
        except BaseException:
            self._file.close()
            raise

    def encode(self, nuclei: Nuclei) -> pa.RecordBatch:
        """See `Writer`."""
        values: list[Any] = [
            nuclei.labels,
            _strings(ids(self._header.fingerprint, nuclei.labels)),
            *nuclei.centroids.T,
        ]
        if self._header.mpp is not None:
            values += [axis * mpp for axis, mpp in zip(nuclei.centroids.T, self._header.mpp, strict=True)]
        values += [*nuclei.tiles.T, nuclei.at_border, nuclei.probability, self._classes.take(pa.array(nuclei.classes))]
        values += nuclei.measurements.values()
        arrays = [
            value if isinstance(value, pa.Array) else _array(np.ascontiguousarray(value), field.type)
            for value, field in zip(values, self._schema, strict=False)
        ]
        return pa.RecordBatch.from_arrays([*arrays, _boxes(nuclei), _polygons(nuclei)], schema=self._schema)

    def append(self, encoded: pa.RecordBatch) -> None:
        """See `Writer`."""
        self._pending.append(encoded)
        while left := sum(batch.num_rows for batch in self._pending):
            missing = next(end for end in self._ends if end > self._written) - self._written
            if left < missing and sum(batch.nbytes for batch in self._pending) < GROUP_BYTES:
                break
            self._write_group(min(left, missing))

    def _write_group(self, rows: int) -> None:
        """Write a row group of the first rows that are pending."""
        table = pa.Table.from_batches(self._pending)
        self._parquet.write_table(table.slice(0, rows), row_group_size=rows)
        self._pending = table.slice(rows).to_batches()
        self._written += rows

    def finish(self) -> None:
        """See `Writer`."""
        self._parquet.close()
        self._file.finish()

    def close(self) -> None:
        """See `Writer`."""
        self._file.close()
        self._parquet.close()


class _Sink:
    """What pyarrow writes to. After the file was closed it takes all and keeps nothing: pyarrow ends a file always.

    Parameters
    ----------
    file : NewFile
        The file.
    """

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self.closed = False

    def write(self, data: bytes) -> int:
        return len(data) if self._file.closed else self._file.write(data)

    def tell(self) -> int:
        return self._file.tell()

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def schema(header: NucleiHeader, measurements: Sequence[str]) -> pa.Schema:
    """Return names and types of the columns, with what GeoParquet says about them.

    Parameters
    ----------
    header : NucleiHeader
        What all nuclei have in common.
    measurements : Sequence of str
        Names of the measurements, in their order.
    """
    names = columns(header, measurements)
    first = len(names) - len(measurements)
    fields = [pa.field(name, _KINDS.get(name, pa.float64()), nullable=False) for name in names[:first]]
    fields += [pa.field(name, pa.float64()) for name in names[first:]]
    fields += [pa.field("bbox", _BOX_KIND, nullable=False), pa.field("geometry", pa.binary(), nullable=False)]
    return pa.schema(fields, {"geo": json.dumps(_GEO)})


def _array(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    """Return values as a column, null where one is not finite."""
    if values.dtype.kind != "f":
        return pa.array(values, kind)
    missing = ~np.isfinite(values)
    return pa.array(values, kind, mask=missing if missing.any() else None)


def _strings(texts: npt.NDArray[np.bytes_]) -> pa.Array:
    """Return ASCII texts of the same length as a column."""
    offsets = np.arange(len(texts) + 1, dtype=np.int32) * texts.dtype.itemsize
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(texts.tobytes()))


def _boxes(nuclei: Nuclei) -> pa.Array:
    """Return the smallest rectangles that hold the outlines, in level-0 pixels."""
    sides = []
    for extreme, outwards in ((np.minimum, -np.inf), (np.maximum, np.inf)):
        for axis in nuclei.vertices.T:
            exact = extreme.reduceat(axis, nuclei.starts[:-1]) / 4
            rounded = exact.astype(np.float32)
            cuts = rounded > exact if extreme is np.minimum else rounded < exact
            sides.append(np.where(cuts, np.nextafter(rounded, np.float32(outwards)), rounded))
    return pa.StructArray.from_arrays([pa.array(side) for side in sides], fields=list(_BOX_KIND))


def _polygons(nuclei: Nuclei) -> pa.Array:
    """Return the outlines as well-known binary, in level-0 pixels."""
    vertices, starts = closed(nuclei)
    points = (vertices * 0.25).astype("<f8", copy=False).tobytes()
    heads = np.empty(len(nuclei), _WKB)
    heads["order"], heads["type"], heads["rings"], heads["points"] = 1, _POLYGON, 1, np.diff(starts)
    bounds = pairwise((starts * _POINT).tolist())
    rings = [points[first:end] for first, end in bounds]
    parts = chain.from_iterable(zip(heads.view(f"V{_WKB.itemsize}").tolist(), rings, strict=True))
    offsets = (starts * _POINT + np.arange(len(starts)) * _WKB.itemsize).astype(np.int32)
    return pa.Array.from_buffers(pa.binary(), len(nuclei), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(parts))])
