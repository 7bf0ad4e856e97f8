"""Keeps nuclei in a file until all are known: the nearest neighbour of one may be found later than itself.

The memory holds 16 bytes a nucleus, its centroid, and a line for each batch.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.objects.measure import unit_of
from nuclei_segmentation.operators.stitch.objects.nearest import nearest_distances, reach
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.files import read_at

CHUNK = 4096
"""Nuclei that are handed over at once, at least, as long as there are more."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Where a batch lies in the file, and where its nuclei lie on the slide."""

    offset: int
    first: int
    count: int
    vertices: int
    top: int
    lowest: Sequence[float]
    highest: Sequence[float]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some batches in a row.

    Attributes
    ----------
    batches : slice
        Their numbers.
    horizon : int
        No nucleus of a later chunk has a pixel above this row.
    """

    batches: slice
    horizon: int


class NucleusSpool(Closing):
    """Nuclei in a file.

    Parameters
    ----------
    path : pathlib.Path
        The file. What was in it is lost.
    names : Sequence of str
        Names of the measurements.
    mpp : tuple of float or None
        Micrometres per pixel in x and y.
    """

    def __init__(self, path: Path, names: Sequence[str], mpp: tuple[float, float] | None) -> None:
        self._path, self._names, self._mpp = path, tuple(names), mpp
        self._nearest = f"Nearest neighbour distance {unit_of(mpp)}"
        self._file = path.open("w+b", buffering=0)
        self._end = 0
        self._batches: list[_Batch] = []
        self._centroids = array("d")
        self._record = np.dtype([
            ("origin", "<i4", 2),
            ("corners", "<u4"),
            ("tile", "<i4", 2),
            ("at_border", "?"),
            ("class", "u1"),
            ("probability", "<f8"),
            ("measurements", "<f8", len(names)),
        ])  # fmt: skip

    def __len__(self) -> int:
        return len(self._centroids) // 2

    @property
    def measurements(self) -> tuple[str, ...]:
        """Names of all measurements of the nuclei that `read` returns."""
        return (*self._names, self._nearest)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._end

    def add(self, nuclei: Nuclei) -> None:
        """Add a batch; its labels are not kept.

        Parameters
        ----------
        nuclei : Nuclei
            The batch, with all measurements but the distance to the nearest neighbour.
        """
        if not len(nuclei):
            return
        corners = np.diff(nuclei.starts)
        records = np.empty(len(nuclei), self._record)
        records["origin"] = nuclei.vertices[nuclei.starts[:-1]]
        records["corners"] = corners
        records["tile"], records["at_border"], records["class"] = nuclei.tiles, nuclei.at_border, nuclei.classes
        records["probability"] = nuclei.probability
        for number, name in enumerate(self._names):
            records["measurements"][:, number] = nuclei.measurements[name]
        # No nucleus is so large that its corners lie further from the first than 16 bits can say.
        relative = (nuclei.vertices - np.repeat(records["origin"], corners, axis=0)).astype("<i2")
        data = records.tobytes() + relative.tobytes()
        batch = _Batch(
            self._end, len(self), len(nuclei), len(nuclei.vertices), nuclei.horizon,
            nuclei.centroids.min(axis=0).tolist(), nuclei.centroids.max(axis=0).tolist(),
        )  # fmt: skip
        self._batches.append(batch)
        self._centroids.frombytes(np.ascontiguousarray(nuclei.centroids).tobytes())
        written = 0
        while written < len(data):
            written += self._file.write(data[written:])
        self._end += len(data)

    def chunks(self) -> Iterator[Chunk]:
        """Yield all nuclei as chunks, in their order; `read` gives what is in them."""
        tops = [batch.top for batch in self._batches]
        for number in range(len(tops) - 2, -1, -1):
            tops[number] = min(tops[number], tops[number + 1])
        first = count = 0
        for number, batch in enumerate(self._batches, start=1):
            count += batch.count
            if count >= CHUNK or number == len(self._batches):
                yield Chunk(slice(first, number), tops[number] if number < len(tops) else 1 << 31)
                first, count = number, 0

    def read(self, chunk: Chunk) -> Nuclei:
        """Return the nuclei of a chunk, labelled; several threads may call it once all are added.

        Parameters
        ----------
        chunk : Chunk
            From `chunks`.
        """
        batches = self._batches[chunk.batches]
        parts = [self._read(batch) for batch in batches]
        records = np.concatenate([records for records, _ in parts])
        corners = records["corners"].astype(np.int64)
        vertices = np.concatenate([relative for _, relative in parts]) + np.repeat(records["origin"], corners, axis=0)
        first = batches[0].first
        everywhere = np.frombuffer(self._centroids, np.float64).reshape(-1, 2)
        centroids = everywhere[first : first + len(records)].copy()
        measurements = {
            name: records["measurements"][:, number].astype(np.float64) for number, name in enumerate(self._names)
        }
        measurements[self._nearest] = nearest_distances(centroids, self._around(batches, everywhere), self._mpp)
        return Nuclei(
            labels=np.arange(first + 1, first + 1 + len(records), dtype=np.uint32),
            vertices=vertices,
            starts=np.concatenate(([0], np.cumsum(corners))),
            centroids=centroids,
            tiles=records["tile"].copy(),
            at_border=records["at_border"].copy(),
            probability=records["probability"].copy(),
            classes=records["class"].copy(),
            measurements=measurements,
            horizon=chunk.horizon,
        )

    def close(self) -> None:
        """Close and remove the file."""
        if not self._file.closed:
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _read(self, batch: _Batch) -> tuple[npt.NDArray[Any], npt.NDArray[np.int32]]:
        size = batch.count * self._record.itemsize
        data = read_at(self._file.fileno(), size + 4 * batch.vertices, batch.offset)
        relative = np.frombuffer(data, "<i2", offset=size).reshape(-1, 2)
        return np.frombuffer(data, self._record, batch.count), relative.astype(np.int32)

    def _around(self, batches: Sequence[_Batch], everywhere: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the centroids of these batches and of all within reach of them."""
        margin = np.array(reach(self._mpp))
        lowest = np.min([batch.lowest for batch in batches], axis=0) - margin
        highest = np.max([batch.highest for batch in batches], axis=0) + margin
        near = [
            everywhere[batch.first : batch.first + batch.count]
            for batch in self._batches
            if batch.lowest[0] <= highest[0]
            and batch.lowest[1] <= highest[1]
            and batch.highest[0] >= lowest[0]
            and batch.highest[1] >= lowest[1]
        ]
        points: npt.NDArray[np.float64] = np.concatenate(near)
        kept: npt.NDArray[np.bool_] = ((points >= lowest) & (points <= highest)).all(axis=1)
        return points[kept]
