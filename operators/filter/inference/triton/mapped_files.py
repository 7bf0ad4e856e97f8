"""Finds the file in shared memory that an array is mapped from, such as the tiles of a store."""

from __future__ import annotations

import mmap
import os
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuclei_segmentation.operators.filter.inference.tensor_plan import Array
from nuclei_segmentation.operators.filter.inference.triton.slots import FOLDER


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A file in `slots.FOLDER` that this process has mapped.

    Attributes
    ----------
    name : str
        The file's name.
    inode : int
        Another file that takes the name has another inode.
    size : int
        Bytes, when the file was found.
    """

    name: str
    inode: int
    size: int

    @property
    def has_its_name(self) -> bool:
        """Whether the file of that name is still this one."""
        return inode_of(self.name) == self.inode


def inode_of(name: str) -> int | None:
    """Return the inode of a file in `slots.FOLDER`, or None if there is no such file."""
    try:
        return (FOLDER / name).stat(follow_symlinks=False).st_ino
    except OSError:
        return None


class MappedFiles:
    """The mapped files found so far. Several threads may use it."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[mmap.mmap, MappedFile | None] = weakref.WeakKeyDictionary()

    def find(self, array: Array) -> tuple[MappedFile, int] | None:
        """Find the file that an array is part of.

        Parameters
        ----------
        array : numpy.ndarray
            Contiguous; may be a view, however indirect, of a `numpy.memmap`.

        Returns
        -------
        tuple or None
            The file, and the byte at which the array begins in it. None if the array is not part of a file directly in
            `slots.FOLDER`.
        """
        root: object = array
        while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
            root = root.base
        # What is in a copy-on-write map may differ from the file.
        if not isinstance(root, np.memmap) or root.mode == "c" or not isinstance(root.base, mmap.mmap):
            return None
        try:
            file = self._known[root.base]
        except KeyError:
            file = self._known[root.base] = _mapped_file(root)
        if file is None:
            return None
        # The `offset` of a slice is that of the whole memmap, so only the root's can be used.
        return file, _address(array) - _address(root) + root.offset


def _address(array: Array) -> int:
    return int(array.__array_interface__["data"][0])


def _mapped_file(root: np.memmap[tuple[int, ...], np.dtype[np.generic]]) -> MappedFile | None:
    path = Path(root.filename) if root.filename else None
    if path is None or path.parent != FOLDER:
        return None
    try:
        state = path.stat(follow_symlinks=False)
        mapped = _device_and_inode(_address(root))
    except OSError:
        return None
    # Another file may have taken the name.
    return MappedFile(path.name, state.st_ino, state.st_size) if mapped == (state.st_dev, state.st_ino) else None


def _device_and_inode(address: int) -> tuple[int, int] | None:
    """Return device and inode of the file that is mapped at an address of this process."""
    with Path("/proc/self/maps").open() as lines:
        for line in lines:
            span, _, _, device, inode, *_ = line.split(maxsplit=5)
            start, end = (int(text, 16) for text in span.split("-"))
            if start <= address < end:
                major, minor = (int(text, 16) for text in device.split(":"))
                return os.makedev(major, minor), int(inode)
    return None
