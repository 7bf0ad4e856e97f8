"""Arrays of a store in FastIO memory, which NVIDIA's pipeline driver shares among the operators of a job.

Who writes creates an allocation, describes, maps and fills it, unmaps it, and publishes it under an id when it is
whole; who reads gets it by that id, maps, unmaps and releases it; the last stage frees it. The memory holds the bare
array, C-contiguous, without the head of a ``.npy`` file. An allocation is its process's own until it is published and
goes with the job, so an unfinished one cannot be gone on with: such a store is made again.

NVIDIA's module is on no public index. Its names stand in the table below and nowhere else in this project, each with
its mark: certain (read in NVIDIA's documentation), inferred, or unknown (found in no public text: our guess).
docs/clara.md says where each was read. Whatever fails while an allocation is made only means that the array goes
to /dev/shm instead; so a wrong guess costs that, not the result.
"""

from __future__ import annotations

import ctypes
import logging
import math
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.errors import NucleiError, StoreError
from nuclei_segmentation.shared.runtime.closing import Closing

log = logging.getLogger("nuclei")

# Objects of NVIDIA's module, which has no types.
Context = Any
Allocation = Any
Mapped = Any
Buffer = Any

Array = npt.NDArray[Any]

FASTIO = "fastio:"
"""Marks an array that lies in memory of NVIDIA's driver; its id follows."""


class _Names:
    """What NVIDIA's objects are asked for, and how."""

    @staticmethod
    def create(context: Context, size: int) -> Allocation:
        """`FastIOContext.create(size)` → allocation. Certain; that the size is in bytes: inferred."""
        return context.create(size)

    @staticmethod
    def get(context: Context, name: str) -> Allocation:
        """`FastIOContext.get(id)` → allocation. Certain; that an unknown id raises or gives None: inferred."""
        allocation = context.get(name)
        if allocation is None:
            raise LookupError("there is no such allocation")
        return allocation

    @staticmethod
    def describe(allocation: Allocation, dtype: str, shape: Sequence[int]) -> None:
        """`FastIOAllocation.set_type_and_dimensions`. Certain; its arguments (NumPy's name, list): unknown."""
        allocation.set_type_and_dimensions(dtype, list(shape))

    @staticmethod
    def map(allocation: Allocation) -> Mapped:
        """`FastIOAllocation.map`. That it is needed before access: certain; its name: inferred; arguments: unknown.

        What it returns is unknown too; `_bytes` takes a buffer, a pointer or an address.
        """
        return allocation.map()

    @staticmethod
    def unmap(allocation: Allocation) -> None:
        """`FastIOAllocation.unmap`. That it is needed after access: certain; its name: inferred; arguments: unknown."""
        allocation.unmap()

    @staticmethod
    def publish(allocation: Allocation, name: str) -> None:
        """`FastIOAllocation.publish(id)`. Certain; that it outlives its writer's reference: inferred."""
        allocation.publish(name)

    @staticmethod
    def release(allocation: Allocation) -> None:
        """`FastIOAllocation.release()`, of this reference only. Certain."""
        allocation.release()

    @staticmethod
    def free(allocation: Allocation) -> None:
        """`FastIOAllocation.free()`, which releases this reference and deletes the memory. Certain."""
        allocation.free()


