"""What QuPath takes as objects, read from its sources, and checked with the standard library and shapely alone."""

from __future__ import annotations

import gzip
import json
import math
import zipfile
from pathlib import Path
from typing import Any
from uuid import UUID

from shapely.geometry import Polygon


def _no_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON, and QuPath's reader fails on it")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    assert len({key for key, _ in pairs}) == len(pairs), "a key stands twice"
    return dict(pairs)


def collections(path: Path) -> dict[str, Any]:
    """Return the documents of a file by the name of their entry, as far as they are JSON in UTF-8."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            assert archive.testzip() is None
            texts = {name: archive.read(name) for name in archive.namelist()}
    else:
        texts = {"": gzip.decompress(path.read_bytes())}
    return {
        name: json.loads(text.decode("utf-8"), parse_constant=_no_constant, object_pairs_hook=_pairs)
        for name, text in texts.items()
    }


def features(path: Path) -> list[dict[str, Any]]:
    """Return the features of a file, after checking what QuPath expects of them."""
    found = []
    for collection in collections(path).values():
        assert collection["type"] == "FeatureCollection"
        found += collection["features"]
    for feature in found:
        _check(feature)
    assert len({feature["id"] for feature in found}) == len(found)
    return found


def _check(feature: dict[str, Any]) -> None:
    assert feature["type"] == "Feature"
    assert str(UUID(feature["id"])) == feature["id"]
    assert UUID(feature["id"]).version == 5
    assert feature["geometry"]["type"] == "Polygon"
    (ring,) = feature["geometry"]["coordinates"]
    assert ring[0] == ring[-1]
    assert len(ring) >= 4
    assert all(len(point) == 2 and all(round(value, 2) == value for value in point) for point in ring)
    assert Polygon(ring).is_valid
    properties = feature["properties"]
    assert properties["objectType"] == "detection"
    classification = properties["classification"]
    assert classification["name"]
    assert len(classification["color"]) == 3
    assert all(type(value) is int and 0 <= value <= 255 for value in classification["color"])
    for value in properties["measurements"].values():
        assert type(value) in (int, float)
        assert math.isfinite(value)
