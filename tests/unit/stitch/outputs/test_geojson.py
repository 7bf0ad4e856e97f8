"""Nuclei as GeoJSON: QuPath's rules, and the bytes."""

from __future__ import annotations

import gzip
import struct
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path
from uuid import uuid5

import numpy as np
import pytest

from benchmarks.nuclei import header, nuclei
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader, NucleusClass
from nuclei_segmentation.operators.stitch.outputs import geojson
from nuclei_segmentation.operators.stitch.outputs.feature_check import check
from nuclei_segmentation.operators.stitch.outputs.geojson import geojson_name, geojson_writer
from nuclei_segmentation.operators.stitch.outputs.identity import NAMESPACE
from nuclei_segmentation.shared.errors import NucleiError
from tests.helpers.nuclei_files import pieces, write
from tests.helpers.qupath_rules import collections, features

COUNT = 230


def written(folder: Path, about: NucleiHeader, found: list[Nuclei], *, one_file: int = 1000, **how: int) -> Path:
    path = folder / geojson_name(about.count, one_file)
    write(geojson_writer(path, about, one_file=one_file, entry=100), found, **({"size": 50} | how))
    return path


@pytest.mark.parametrize("one_file", [COUNT, COUNT - 1], ids=["gz", "zip"])
def test_every_nucleus_is_what_qupath_takes(tmp_path: Path, one_file: int) -> None:
    about, found = header(COUNT), nuclei(COUNT)
    made = features(written(tmp_path, about, [found], one_file=one_file))
    assert len(made) == COUNT
    for index, feature in enumerate(made):
        assert feature["id"] == str(uuid5(NAMESPACE, f"{about.fingerprint}/{index + 1}"))
        ring = found.vertices[found.starts[index] : found.starts[index + 1]] / 4
        assert feature["geometry"]["coordinates"][0][:-1] == ring.tolist()
        assert feature["properties"]["classification"] == {"name": "Nucleus", "color": [200, 0, 100]}
        measurements = feature["properties"]["measurements"]
        assert measurements.pop("Label") == index + 1
        assert measurements.pop("Detection probability") == pytest.approx(found.probability[index], abs=6e-5)
        wanted = {name: values[index] for name, values in found.measurements.items() if np.isfinite(values[index])}
        assert list(measurements) == list(wanted)
        assert measurements == pytest.approx(wanted, abs=6e-5)
        assert ("Circularity" in measurements) == (index % 7 != 0)


def test_the_file_is_utf_8_with_the_micro_sign(tmp_path: Path) -> None:
    text = gzip.decompress(written(tmp_path, header(1), [nuclei(1)]).read_bytes())
    assert b'"Area \xc2\xb5m^2":' in text


def test_what_is_not_finite_is_left_out(tmp_path: Path) -> None:
    found = nuclei(3)
    found.measurements["Solidity"][:] = np.nan, np.inf, -np.inf
    found.probability[1] = np.nan
    made = [feature["properties"]["measurements"] for feature in features(written(tmp_path, header(3), [found]))]
    assert not [measurements for measurements in made if "Solidity" in measurements]
    assert ["Detection probability" in measurements for measurements in made] == [True, False, True]


@pytest.mark.parametrize("one_file", [1000, 0])
def test_classes_have_name_and_colour(tmp_path: Path, one_file: int) -> None:
    names = ['Tumour "A", \\ new\nline', "Ångström µ 核", "Immune: T cell"]
    classes = tuple(NucleusClass(name, (number, 128, 255)) for number, name in enumerate(names))
    found = nuclei(COUNT, classes=3)
    made = features(written(tmp_path, replace(header(COUNT), classes=classes), [found], one_file=one_file))
    shown = [feature["properties"]["classification"] for feature in made]
    assert shown == [{"name": names[number], "color": [number, 128, 255]} for number in found.classes]


def test_no_nuclei_are_an_empty_collection(tmp_path: Path) -> None:
    path = written(tmp_path, header(0), [])
    assert path.name == "nuclei.geojson.gz"
    assert collections(path) == {"": {"type": "FeatureCollection", "features": []}}


def test_very_large_and_very_small_coordinates(tmp_path: Path) -> None:
    about = replace(header(1), width=1_234_567, height=2_000_000)
    vertices = np.array([[0, 0], [4_938_268, 1], [39_999, 8_000_000]], np.int32)
    found = replace(nuclei(1, vertices=3), vertices=vertices)
    (feature,) = features(written(tmp_path, about, [found]))
    assert feature["geometry"]["coordinates"] == [[[0, 0], [1_234_567, 0.25], [9_999.75, 2_000_000], [0, 0]]]


