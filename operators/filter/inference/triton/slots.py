"""Files in shared memory: our own, that requests and answers go through, and stores that tiles lie in already."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuclei_segmentation.operators.filter.inference.contract import Array, Plan
from nuclei_segmentation.operators.filter.inference.triton.memory_segments import SegmentSpan
from nuclei_segmentation.shared.batches import Pixels

#: Where the system keeps shared memory. Triton opens files that lie in it directly, and none in its subfolders.
FOLDER = Path("/dev/shm")  # noqa: S108 - this is what shm_open(3) means, not a temporary file

PREFIX, SUFFIX = "nuclei-", "-exchange"
"""Of the names of slots."""

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
    def of(cls, plan: Plan, batch: int) -> Layout | None:
        """Return the layout for a plan and at most `batch` tiles a request; None where the answer's size is unknown."""
        if plan.channels is None:
            return None
        area = plan.tile**2
        rows = plan.limit(batch)
        return cls(
            source=rows * area * 3 * np.dtype(plan.input.dtype).itemsize,
            results=tuple(area * (one.channels or 0) * np.dtype(one.spec.dtype).itemsize for one in plan.outputs),
            rows=rows,
            batched=plan.batched,
        )

    @property
    def size(self) -> int:
        """Bytes of a slot."""
        return _pages(self.source) + sum(_pages(self.rows * size) for size in self.results)

    def spans(self, segment: str, shape: Sequence[int]) -> list[SegmentSpan]:
        """Return the outputs' places for an input of the given shape."""
        rows = shape[0] if self.batched else 1
        start, spans = _pages(self.source), []
        for size in self.results:
            spans.append(SegmentSpan(segment, start, rows * size))
            start += _pages(self.rows * size)
        return spans


class Slot:
    """A file of our own that one request at a time goes through.

    Its name appears only when it is locked and has all its memory. The lock ends with the process, however that ends:
    see `remove_leftovers`. Process numbers would not do, since containers that share memory each count their own.

    Parameters
    ----------
    size : int
        In bytes.

    Attributes
    ----------
    name, size
        Of the file, which only this user may open.
    memory : numpy.ndarray
        (size,) uint8; its content. Stays usable after `discard`.

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
            # Without memory set aside, the server as well as we would end with SIGBUS where there is none left.
            os.posix_fallocate(self._file, 0, size)
            self.memory: Pixels = np.frombuffer(mmap.mmap(self._file, size), np.uint8)
            _name(self._file, self._path)
        except BaseException:
            os.close(self._file)
            raise

    def discard(self) -> None:
        """Remove the file; its memory goes when neither we nor a server use it. Do so but once."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)


def _name(file: int, path: Path) -> None:
    """Give a name to an open file that has none."""
    # Python passes "follow the link", which this needs, to the system only where a folder is given as well.
    folder = os.open("/proc/self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.link(str(file), path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def is_slot(name: str) -> bool:
    """Tell whether a file or segment of that name is a slot, of whatever process."""
    return name.startswith(PREFIX) and name.endswith(SUFFIX)


def remove_leftovers() -> None:
    """Remove the slots of processes that were killed."""
    for path in FOLDER.glob(f"{PREFIX}*{SUFFIX}"):
        try:
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            continue  # gone, or another user's
        try:
            # not to be had: its owner lives
            with contextlib.suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        finally:
            os.close(file)


@dataclass(frozen=True, slots=True)
class Store:
    """A file in `FOLDER` with tiles.

    Attributes
    ----------
    name : str
        Of the file.
    number : int
        Its inode: another file that takes the name has another.
    size : int
        In bytes, when it was found.
    """

    name: str
    number: int
    size: int

    @property
    def is_there(self) -> bool:
        """Whether the file of that name is still this one."""
        return number_of(self.name) == self.number


def number_of(name: str) -> int | None:
    """Return the inode of a file in `FOLDER`, or None where there is none."""
    try:
        return (FOLDER / name).stat(follow_symlinks=False).st_ino
    except OSError:
        return None


class Stores:
    """Finds out whether an array is part of a file in shared memory. May be used by several threads."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[mmap.mmap, Store | None] = weakref.WeakKeyDictionary()

    def find(self, array: Array) -> tuple[Store, int] | None:
        """Return the file that an array lies in, and at which byte; None if in no file, or one elsewhere.

        Parameters
        ----------
        array : numpy.ndarray
            Contiguous; a view, however indirect, of a `numpy.memmap`.
        """
        root: object = array
        while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
            root = root.base
        # a copy-on-write map is not what is in the file
        if not isinstance(root, np.memmap) or root.mode == "c" or not isinstance(root.base, mmap.mmap):
            return None
        try:
            store = self._known[root.base]
        except KeyError:
            store = self._known[root.base] = _store(root)
        if store is None:
            return None
        # a slice of a memmap says the offset of the whole; that is why the root is looked for
        return store, _address(array) - _address(root) + root.offset


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _store(root: np.memmap[tuple[int, ...], np.dtype[np.generic]]) -> Store | None:
    path = Path(root.filename) if root.filename else None
    if path is None or path.parent != FOLDER:
        return None
    try:
        state = path.stat(follow_symlinks=False)
        mapped = _mapped_file(_address(root))
    except OSError:
        return None
    # the name may belong to another file by now
    return Store(path.name, state.st_ino, state.st_size) if mapped == (state.st_dev, state.st_ino) else None


def _mapped_file(address: int) -> tuple[int, int] | None:
    """Return device and inode of the file that is mapped at an address of this process."""
    with Path("/proc/self/maps").open() as lines:
        for line in lines:
            span, _, _, device, number, *_ = line.split(maxsplit=5)
            start, end = (int(text, 16) for text in span.split("-"))
            if start <= address < end:
                major, minor = (int(text, 16) for text in device.split(":"))
                return os.makedev(major, minor), int(number)
    return None


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
