"""Nuclei as GeoJSON, the form in which QuPath imports objects.

A file holds one FeatureCollection. Where there are many nuclei it is a zip file of such, since QuPath holds a whole
entry in memory, some kilobytes a nucleus.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader, NucleusClass
from nuclei_segmentation.operators.stitch.outputs.feature_check import check
from nuclei_segmentation.operators.stitch.outputs.gzip_file import gzip_member
from nuclei_segmentation.operators.stitch.outputs.identity import ids
from nuclei_segmentation.operators.stitch.outputs.names import GEOJSON_NAME, GEOJSON_ZIP_NAME
from nuclei_segmentation.operators.stitch.outputs.new_file import NewFile
from nuclei_segmentation.operators.stitch.outputs.rings import closed
from nuclei_segmentation.operators.stitch.outputs.text import Texts, decimals, integers, joined, quarters
from nuclei_segmentation.operators.stitch.outputs.writer import Writer
from nuclei_segmentation.operators.stitch.outputs.zip_file import ZipFile

ONE_FILE = 200_000
"""Nuclei that are written as one FeatureCollection; more become a zip file."""
ENTRY = 50_000
"""Nuclei of an entry of that zip file: an entry ends at each label that is a multiple of this."""
ENTRY_BYTES = 128 << 20
"""An entry that is larger than this ends earlier, after the chunk: outlines of noise may have thousands of vertices."""
LABEL = "Label"
"""Name of the measurement that holds the label: QuPath keeps measurements, and shows them in its tables."""
PROBABILITY = "Detection probability"
"""Name of the measurement that holds the mean probability; QuPath's extension for StarDist gives it this name."""

_HEAD, _BETWEEN, _TAIL = b'{"type":"FeatureCollection","features":[\n', b",\n", b"\n]}\n"


def geojson_name(count: int, one_file: int = ONE_FILE) -> str:
    """Return the name of the file for so many nuclei.

    Parameters
    ----------
    count : int
        Number of nuclei.
    one_file : int, optional
        How many are written as one FeatureCollection.
    """
    return GEOJSON_NAME if count <= one_file else GEOJSON_ZIP_NAME


def geojson_writer(
    path: Path, header: NucleiHeader, *, one_file: int = ONE_FILE, entry: int = ENTRY
) -> Writer[bytes] | Writer[Features]:
    """Return the writer of the file that `geojson_name` names.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    header : NucleiHeader
        What all nuclei have in common.
    one_file : int, optional
        How many are written as one FeatureCollection.
    entry : int, optional
        How many are written as one entry of a zip file. Chunks must end at each multiple of this label.
    """
    return _OneCollection(path, header) if header.count <= one_file else _Collections(path, header, entry)


@dataclass(frozen=True, slots=True)
class Features:
    """A chunk as text.

    Attributes
    ----------
    first, last : int
        Labels of the first and the last nucleus.
    text : bytes
        Their features, with commas between them.
    """

    first: int
    last: int
    text: bytes


