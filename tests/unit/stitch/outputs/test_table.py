"""The table of nuclei as CSV and as GeoParquet: columns, values, types, bytes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid5

import geopandas
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from benchmarks.nuclei import MEASUREMENTS, header, nuclei
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader, NucleusClass
from nuclei_segmentation.operators.stitch.outputs import parquet
from nuclei_segmentation.operators.stitch.outputs.csv_table import CsvWriter
from nuclei_segmentation.operators.stitch.outputs.identity import NAMESPACE
from nuclei_segmentation.operators.stitch.outputs.parquet import ParquetWriter
from tests.helpers.nuclei_files import pieces, write

COUNT = 230
WRITERS: dict[str, type[CsvWriter] | type[ParquetWriter]] = {"csv.gz": CsvWriter, "parquet": ParquetWriter}
COLUMNS = [
    "label",
    "id",
    "x_px",
    "y_px",
    "x_um",
    "y_um",
    "tile_row",
    "tile_column",
    "at_border",
    "probability",
    "class",
]
GEOMETRY = ["bbox", "geometry"]


def written(folder: Path, kind: str, about: NucleiHeader, found: list[Nuclei], **how: int) -> Path:
    path = folder / f"nuclei.{kind}"
    rows = how.pop("rows", 100)
    more = {} if kind == "csv.gz" else {"rows": rows}
    write(WRITERS[kind](path, about, MEASUREMENTS, **more), found, **({"size": 50} | how))
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of either table; of CSV as numbers where the column holds numbers."""
    if path.suffix == ".parquet":
        made: list[dict[str, Any]] = pq.read_table(path).drop(GEOMETRY).to_pylist()
        return made
    text = gzip.decompress(path.read_bytes()).decode()
    texts = {"id", "class"}
    return [
        {
            name: value if name in texts else {"": None, "true": True, "false": False}.get(value, value)
            for name, value in row.items()
        }
        for row in csv.DictReader(io.StringIO(text, newline=""))
    ]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("mpp", [(0.25, 0.5), None])
def test_one_row_a_nucleus(tmp_path: Path, kind: str, mpp: tuple[float, float] | None) -> None:
    about, found = header(COUNT, 2, mpp), nuclei(COUNT, classes=2)
    made = rows(written(tmp_path, kind, about, [found]))
    assert len(made) == COUNT
    exact = kind == "parquet"
    for index, row in enumerate(made):
        x, y = found.centroids[index]
        wanted: dict[str, Any] = {
            "label": index + 1,
            "id": str(uuid5(NAMESPACE, f"{about.fingerprint}/{index + 1}")),
            "x_px": x,
            "y_px": y,
            **({} if mpp is None else {"x_um": x * mpp[0], "y_um": y * mpp[1]}),
            "tile_row": found.tiles[index, 0],
            "tile_column": found.tiles[index, 1],
            "at_border": bool(found.at_border[index]),
            "probability": found.probability[index],
            "class": f"Class {found.classes[index]}",
            **{name: None if np.isnan(values[index]) else values[index] for name, values in found.measurements.items()},
        }
        assert list(row) == list(wanted)
        for name, value in wanted.items():
            if isinstance(value, float):
                assert float(row[name]) == pytest.approx(value, abs=0 if exact else 6e-5, rel=0)
            elif isinstance(value, bool) or value is None or isinstance(value, str):
                assert row[name] == value
            else:
                assert int(row[name]) == value


@pytest.mark.parametrize("kind", WRITERS)
def test_what_is_not_finite_is_missing(tmp_path: Path, kind: str) -> None:
    found = nuclei(3)
    found.measurements["Solidity"][:] = np.nan, np.inf, 0.5
    values = [row["Solidity"] for row in rows(written(tmp_path, kind, header(3), [found]))]
    assert values[:2] == [None, None]
    assert float(values[2]) == 0.5


@pytest.mark.parametrize("kind", WRITERS)
def test_a_table_without_nuclei_has_all_columns(tmp_path: Path, kind: str) -> None:
    path = written(tmp_path, kind, header(0), [])
    frame = pd.read_csv(path) if kind == "csv.gz" else pd.read_parquet(path)
    assert len(frame) == 0
    assert list(frame) == [*COLUMNS, *MEASUREMENTS, *(GEOMETRY if kind == "parquet" else [])]


