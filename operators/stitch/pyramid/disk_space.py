"""Reserves disk space for a file, and opens the file to write into that space."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, cast

from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.file_system import reserve_space
from nuclei_segmentation.shared.runtime.folder import create_file, open_file

_BUFFER = 1 << 20


def reserve(path: Path, size: int) -> None:
    """Create a file and reserve its space, so that a full disk is noticed before the work starts.

    Parameters
    ----------
    path : pathlib.Path
        The file. What is there under this name is removed.
    size : int
        Bytes to reserve. The file then has this length and reads as zeros.

    Raises
    ------
    NoSpace
        The disk or the quota has less. The file is removed again.
    OutputError
        The folder cannot be written.
    """
    with writing(path, size):
        file = create_file(path)
        try:
            if size:
                reserve_space(file, size, path.parent)
        except OSError:
            path.unlink()
            raise
        finally:
            os.close(file)


def open_reserved(path: Path, size: int) -> BinaryIO:
    """Open a file that `reserve` made, to write and to read.

    If the disk is full, each of its writes raises `NoSpace`.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    size : int
        Bytes reserved, for the message.

    Raises
    ------
    OutputError
        The file cannot be opened.
    """
    with writing(path, size):
        return cast(BinaryIO, io.BufferedRandom(_ReservedFile(path, size), _BUFFER))


class _ReservedFile(io.FileIO):
    """A file whose failed writes raise this program's errors, while errors on reading the slide stay as they are."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path, "r+b", opener=lambda _, flags: open_file(path, flags))
        self._path, self._size = path, size

    def write(self, data: object) -> int:
        with writing(self._path, self._size):
            return super().write(data)  # type: ignore[arg-type] # what BufferedRandom passes is a buffer

    def truncate(self, size: int | None = None) -> int:
        length = self.tell() if size is None else size
        with writing(self._path, self._size):
            os.ftruncate(self.fileno(), length)  # unlike the base class, it goes on after an interruption
        return length
