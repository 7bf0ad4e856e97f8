"""The fingerprint of a slide, and whether its files have changed."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.runtime.files import open_regular, read_at
from nuclei_segmentation.shared.slides.companions import files_of

_END: Final = 1 << 20  # bytes that are hashed at each end of a file
_BLOCK: Final = 64 << 10  # bytes of a block between them
_BLOCKS: Final = 64


def fingerprint(path: Path) -> str:
    """Return the fingerprint of a slide: a SHA-256 over the sizes of its files and samples of their bytes.

    The samples of a file are the first and the last MiB, and 64 blocks of 64 KiB spread evenly between them: 6 MiB of
    a file of any size. A smaller file is hashed completely. All files of a slide count, in the order of their names.
    The names and dates themselves do not.

    Parameters
    ----------
    path : pathlib.Path
        The slide's file, as `find_slide` returns it.

    Returns
    -------
    str
        64 hexadecimal digits.

    Raises
    ------
    UnreadableSlide
        A file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for file in files_of(path):
            _add(digest, file)
    except OSError as error:
        raise UnreadableSlide(f"cannot read {path}: {error.strerror}") from None
    return digest.hexdigest()


def _add(digest: hashlib._Hash, file: Path) -> None:
    descriptor = open_regular(file)
    if descriptor is None:
        raise UnreadableSlide(f"{file} is no regular file")
    with os.fdopen(descriptor, "rb", buffering=0):
        size = os.fstat(descriptor).st_size
        digest.update(b"%d\n" % size)
        if size <= 2 * _END + _BLOCKS * _BLOCK:
            samples = [(0, size)]
        else:
            between = size - 2 * _END - _BLOCK
            blocks = [(_END + between * i // (_BLOCKS - 1), _BLOCK) for i in range(_BLOCKS)]
            samples = [(0, _END), *blocks, (size - _END, _END)]
        for start, length in samples:
            digest.update(read_at(descriptor, length, start))


@dataclass(frozen=True, slots=True)
class Stat:
    """The state of a slide's files. It changes when they are written to or replaced.

    Attributes
    ----------
    size : int
        Total size in bytes.
    modified_ns : int
        Latest time of modification, in nanoseconds since the epoch.
    inode : int
        Smallest inode number.
    files : int
        Number of files.
    """

    size: int
    modified_ns: int
    inode: int
    files: int


def stat_of(path: Path) -> Stat:
    """Return the state of a slide's files. If it differs before and after a run, the slide was changed meanwhile.

    Parameters
    ----------
    path : pathlib.Path
        The slide's file, as `find_slide` returns it. All files of the slide count.

    Returns
    -------
    Stat
        The state.

    Raises
    ------
    UnreadableSlide
        A file is missing or cannot be inspected.
    """
    try:
        stats = [file.stat() for file in files_of(path)]
    except OSError as error:
        raise UnreadableSlide(f"cannot read {path}: {error.strerror}") from None
    return Stat(
        size=sum(stat.st_size for stat in stats),
        modified_ns=max(stat.st_mtime_ns for stat in stats),
        inode=min(stat.st_ino for stat in stats),
        files=len(stats),
    )
