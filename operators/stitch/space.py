"""Disk space: how much is needed, how it is reserved, and what a full disk is called."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from shared.errors import NoSpace, OutputError
from shared.resources import free_bytes, human

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_BUFFER = 1 << 20


def reserve(path: Path, size: int) -> None:
    """Create a file, or empty it, and reserve its space, so that a full disk shows before any work is done.

    Parameters
    ----------
    path
        The file.
    size
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


@contextmanager
def writing(path: Path, needed: int) -> Iterator[None]:
    """Give system errors on a file that we write the names that users meet.

    Parameters
    ----------
    path
        The file or folder.
    needed
        Bytes wanted there, for the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            wanted = f"{human(needed)} needed, " if needed else ""
            raise NoSpace(
                f"no space left for {path}: {wanted}{human(free_bytes(path.parent))} free; "
                "make room and run the same command again"
            ) from error
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def open_reserved(path: Path, size: int) -> BinaryIO:
    """Open a file that `reserve` made for writing and reading; a full disk is `NoSpace` from every write.

    Parameters
    ----------
    path
        The file.
    size
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
