"""The arrays of a store: ``.npy`` files that any NumPy maps, written and read in whole items along the first axis.

They are written with `pwrite` and, on a disk, read with `pread`, not through mapped pages: a page that cannot be
written or read kills the process by SIGBUS, without a word, where a call returns an error that can be explained. In
shared memory (`SHARED`) nothing can fail that way, and there they are mapped: an inference server reads the very same
pages.
"""

from __future__ import annotations

import ast
import io
import math
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.errors import StoreError
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.files import open_regular, write_all

SHARED = Path("/dev/shm")  # noqa: S108 - POSIX shared memory; what lies there is named for its run

Array = npt.NDArray[Any]

_HEAD = 4096  # bytes that are looked at for the head of a file; ours has 128


class ReadableArray(Protocol):
    """What a store's array is read from: an `ArrayReader`, or memory of NVIDIA's driver (`shared.clara.fastio`)."""

    path: Path

    def get(self, start: int, stop: int) -> Array:
        """Return items: (stop - start, ...). Any thread may do so at any time."""

    def close(self) -> None:
        """Give back what is held."""


class WritableArray(Protocol):
    """What a store's array is written to."""

    path: Path

    def put(self, start: int, items: Array) -> None:
        """Write items, C-contiguous, from place `start` on. Any thread may do so at any time."""

    def sync(self) -> None:
        """Make durable what was written."""

    def seal(self) -> None:
        """Let others have the array, now that it is whole."""

    def close(self) -> None:
        """Give back what is held."""


class ArrayWriter(Closing):
    """Writes one array.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    shape, dtype : tuple of int, str
        Of the array.
    create : bool
        Make the file anew, with all its space reserved; else it must be there, and is written to where it is.

    Raises
    ------
    NoSpace
        The disk has less than the array takes.
    OutputError
        The file cannot be written.
    StoreError
        The file that should be there is none, or another one.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, *, create: bool) -> None:
        self.path, self.shape, self.dtype = path, shape, _little(dtype)
        header = _header(shape, self.dtype)
        self._offset, self._item = len(header), math.prod(shape[1:]) * self.dtype.itemsize
        self.bytes = self._offset + shape[0] * self._item
        if not create:
            with ArrayReader(path, shape, dtype) as there:
                self._offset = there.offset
            self._file = open_regular(path, os.O_RDWR)
            return
        with writing(path, self.bytes):
            # A new file, never an old one cut: a server may have the old one mapped, and would die of it.
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                os.posix_fallocate(self._file, 0, self.bytes)
                write_all(self._file, header, 0)
            except BaseException:
                os.close(self._file)
                path.unlink()
                raise

    def put(self, start: int, items: Array) -> None:
        """Write items, C-contiguous, from place `start` on. Any thread may do so at any time."""
        with writing(self.path):
            write_all(self._file, items.data.cast("B"), self._offset + start * self._item)

    def sync(self) -> None:
        """Force what was written to the disk."""
        with writing(self.path):
            os.fdatasync(self._file)

    def seal(self) -> None:
        """Force the last of it to the disk; others could read the file all along."""
        self.sync()

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class ArrayReader(Closing):
    """Reads one array.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    shape, dtype : tuple of int, str
        What it must be.

    Attributes
    ----------
    offset
        Where in the file the items begin.

    Raises
    ------
    StoreError
        It is missing, truncated, or something else.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.shape, self.dtype = path, shape, _little(dtype)
        self._item = math.prod(shape[1:]) * self.dtype.itemsize
        try:
            self._file = open_regular(path)
        except OSError:
            raise StoreError(f"{path} is missing{_hint(path)}") from None
        try:
            self.offset = self._check()
            # (n, ...), read-only, where it is mapped
            self._map = (
                np.memmap(path, self.dtype, "r", self.offset, shape) if path.parent == SHARED and shape[0] else None
            )
        except BaseException:
            os.close(self._file)
            raise

    def get(self, start: int, stop: int) -> Array:
        """Return items: (stop - start, ...); a view where the array is mapped. Any thread may do so at any time."""
        if self._map is not None:
            return self._map[start:stop]
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)
        items = np.empty((stop - start, *self.shape[1:]), self.dtype)
        _read_all(self._file, items.data.cast("B"), self.offset + start * self._item, self.path)
        return items

    def close(self) -> None:
        """Close the file; views of it stay good."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _check(self) -> int:
        """Return where the items begin."""
        try:
            head = os.pread(self._file, _HEAD, 0)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror}; make the store again") from error
        shape, dtype, offset = _parse(head)
        if (shape, dtype) != (self.shape, np.lib.format.dtype_to_descr(self.dtype)):
            raise StoreError(
                f"{self.path} is not the array {list(self.shape)} of {self.dtype} that the manifest says; "
                "make the store again"
            )
        length, wanted = os.fstat(self._file).st_size, offset + self.shape[0] * self._item
        if length != wanted:
            raise StoreError(f"{self.path} is truncated: {length} bytes of {wanted}; make the store again")
        return offset


def _read_all(file: int, data: memoryview, place: int, path: Path) -> None:
    while data:
        try:
            done = os.preadv(file, [data], place)
        except OSError as error:
            raise StoreError(f"{path} cannot be read at byte {place}: {error.strerror}; make the store anew") from error
        if not done:
            raise StoreError(f"{path} ends at byte {place}: it was truncated while it was read; make the store again")
        data, place = data[done:], place + done


def _little(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the head of a ``.npy`` file, as NumPy writes it."""
    head = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(head, description)
    return head.getvalue()


def _parse(head: bytes) -> tuple[object, object, int]:
    """Return shape, type and place of the content of a ``.npy`` file; None where it is none that we read.

    NumPy's own reader makes allowances for files of Python 2, and calls a tokenizer for them; nothing here needs that.
    """
    magic, end = b"\x93NUMPY\x01\x00", 10 + int.from_bytes(head[8:10], "little")
    if not head.startswith(magic) or end > len(head):
        return None, None, 0
    try:
        facts = ast.literal_eval(head[10:end].decode("latin-1"))
        shape, descr, fortran = facts["shape"], facts["descr"], facts["fortran_order"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):  # whatever a forged one causes
        return None, None, 0
    return shape, None if fortran or not isinstance(descr, str) else descr, end


def _hint(path: Path) -> str:
    if path.parent != SHARED:
        return "; make the store again"
    return (
        ": it lies in shared memory, which this process does not share with the stage that wrote it, or which the end "
        "of a run has freed; share it (--ipc=host), or turn it off (`store: {shm: false}`), and make the store again"
    )