def test_more_nuclei_than_200_000_become_a_zip_file() -> None:
    assert geojson_name(0) == geojson_name(200_000) == "nuclei.geojson.gz"
    assert geojson_name(200_001) == "nuclei.geojson.zip"
    assert geojson.ENTRY == 50_000


def test_entries_are_sorted_and_of_the_same_size(tmp_path: Path) -> None:
    path = written(tmp_path, header(COUNT), [nuclei(COUNT)], one_file=0)
    made = collections(path)
    assert list(made) == [f"nuclei-{first:09}.geojson" for first in (1, 101, 201)]
    assert list(made) == sorted(made)
    assert [len(collection["features"]) for collection in made.values()] == [100, 100, 30]


def test_an_entry_of_large_outlines_ends_earlier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geojson, "ENTRY_BYTES", 30_000)
    made = collections(written(tmp_path, header(COUNT), [nuclei(COUNT)], one_file=0, size=20))
    sizes = [len(collection["features"]) for collection in made.values()]
    assert sizes == [40, 40, 20, 40, 40, 20, 30]
    assert list(made) == sorted(made)


@pytest.mark.parametrize("one_file", [1000, 0], ids=["gz", "zip"])
def test_the_same_bytes_for_all_pieces_and_workers(tmp_path: Path, one_file: int) -> None:
    about, found = header(COUNT), nuclei(COUNT)
    contents = set()
    for ends, workers in [((), 1), ((7, 99, 100), 3), (range(1, COUNT), 2)]:
        path = written(tmp_path, about, pieces(found, *ends), one_file=one_file, workers=workers)
        contents.add(path.read_bytes())
    assert len(contents) == 1


def test_gzip_members_hold_no_date_no_name_and_no_system(tmp_path: Path) -> None:
    path = written(tmp_path, header(COUNT), [nuclei(COUNT)])
    content = path.read_bytes()
    assert content[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
    unpacked = subprocess.run(["gzip", "-dc", path], capture_output=True, check=True, timeout=60).stdout
    assert unpacked == gzip.decompress(content)


def test_zip_entries_hold_no_date(tmp_path: Path) -> None:
    path = written(tmp_path, header(COUNT), [nuclei(COUNT)], one_file=0)
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            assert entry.date_time == (1980, 1, 1, 0, 0, 0)
            assert entry.compress_type == zipfile.ZIP_DEFLATED
            assert entry.flag_bits == 0
            assert not entry.extra
            local = path.read_bytes()[entry.header_offset :][:30]
            assert struct.unpack("<LLL", local[14:26]) == (entry.CRC, entry.compress_size, entry.file_size)


GOOD = (
    b'{"type":"Feature","id":"3b6f4f4c-7a0e-5d0b-9c1e-52a8d0f3b7a1","geometry":{"type":"Polygon","coordinates":'
    b'[[[0,0.5],[1,0],[1,1],[0,0.5]]]},"properties":{"objectType":"detection","classification":{"name":"Nucleus",'
    b'"color":[255,0,0]},"measurements":{"Label":7,"Area \xc2\xb5m^2":1.5}}}'
)


def test_a_right_feature_passes_the_check() -> None:
    check([GOOD], 7, "Label")


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (b"1.5}}}", b"NaN}}}"),
        (b"1.5}}}", b"1.5}}"),
        (b"1.5}}}", b"null}}}"),
        (b"1.5}}}", b".5}}}"),
        (b"detection", b"annotation"),
        (b"Polygon", b"MultiPolygon"),
        (b',"color":[255,0,0]', b""),
        (b"255", b"256"),
        (b'"Nucleus"', b'""'),
        (b"3b6f4f4c-", b"x"),
        (b"[1,1],[0,0.5]", b"[1,1],[0,0]"),
        (b"[1,1],[0,0.5]", b"[0,0.5]"),
        (b"[1,1]", b"[1]"),
        (b"[1,1]", b"[1,1,1]"),
        (b"]]]}", b"]],[[0,0],[1,0],[1,1],[0,0]]]}"),
        (b"\xc2\xb5", b"\xb5"),
        (b":7,", b":8,"),
        (b'"Label":7', b'"label":7'),
    ],
)
def test_a_wrong_feature_is_never_written(right: bytes, wrong: bytes) -> None:
    assert GOOD.count(right) == 1
    with pytest.raises(NucleiError, match=r"the GeoJSON of nucleus 7 is wrong: .*report it"):
        check([GOOD.replace(right, wrong)], 7, "Label")
