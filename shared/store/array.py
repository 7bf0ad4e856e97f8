"""The arrays of a store: ``.npy`` files, written and read in items along the first axis.

NumPy can map these files. This program writes them with `pwrite` and, on a disk, reads them with `pread`: a mapped page
that cannot be written or read kills the process by SIGBUS, without a message, while a system call returns an error that
can be explained. Arrays in shared memory (`SHARED`) cannot fail that way. They are mapped, and an inference server
reads the same pages.
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
from nuclei_segmentation.shared.runtime.file_system import reserve_space, sync_file
from nuclei_segmentation.shared.runtime.files import read_at, write_all
from nuclei_segmentation.shared.store.files import open_store_file

SHARED = Path("/dev/shm")  # noqa: S108 - POSIX shared memory; the files there are named for their store

Array = npt.NDArray[Any]

_HEADER_LIMIT = 4096  # the longest header of a file that is read, in bytes; those written here have 128


class ReadableArray(Protocol):
    """The source of a store's array: an `ArrayReader`, or memory of NVIDIA's driver (`shared.clara.fastio`)."""

    path: Path

    def get(self, start: int, stop: int) -> Array:
        """Return the items from `start` to `stop` - 1. Any thread may call this at any time.

        Parameters
        ----------
        start, stop : int
            The range of items.

        Returns
        -------
        numpy.ndarray
            (stop - start, ...), of the array's type.
        """

    def close(self) -> None:
        """Release what the object holds."""


class WritableArray(Protocol):
    """The target of a store's array: an `ArrayWriter`, or memory of NVIDIA's driver (`shared.clara.fastio`)."""

    path: Path

    def put(self, start: int, items: Array) -> None:
        """Write items. Any thread may call this at any time.

        Parameters
        ----------
        start : int
            The first item's number.
        items : numpy.ndarray
            (n, ...) of the array's type, C-contiguous.
        """

    def sync(self) -> None:
        """Make durable what was written."""

    def seal(self) -> None:
        """Make the finished array available to other stages."""

    def close(self) -> None:
        """Release what the object holds."""


class ArrayWriter(Closing):
    """Writes one array.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    shape : tuple of int
        Shape of the array.
    dtype : str
        NumPy's name of its type.
    create : bool
        Whether to make a new file, with all its space reserved. Otherwise the file must exist, and is written in place.

    Raises
    ------
    NoSpace
        The disk has less space than the array takes.
    OutputError
        The file cannot be written.
    StoreError
        The file that should exist is missing, or is not this array.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str, *, create: bool) -> None:
        self.path, self.shape, self.dtype = path, shape, _little(dtype)
        header = _header(shape, self.dtype)
        self._offset, self._item = len(header), math.prod(shape[1:]) * self.dtype.itemsize
        self.bytes = self._offset + shape[0] * self._item
        if not create:
            with ArrayReader(path, shape, dtype) as reader:
                self._offset = reader.offset
            self._file = open_store_file(path, os.O_RDWR)
            return
        with writing(path, self.bytes):
            # Never truncate an old file: a server that has it mapped would be killed by SIGBUS.
            mapped = path.parent == SHARED
            # Everybody on the machine sees shared memory, so only this user may open what lies there.
            flags, mode = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if mapped else 0o666
            self._file = os.open(path, flags, mode)
            try:
                reserve_space(self._file, self.bytes, path.parent, mapped=mapped)
                write_all(self._file, header, 0)
            except BaseException:
                os.close(self._file)
                path.unlink()
                raise

    def put(self, start: int, items: Array) -> None:
        """See `WritableArray.put`."""
        with writing(self.path):
            write_all(self._file, items.data.cast("B"), self._offset + start * self._item)

    def sync(self) -> None:
        """See `WritableArray.sync`."""
        with writing(self.path):
            sync_file(self._file, data_only=True)

    def seal(self) -> None:
        """See `WritableArray.seal`. Other stages could read the file all along."""
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
    shape : tuple of int
        The shape that the array must have.
    dtype : str
        NumPy's name of the type that it must have.

    Attributes
    ----------
    offset : int
        Where in the file the items begin, in bytes.

    Raises
    ------
    StoreError
        The file is missing or truncated, or is not this array.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: str) -> None:
        self.path, self.shape, self.dtype = path, shape, _little(dtype)
        self._item = math.prod(shape[1:]) * self.dtype.itemsize
        try:
            self._file = open_store_file(path)
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
        """See `ReadableArray.get`. Where the array is mapped, the items are a view."""
        if self._map is not None:
            return self._map[start:stop]
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)
        items = np.empty((stop - start, *self.shape[1:]), self.dtype)
        _read_all(self._file, items.data.cast("B"), self.offset + start * self._item, self.path)
        return items

    def close(self) -> None:
        """Close the file; views stay valid."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _check(self) -> int:
        """Return where the items begin; raise `StoreError` unless the file is the array that it should be."""
        try:
            head = read_at(self._file, _HEADER_LIMIT, 0)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror}; make the store again") from error
        shape, dtype, offset = _parse(head)
        if (shape, dtype) != (self.shape, np.lib.format.dtype_to_descr(self.dtype)):
            raise StoreError(
                f"{self.path} is not the array that the manifest describes ({self.dtype} {list(self.shape)}); "
                "make the store again"
            )
        length, expected = os.fstat(self._file).st_size, offset + self.shape[0] * self._item
        if length != expected:
            raise StoreError(f"{self.path} is truncated: {length} bytes of {expected}; make the store again")
        return offset


def _read_all(file: int, data: memoryview, offset: int, path: Path) -> None:
    while data:
        try:
            done = os.preadv(file, [data], offset)
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read at byte {offset}: {error.strerror}; make the store again"
            ) from error
        if not done:
            raise StoreError(f"{path} ends at byte {offset}: it was truncated while it was read; make the store again")
        data, offset = data[done:], offset + done


def _little(dtype: str) -> np.dtype[Any]:
    return np.dtype(dtype).newbyteorder("<")


def _header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """Return the header of a ``.npy`` file, as NumPy writes it."""
    header = io.BytesIO()
    description = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def _parse(head: bytes) -> tuple[object, object, int]:
    """Return shape and type of a ``.npy`` file, None if it is not one that a store has, and where its items begin.

    NumPy's own reader accepts files of Python 2 too, and runs a tokenizer on them; stores need no such files.
    """
    magic, end = b"\x93NUMPY\x01\x00", 10 + int.from_bytes(head[8:10], "little")
    if not head.startswith(magic) or end > len(head):
        return None, None, 0
    try:
        header = ast.literal_eval(head[10:end].decode("latin-1"))
        shape, descr, fortran = header["shape"], header["descr"], header["fortran_order"]
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):  # a forged header
        return None, None, 0
    return shape, None if fortran or not isinstance(descr, str) else descr, end


def _hint(path: Path) -> str:
    if path.parent != SHARED:
        return "; make the store again"
    return (
        ": it was in shared memory, and this process does not share memory with the stage that wrote it, or a run has "
        "released the memory at its end; share it (--ipc=host) or turn it off (`store: {shm: false}`), and make the "
        "store again"
    )
