"""Keeps the segments of the reduced levels, which follow level 0 in the file, until level 0 is written.

The segments of all levels lie in one file, in the order in which they were made. Their offsets and lengths are kept in
memory, 16 bytes a segment.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from nuclei_segmentation.operators.stitch.pyramid.disk_space import open_reserved, reserve


class Spool:
    """An open spool file.

    Parameters
    ----------
    path : pathlib.Path
        The file. What was in it is lost.
    size : int
        Bytes to reserve.
    levels : int
        Number of levels, level 0 included.
    """

    def __init__(self, path: Path, size: int, levels: int) -> None:
        self._path = path
        reserve(path, size)
        self._file = open_reserved(path, size)
        self._end = 0
        self._starts = [array("Q") for _ in range(levels)]
        self._lengths = [array("L") for _ in range(levels)]

    def append(self, level: int, segments: Sequence[bytes]) -> None:
        """Add the next segments of a level.

        Parameters
        ----------
        level : int
            Number of the level.
        segments : Sequence of bytes
            The segments, in row-major order.
        """
        for segment in segments:
            self._starts[level].append(self._end)
            self._lengths[level].append(len(segment))
            self._end += self._file.write(segment)

    def segments(self, level: int) -> Iterator[bytes]:
        """Yield the segments of a level in the order in which they were added."""
        for start, length in zip(self._starts[level], self._lengths[level], strict=True):
            self._file.seek(start)
            yield self._file.read(length)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if error is None:
            self._path.unlink()
