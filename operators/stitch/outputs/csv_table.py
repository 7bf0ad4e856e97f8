"""The table of nuclei as CSV: UTF-8, commas, one line a nucleus, an empty field where a value is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader
from nuclei_segmentation.operators.stitch.outputs.columns import columns
from nuclei_segmentation.operators.stitch.outputs.gzip_file import gzip_member
from nuclei_segmentation.operators.stitch.outputs.identity import ids
from nuclei_segmentation.operators.stitch.outputs.new_file import NewFile
from nuclei_segmentation.operators.stitch.outputs.text import Texts, decimals, integers, joined
from nuclei_segmentation.operators.stitch.outputs.writer import Writer


class CsvWriter(Writer[bytes]):
    """Writes the table as CSV, a member of the gzip file for each chunk.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    header : NucleiHeader
        What all nuclei have in common.
    measurements : Sequence of str
        Names of the measurements, in their order; a table without nuclei has these columns too.
    """

    def __init__(self, path: Path, header: NucleiHeader, measurements: Sequence[str]) -> None:
        self._header = header
        self._first = ",".join(map(_field, columns(header, measurements))).encode() + b"\n"
        self._classes = np.array([_field(one.name).encode() for one in header.classes], np.bytes_)
        self._file = NewFile(path)

    def encode(self, nuclei: Nuclei) -> bytes:
        """See `Writer`."""
        fields: list[list[Texts]] = [
            integers(nuclei.labels),
            [ids(self._header.fingerprint, nuclei.labels)],
            *(decimals(axis) for axis in nuclei.centroids.T),
        ]
        if self._header.mpp is not None:
            fields += [decimals(axis * mpp) for axis, mpp in zip(nuclei.centroids.T, self._header.mpp, strict=True)]
        fields += [
            *(integers(axis) for axis in nuclei.tiles.T),
            [np.where(nuclei.at_border, b"true", b"false")],
            decimals(nuclei.probability),
            [self._classes.take(nuclei.classes)],
            *(decimals(values) for values in nuclei.measurements.values()),
        ]
        row: list[Texts | bytes] = []
        for field in fields:
            row += [*field, b","]
        lines = joined([*row[:-1], b"\n"], len(nuclei))
        return gzip_member(self._first + lines if nuclei.labels[0] == 1 else lines)

    def append(self, encoded: bytes) -> None:
        """See `Writer`."""
        self._file.write(encoded)

    def finish(self) -> None:
        """See `Writer`."""
        if not self._file.tell():
            self._file.write(gzip_member(self._first))
        self._file.finish()

    def close(self) -> None:
        """See `Writer`."""
        self._file.close()


def _field(text: str) -> str:
    """Return a text as it stands in a field: in quotation marks where it holds what ends a field or a line."""
    return '"' + text.replace('"', '""') + '"' if re.search(r'[",\r\n]', text) else text