@pytest.mark.parametrize("kind", WRITERS)
def test_one_nucleus(tmp_path: Path, kind: str) -> None:
    (row,) = rows(written(tmp_path, kind, header(1), [nuclei(1)]))
    assert int(row["label"]) == 1


@pytest.mark.parametrize("kind", WRITERS)
def test_class_names_of_any_kind(tmp_path: Path, kind: str) -> None:
    names = ['Tumour, "A"', "two\nlines", "核 µ"]
    classes = tuple(NucleusClass(name, (1, 2, 3)) for name in names)
    found = nuclei(COUNT, classes=3)
    made = rows(written(tmp_path, kind, replace(header(COUNT), classes=classes), [found]))
    assert [row["class"] for row in made] == [names[number] for number in found.classes]


@pytest.mark.parametrize("kind", WRITERS)
def test_the_same_bytes_for_all_pieces_and_workers(tmp_path: Path, kind: str) -> None:
    about, found = header(COUNT), nuclei(COUNT)
    contents = set()
    for ends, workers in [((), 1), ((7, 99, 100), 3), (range(1, COUNT), 2)]:
        contents.add(written(tmp_path, kind, about, pieces(found, *ends), workers=workers).read_bytes())
    assert len(contents) == 1


@pytest.mark.parametrize("kind", WRITERS)
def test_the_labels_have_no_gaps_from_chunk_to_chunk(tmp_path: Path, kind: str) -> None:
    made = rows(written(tmp_path, kind, header(COUNT), [nuclei(COUNT)], size=9))
    assert [int(row["label"]) for row in made] == list(range(1, COUNT + 1))


def test_csv_opens_in_pandas_and_polars(tmp_path: Path) -> None:
    path, found = written(tmp_path, "csv.gz", header(COUNT), [nuclei(COUNT)]), nuclei(COUNT)
    for frame in (pd.read_csv(path), pl.read_csv(path).to_pandas()):
        assert list(frame) == [*COLUMNS, *MEASUREMENTS]
        assert frame["at_border"].dtype == bool
        assert frame["label"].tolist() == found.labels.tolist()
        assert frame["Circularity"].isna().sum() == math.ceil(COUNT / 7)
        assert np.allclose(frame["Area µm^2"], found.measurements["Area µm^2"], atol=6e-5)


def test_parquet_says_what_geoparquet_asks_for(tmp_path: Path) -> None:
    made = pq.read_schema(written(tmp_path, "parquet", header(COUNT), [nuclei(COUNT)]))
    geo = json.loads(made.metadata[b"geo"])
    assert geo == {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {
            "geometry": {
                "encoding": "WKB",
                "geometry_types": ["Polygon"],
                "crs": None,
                "edges": "planar",
                "covering": {"bbox": {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}},
            }
        },
    }
    assert '"crs": null' in made.metadata[b"geo"].decode(), "a missing key would mean degrees on a globe"


def test_parquet_types(tmp_path: Path) -> None:
    made = pq.read_schema(written(tmp_path, "parquet", header(COUNT), [nuclei(COUNT)]))
    float32 = pa.float32()
    assert dict(zip(made.names, made.types, strict=True)) == {
        "label": pa.uint32(),
        "id": pa.string(),
        **dict.fromkeys(("x_px", "y_px", "x_um", "y_um"), pa.float64()),
        "tile_row": pa.int32(),
        "tile_column": pa.int32(),
        "at_border": pa.bool_(),
        "probability": pa.float64(),
        "class": pa.string(),
        **dict.fromkeys(MEASUREMENTS, pa.float64()),
        "bbox": pa.struct([pa.field(side, float32, nullable=False) for side in ("xmin", "ymin", "xmax", "ymax")]),
        "geometry": pa.binary(),
    }


def test_parquet_polygons_are_the_outlines(tmp_path: Path) -> None:
    found = nuclei(COUNT)
    path = written(tmp_path, "parquet", header(COUNT), [found])
    frame = geopandas.read_parquet(path)
    assert frame.crs is None
    assert set(frame.geom_type) == {"Polygon"}
    assert frame.is_valid.all()
    for polygon, first, end in zip(frame.geometry, found.starts, found.starts[1:], strict=False):
        ring = shapely.get_coordinates(polygon)
        assert np.array_equal(ring[:-1], found.vertices[first:end] / 4)
        assert np.array_equal(ring[-1], ring[0])
    boxes = np.array([list(box.values()) for box in pq.read_table(path)["bbox"].to_pylist()])
    assert np.array_equal(boxes, frame.bounds.to_numpy())


