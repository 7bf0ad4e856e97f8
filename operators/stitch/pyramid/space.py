"""Disk space: how it is reserved, and how a file in reserved space is written."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, cast

from nuclei_segmentation.shared.runtime.disk import writing

_BUFFER = 1 << 20


def reserve(path: Path, size: int) -> None:
    """Create a file, or empty it, and reserve its space, so that a full disk shows before any work is done.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    size : int
        Bytes to reserve; the file has this length afterwards and reads as zeros.

    Raises
    ------
    NoSpace
        The disk or the quota has less. The file is removed again.
    OutputError
        The folder cannot be written.
    """
    with writing(path, size), path.open("wb") as file:
        if size:
            try:
                os.posix_fallocate(file.fileno(), 0, size)
            except OSError:
                path.unlink()
                raise


def open_reserved(path: Path, size: int) -> BinaryIO:
    """Open a file that `reserve` made for writing and reading; a full disk is `NoSpace` from every write.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    size : int
        Bytes reserved, for the message.
    """
    with writing(path, size):
        return cast(BinaryIO, io.BufferedRandom(_NamedErrors(path, size), _BUFFER))


class _NamedErrors(io.FileIO):
    """A file whose write errors have the names that users meet; errors of the slide's files keep theirs."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path, "r+b")
        self._path, self._size = path, size

    def write(self, data: object) -> int:
        with writing(self._path, self._size):
            return super().write(data)  # type: ignore[arg-type] # what BufferedRandom passes is a buffer

    def truncate(self, size: int | None = None) -> int:
        with writing(self._path, self._size):
            return super().truncate(size)
