"""Arrays of a store in FastIO memory, which NVIDIA's pipeline driver shares among the operators of a job.

The writer creates an allocation, describes, maps, fills and unmaps it, and publishes it under an id when the array is
complete. A reader gets it by that id, maps, unmaps and releases it. The last stage frees it. The memory holds the bare
array, C-contiguous, without the header of a ``.npy`` file. Until it is published, an allocation belongs to its process;
after that it lasts as long as the job. So an unfinished array cannot be resumed, and its store is made again.

Known and not known: NVIDIA's module is on no public index. `_Names` calls it, and nothing else in this project does.
Each of its methods is marked as certain (NVIDIA's documentation says so), inferred (the documentation suggests it) or
unknown (no public text says it; it is our guess). docs/clara.md says where each was read. If making an allocation
fails, the array goes to /dev/shm instead, so a wrong guess costs the use of FastIO and not the result.
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

log = logging.getLogger(__name__)

# Objects of NVIDIA's module, which has no types.
Context = Any
Allocation = Any
Mapped = Any
Buffer = Any

Array = npt.NDArray[Any]

FASTIO = "fastio:"
"""Prefix of the file name of an array in FastIO memory; the allocation's id follows."""


class _Names:
    """Every call of NVIDIA's objects."""

    @staticmethod
    def create(context: Context, size: int) -> Allocation:
        """`FastIOContext.create(size)` → allocation. Certain; inferred: the size is in bytes."""
        return context.create(size)

    @staticmethod
    def get(context: Context, name: str) -> Allocation:
        """`FastIOContext.get(id)` → allocation. Certain; inferred: an unknown id raises, or returns None."""
        allocation = context.get(name)
        if allocation is None:
            raise LookupError("there is no such allocation")
        return allocation

    @staticmethod
    def describe(allocation: Allocation, dtype: str, shape: Sequence[int]) -> None:
        """`FastIOAllocation.set_type_and_dimensions`. Certain; unknown: its arguments."""
        allocation.set_type_and_dimensions(dtype, list(shape))

    @staticmethod
    def map(allocation: Allocation) -> Mapped:
        """`FastIOAllocation.map`. Certain: it is needed before access. Inferred: its name. Unknown: its arguments.

        What it returns is unknown too; `_bytes` takes a buffer, a pointer or an address.
        """
        return allocation.map()

    @staticmethod
    def unmap(allocation: Allocation) -> None:
        """`FastIOAllocation.unmap`. Certain: it is needed after access. Inferred: its name. Unknown: its arguments."""
        allocation.unmap()

    @staticmethod
    def publish(allocation: Allocation, name: str) -> None:
        """`FastIOAllocation.publish(id)`. Certain; inferred: the memory outlives the writer's reference."""
        allocation.publish(name)

    @staticmethod
    def release(allocation: Allocation) -> None:
        """`FastIOAllocation.release()`, which releases this reference only. Certain."""
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
        NVIDIA's `FastIOContext`.
    name : str
        The id under which to publish the array.
    shape : tuple of int
        Shape of the array.
    dtype : str
        NumPy's name of its type.

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
        """Return a writer; None, with a line in the log, if there is no such memory.

        Parameters
        ----------
        context : Context
            NVIDIA's `FastIOContext`.
        name : str
            The id under which to publish the array.
        shape : tuple of int
            Shape of the array.
        dtype : str
            NumPy's name of its type.

        Returns
        -------
        Self or None
            FastIOWriter or None
        """
        try:
            return cls(context, name, shape, dtype)
        except Exception as error:  # any error of NVIDIA's, or a wrong guess in `_Names`
            log.warning("no FastIO memory (%s: %s); /dev/shm is used instead", type(error).__name__, error)
            return None

    def put(self, start: int, items: Array) -> None:
        """See `WritableArray.put`. Items that come after `seal` are dropped."""
        with self._lock:  # it must not be unmapped meanwhile
            if self._items is not None:
                self._items[start : start + len(items)] = items

    def sync(self) -> None:
        """Do nothing: FastIO memory cannot be made more durable."""

    def seal(self) -> None:
        """Unmap and publish the array.

        Raises
        ------
        NucleiError
            NVIDIA's module fails.
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
        """Release the memory if it was published, else free it."""
        if self._allocation is None:
            return
        try:
            self._unmap()
            (_Names.release if self._published else _Names.free)(self._allocation)
        except Exception as error:  # the store is complete, or has failed already
            log.warning("FastIO memory %s cannot be released (%s)", self._name, error)
        self._allocation = None

    def _unmap(self) -> None:
        with self._lock:
            if self._items is not None:
                self._items = None  # no view may exist when NVIDIA unmaps the memory
                _Names.unmap(self._allocation)


class FastIOReader(Closing):
    """Reads one array from an allocation, without ever writing to it.

    Parameters
    ----------
    context : Context
        NVIDIA's `FastIOContext`; None if no driver runs this stage.
    file : str
        The array's file name in the manifest.
    shape : tuple of int
        Shape of the array.
    dtype : str
        NumPy's name of its type.

    Raises
    ------
    StoreError
        The memory does not exist, or is too small.
    """

    def __init__(self, context: Context, file: str, shape: tuple[int, ...], dtype: str) -> None:
        self.path = Path(file)
        self._allocation: Allocation = None
        self._items: Array | None = None
        if context is None:
            raise StoreError(
                f"{file} is in FastIO memory, which only a stage that NVIDIA's driver starts can read{_HINT}"
            )
        try:
            self._allocation = _Names.get(context, file.removeprefix(FASTIO))
            items = _map(self._allocation, shape, dtype)
        except Exception as error:
            self.close()
            problem = f"{type(error).__name__}: {error}"
            raise StoreError(f"{file}: no such FastIO memory in this job ({problem}){_HINT}") from error
        items.flags.writeable = False
        self._items = items

    def get(self, start: int, stop: int) -> Array:
        """See `ReadableArray.get`. The items are a copy: no view may exist when the memory is unmapped."""
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
        except Exception as error:  # everything was read already
            log.warning("%s cannot be released (%s)", self.path, error)
        self._allocation = None


def release_allocation(context: Context, file: str) -> None:
    """Free an allocation, if it still exists.

    Parameters
    ----------
    context : Context
        NVIDIA's `FastIOContext`; None if no driver runs this stage. Then the job has ended, and its memory is gone.
    file : str
        The array's file name in the manifest.
    """
    if context is None:
        return
    try:
        _Names.free(_Names.get(context, file.removeprefix(FASTIO)))
    except Exception as error:  # its job has ended, or it was never published
        log.debug("%s does not exist any more (%s)", file, error)


_HINT = (
    "; run the stage that makes the store again, in the same Clara job, or keep arrays out of shared memory "
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
    """Return the buffer that `mapped` is, or that it points to as a ctypes pointer or an address."""
    if isinstance(mapped, ctypes._Pointer | ctypes.c_void_p):
        mapped = ctypes.cast(mapped, ctypes.c_void_p).value
    if isinstance(mapped, int):
        return (ctypes.c_ubyte * size).from_address(mapped)
    return mapped