class _Features:
    """Turns nuclei into features, one a nucleus.

    Parameters
    ----------
    header : NucleiHeader
        What all nuclei have in common.
    """

    def __init__(self, header: NucleiHeader) -> None:
        self._fingerprint = header.fingerprint
        self._quarters = quarters(4 * max(header.width, header.height) + 4)
        self._classes = np.array([_middle(one) for one in header.classes], np.bytes_)

    def __call__(self, nuclei: Nuclei) -> list[bytes]:
        """Return the features as checked JSON, each on a line of its own."""
        starts = self._starts(nuclei)
        rings = self._rings(nuclei)
        ends = self._ends(nuclei)
        features = [b"".join(parts) for parts in zip(starts, rings, ends, strict=True)]
        check(features, int(nuclei.labels[0]), LABEL)
        return features

    def _starts(self, nuclei: Nuclei) -> list[bytes]:
        """Return what stands before the outlines."""
        columns: list[Texts | bytes] = [b'{"type":"Feature","id":"', ids(self._fingerprint, nuclei.labels)]
        columns.append(b'","geometry":{"type":"Polygon","coordinates":[[\n')
        return _lines(joined(columns, len(nuclei)))

    def _rings(self, nuclei: Nuclei) -> list[bytes]:
        """Return the outlines, in level-0 pixels."""
        vertices, starts = closed(nuclei)
        after = np.full(len(vertices), b"],")
        after[starts[1:] - 1] = b"]\n"
        x, y = (self._quarters.take(axis) for axis in vertices.T)
        return _lines(joined([b"[", x, b",", y, after], len(vertices)))

    def _ends(self, nuclei: Nuclei) -> list[bytes]:
        """Return what stands after the outlines. Measurements that are missing are left out."""
        columns: list[Texts | bytes] = [b"]]}", self._classes.take(nuclei.classes), *integers(nuclei.labels)]
        for name, values in chain([(PROBABILITY, nuclei.probability)], nuclei.measurements.items()):
            key = f",{_json(name)}:".encode()
            there = np.isfinite(values)
            columns += [key if there.all() else np.where(there, key, b""), *decimals(values)]
        return _lines(joined([*columns, b"}}}\n"], len(nuclei)))


class _OneCollection(Writer[bytes]):
    """Writes one FeatureCollection, a member of the gzip file for each chunk.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    header : NucleiHeader
        What all nuclei have in common.
    """

    def __init__(self, path: Path, header: NucleiHeader) -> None:
        self._features = _Features(header)
        self._count = header.count
        self._file = NewFile(path)

    def encode(self, nuclei: Nuclei) -> bytes:
        """See `Writer`."""
        before = _HEAD if nuclei.labels[0] == 1 else _BETWEEN
        after = _TAIL if nuclei.labels[-1] == self._count else b""
        return gzip_member(b"".join([before, _BETWEEN.join(self._features(nuclei)), after]))

    def append(self, encoded: bytes) -> None:
        """See `Writer`."""
        self._file.write(encoded)

    def finish(self) -> None:
        """See `Writer`."""
        if not self._count:
            self._file.write(gzip_member(_HEAD + _TAIL))
        self._file.finish()

    def close(self) -> None:
        """See `Writer`."""
        self._file.close()


class _Collections(Writer[Features]):
    """Writes a zip file of FeatureCollections. An entry is compressed as a whole when it is complete.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    header : NucleiHeader
        What all nuclei have in common.
    entry : int
        An entry ends at each label that is a multiple of this.
    """

    def __init__(self, path: Path, header: NucleiHeader, entry: int) -> None:
        self._features = _Features(header)
        self._count, self._entry = header.count, entry
        self._file = NewFile(path)
        self._zip = ZipFile(self._file)
        self._name, self._text = "", bytearray()

    def encode(self, nuclei: Nuclei) -> Features:
        """See `Writer`."""
        text = _BETWEEN.join(self._features(nuclei))
        return Features(int(nuclei.labels[0]), int(nuclei.labels[-1]), text)

    def append(self, encoded: Features) -> None:
        """See `Writer`."""
        if not self._text:
            self._name = f"nuclei-{encoded.first:09}.geojson"
        self._text += _BETWEEN if self._text else _HEAD
        self._text += encoded.text
        last = encoded.last == self._count or encoded.last % self._entry == 0
        if last or len(self._text) >= ENTRY_BYTES:
            self._text += _TAIL
            self._zip.add(self._name, self._text)
            self._text = bytearray()

    def finish(self) -> None:
        """See `Writer`."""
        self._zip.finish()
        self._file.finish()

    def close(self) -> None:
        """See `Writer`."""
        self._file.close()


def _middle(one: NucleusClass) -> bytes:
    """Return what stands between an outline and the measurements' numbers."""
    classification = f'{{"name":{_json(one.name)},"color":{_json(list(one.color))}}}'
    properties = f'"objectType":"detection","classification":{classification},"measurements":{{{_json(LABEL)}:'
    return f',"properties":{{{properties}'.encode()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _lines(text: bytes) -> list[bytes]:
    return text.split(b"\n")[:-1]
