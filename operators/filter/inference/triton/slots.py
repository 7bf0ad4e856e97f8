"""Slots: files in shared memory through which the tensors of requests travel."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuclei_segmentation.operators.filter.inference.tensor_plan import TensorPlan
from nuclei_segmentation.operators.filter.inference.triton.memory_segments import SegmentSpan
from nuclei_segmentation.shared.batches import Pixels

#: Where the system keeps shared memory. Triton opens files directly in it, but none in its subfolders.
FOLDER = Path("/dev/shm")  # noqa: S108 - this is what shm_open(3) means, not a temporary file

#: The names of slots begin and end with these.
PREFIX, SUFFIX = "nuclei-", "-exchange"

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a slot the tensors of a request are.

    Attributes
    ----------
    source : int
        Bytes of the largest input, which comes first.
    results : tuple of int
        Bytes of each output for one tile, in the plan's order.
    rows : int
        Most tiles of a request.
    batched : bool
        Whether the number of tiles is the input's first axis.
    """

    source: int
    results: tuple[int, ...]
    rows: int
    batched: bool

    @classmethod
    def of(cls, plan: TensorPlan, batch: int) -> Layout | None:
        """Return the layout for a model.

        Parameters
        ----------
        plan : TensorPlan
            How the model is used.
        batch : int
            Most tiles per request.

        Returns
        -------
        Layout or None
            None if the size of the outputs is unknown.
        """
        if plan.channels is None:
            return None
        area = plan.tile**2
        rows = plan.limit(batch)
        return cls(
            source=rows * area * 3 * np.dtype(plan.input.dtype).itemsize,
            results=tuple(area * (out.channels or 0) * np.dtype(out.spec.dtype).itemsize for out in plan.outputs),
            rows=rows,
            batched=plan.batched,
        )

    @property
    def size(self) -> int:
        """Bytes of a slot."""
        return _pages(self.source) + sum(_pages(self.rows * size) for size in self.results)

    def spans(self, segment: str, shape: Sequence[int]) -> list[SegmentSpan]:
        """Return where the outputs of a request go.

        Parameters
        ----------
        segment : str
            The server's name for the slot.
        shape : Sequence of int
            The input's shape.

        Returns
        -------
        list of SegmentSpan
            One for each output.
        """
        rows = shape[0] if self.batched else 1
        start, spans = _pages(self.source), []
        for size in self.results:
            spans.append(SegmentSpan(segment, start, rows * size))
            start += _pages(self.rows * size)
        return spans


class Slot:
    """A file of this process that serves one request at a time.

    The file gets its name only when it is locked and has all its memory. The lock ends with the process, however that
    ends; see `remove_leftovers`. Process ids would not do, since containers that share memory count their own.

    Parameters
    ----------
    size : int
        Bytes.

    Attributes
    ----------
    name : str
        The file's name. Only this user may open it.
    size : int
        Bytes.
    memory : numpy.ndarray
        (size,) uint8: the content. It can still be used after `discard`.

    Raises
    ------
    OSError
        There is no shared memory, or too little.
    """

    def __init__(self, size: int) -> None:
        self.name = f"{PREFIX}{uuid.uuid4().hex}{SUFFIX}"
        self.size = size
        self._path = FOLDER / self.name
        self._file = os.open(FOLDER, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            # If memory ran out later, SIGBUS would end both the server and this process.
            os.posix_fallocate(self._file, 0, size)
            self.memory: Pixels = np.frombuffer(mmap.mmap(self._file, size), np.uint8)
            _name(self._file, self._path)
        except BaseException:
            os.close(self._file)
            raise

    def discard(self) -> None:
        """Remove the file. Its memory is freed when neither this process nor a server uses it. Call this only once."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def _name(file: int, path: Path) -> None:
    """Give a name to an open file that has none."""
    # The link in /proc must be followed. Python passes that on to the system only if a folder is given as well.
    folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(str(file), path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def is_slot(name: str) -> bool:
    """Tell whether a file or segment of this name is a slot, of whatever process."""
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def remove_leftovers() -> None:
    """Remove the slots of processes that were killed."""
    for path in FOLDER.glob(f"{PREFIX}*{SUFFIX}"):
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # it is gone, or belongs to another user
        try:
            with contextlib.suppress(OSError):  # the process still runs and holds the lock
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        finally:
            os.close(file)


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