def test_parquet_is_read_by_box(tmp_path: Path) -> None:
    path = written(tmp_path, "parquet", header(COUNT), [nuclei(COUNT)])
    whole = geopandas.read_parquet(path)
    some = geopandas.read_parquet(path, bbox=(0, 0, 40_000, 40_000))
    wanted = whole.bounds.minx.le(40_000) & whole.bounds.miny.le(40_000)
    assert 0 < len(some) < COUNT
    assert some["label"].tolist() == whole["label"][wanted].tolist()


def test_boxes_hold_outlines_that_float32_cannot_name() -> None:
    vertices = np.array([[2**25 + 1, 2**25 - 2], [2**25 + 3, 2**26 + 3], [2**26 + 3, 2**26 + 5]], np.int32)
    found = replace(nuclei(1, vertices=3), vertices=vertices)
    (box,) = parquet._boxes(found).to_pylist()
    low, high = vertices.min(axis=0) / 4, vertices.max(axis=0) / 4
    assert box["xmin"] < low[0]
    assert box["xmax"] > high[0]
    assert box["ymin"] == low[1], "this one float32 can name"
    assert box["ymax"] > high[1]


@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (99, [99]),
        (100, [100]),
        (101, [101]),
        (199, [199]),
        (200, [100, 100]),
        (299, [149, 150]),
        (310, [103, 103, 104]),
    ],
)
@pytest.mark.parametrize("size", [7, 1000])
def test_row_groups_are_even_and_have_statistics(tmp_path: Path, count: int, sizes: list[int], size: int) -> None:
    found = nuclei(count)
    meta = pq.ParquetFile(written(tmp_path, "parquet", header(count), [found], size=size)).metadata
    groups = [meta.row_group(number) for number in range(meta.num_row_groups)]
    assert [group.num_rows for group in groups] == sizes
    names = {meta.schema.column(number).path: number for number in range(meta.num_columns)}
    first = 0
    for group in groups:
        columns = {name: group.column(number) for name, number in names.items()}
        assert {column.compression for column in columns.values()} == {"ZSTD"}
        end = first + group.num_rows
        assert (columns["label"].statistics.min, columns["label"].statistics.max) == (first + 1, end)
        rings = found.vertices[found.starts[first] : found.starts[end]] / 4
        (xmin, ymin), (xmax, ymax) = rings.min(axis=0), rings.max(axis=0)
        for side, least, most in (
            ("xmin", xmin, None),
            ("ymin", ymin, None),
            ("xmax", None, xmax),
            ("ymax", None, ymax),
        ):
            statistics = columns[f"bbox.{side}"].statistics
            assert least is None or statistics.min == least
            assert most is None or statistics.max == most
        missing = np.isnan(found.measurements["Circularity"][first:end]).sum()
        assert columns["Circularity"].statistics.null_count == missing
        assert columns["geometry"].statistics is None
        first = end


def test_row_groups_of_a_run_have_50_000_to_100_000_rows() -> None:
    assert parquet.ROWS == 50_000


def test_a_row_group_of_large_outlines_ends_earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 40_000)
    found = nuclei(COUNT)
    path = written(tmp_path, "parquet", header(COUNT), [found], size=20)
    meta = pq.read_metadata(path)
    sizes = [meta.row_group(number).num_rows for number in range(meta.num_row_groups)]
    assert sum(sizes) == COUNT
    assert max(sizes) < 100
    assert pq.read_table(path)["label"].to_pylist() == found.labels.tolist()


def test_parquet_opens_in_polars(tmp_path: Path) -> None:
    found = nuclei(COUNT)
    frame = pl.read_parquet(written(tmp_path, "parquet", header(COUNT), [found]))
    assert frame["label"].to_list() == found.labels.tolist()
    assert frame["Circularity"].null_count() == math.ceil(COUNT / 7)
    assert frame["at_border"].to_list() == found.at_border.tolist()