class FastIOWriter(Closing):
    """Writes one array into an allocation.

    Parameters
    ----------
    context : Context
        `clara.FastIOContext`.
    name : str
        Under which to publish the array.
    shape, dtype : tuple of int, str
        Of the array.

    Raises
    ------
    Exception
        Anything that NVIDIA's module raises; `make` returns None instead.
    """

    def __init__(self, context: Context, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.path = Path(f"{FASTIO}{name}")
        self._name, self._lock, self._published = name, threading.Lock(), False
        self._items: Array | None = None
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self._allocation = _Names.create(context, size)
        try:
            _Names.describe(self._allocation, dtype, shape)
            self._items = _map(self._allocation, shape, dtype)
            if not self._items.flags.writeable:
                raise TypeError("it is mapped read-only")
        except BaseException:
            _Names.free(self._allocation)
            raise

    @classmethod
    def make(cls, context: Context, name: str, shape: tuple[int, ...], dtype: str) -> Self | None:
        """Return a writer; None, with a line in the log, where the context cannot serve."""
        try:
            return cls(context, name, shape, dtype)
        except Exception as error:  # NVIDIA's errors, or a name of ours that is not one of theirs
            log.warning("no FastIO memory (%s: %s): /dev/shm is used instead", type(error).__name__, error)
            return None

    def put(self, start: int, items: Array) -> None:
        """Write items from place `start` on. Any thread may do so; what comes after `seal` is dropped."""
        with self._lock:  # nobody may write to what is no longer mapped
            if self._items is not None:
                self._items[start : start + len(items)] = items

    def sync(self) -> None:
        """Do nothing: memory is as durable as it gets."""

    def seal(self) -> None:
        """Unmap and publish the array.

        Raises
        ------
        NucleiError
            NVIDIA's module refuses.
        """
        try:
            self._unmap()
            _Names.publish(self._allocation, self._name)
        except Exception as error:
            raise NucleiError(
                f"FastIO memory {self._name} cannot be published ({type(error).__name__}: {error}); turn it off "
                "(`store: {shm: false}`)"
            ) from error
        self._published = True

    def close(self) -> None:
        """Give the memory back; what was published stays with the job."""
        if self._allocation is None:
            return
        try:
            self._unmap()
            (_Names.release if self._published else _Names.free)(self._allocation)
        except Exception as error:  # the store is whole, or has failed already: nothing hangs on it
            log.warning("FastIO memory %s cannot be given back (%s)", self._name, error)
        self._allocation = None

    def _unmap(self) -> None:
        with self._lock:
            if self._items is not None:
                self._items = None  # NVIDIA's unmap must find no view of it
                _Names.unmap(self._allocation)


class FastIOReader(Closing):
    """Reads one array from an allocation, of which it never writes a byte.

    Parameters
    ----------
    context : Context
        `clara.FastIOContext`, or None where there is none.
    file : str
        The array's, as the manifest has it.
    shape, dtype : tuple of int, str
        What it must be.

    Raises
    ------
    StoreError
        It cannot be had.
    """

    def __init__(self, context: Context, file: str, shape: tuple[int, ...], dtype: str) -> None:
        self.path = Path(file)
        self._allocation: Allocation = None
        self._items: Array | None = None
        if context is None:
            raise StoreError(
                f"{file} lies in FastIO memory, which only a stage that NVIDIA's driver starts can read{_HINT}"
            )
        try:
            self._allocation = _Names.get(context, file.removeprefix(FASTIO))
            items = _map(self._allocation, shape, dtype)
        except Exception as error:
            self.close()
            told = f"{type(error).__name__}: {error}"
            raise StoreError(f"{file}: no such FastIO memory in this job ({told}){_HINT}") from error
        items.flags.writeable = False
        self._items = items

    def get(self, start: int, stop: int) -> Array:
        """Return a copy of items: views must not be there any more when the memory is unmapped."""
        assert self._items is not None
        return self._items[start:stop].copy()

    def close(self) -> None:
        """Unmap and release the memory."""
        if self._allocation is None:
            return
        try:
            if self._items is not None:
                self._items = None
                _Names.unmap(self._allocation)
            _Names.release(self._allocation)
        except Exception as error:  # everything has been read
            log.warning("%s cannot be released (%s)", self.path, error)
        self._allocation = None


def free_allocation(context: Context, file: str) -> None:
    """Free what a manifest names, if it is still there; without a context its job has ended, and it with it."""
    if context is None:
        return
    try:
        _Names.free(_Names.get(context, file.removeprefix(FASTIO)))
    except Exception as error:  # of another job, which has ended; or never published
        log.debug("%s is not there to be freed (%s)", file, error)


_HINT = (
    "; in the same Clara job, run the stage that makes the store again, or keep arrays out of shared memory "
    "(`store: {shm: false}`)"
)


def _map(allocation: Allocation, shape: tuple[int, ...], dtype: str) -> Array:
    """Map an allocation and return its memory as an array."""
    mapped = _Names.map(allocation)
    try:
        size = math.prod(shape)
        return np.frombuffer(_bytes(mapped, size * np.dtype(dtype).itemsize), dtype, size).reshape(shape)
    except BaseException:
        _Names.unmap(allocation)
        raise


def _bytes(mapped: Mapped, size: int) -> Buffer:
    """Return the buffer that something points to: a buffer itself, a ctypes pointer, or an address."""
    if isinstance(mapped, ctypes._Pointer | ctypes.c_void_p):
        mapped = ctypes.cast(mapped, ctypes.c_void_p).value
    if isinstance(mapped, int):
        return (ctypes.c_ubyte * size).from_address(mapped)
    return mapped
