"""Which slide is it, and is it still the same."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.slides.find import files_of

_END: Final = 1 << 20
_BLOCK: Final = 64 << 10
_BLOCKS: Final = 64


def fingerprint(path: Path) -> str:
    """Return what tells a slide from all others: a SHA-256, in hexadecimal, over its size and samples of its bytes.

    The samples are the first and the last MiB and 64 blocks of 64 KiB spread evenly between them (all of it, if it is
    small): 6 MiB of a file of any size. Of a slide of many files, all files count, in the order of their names. Names
    and dates do not count.

    Parameters
    ----------
    path : pathlib.Path
        The slide's file, as `find_slide` returns it.

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
    with file.open("rb", buffering=0) as stream:
        descriptor = stream.fileno()
        size = os.fstat(descriptor).st_size
        digest.update(b"%d\n" % size)
        if size <= 2 * _END + _BLOCKS * _BLOCK:
            spans = [(0, size)]
        else:
            between = size - 2 * _END - _BLOCK
            blocks = [(_END + between * i // (_BLOCKS - 1), _BLOCK) for i in range(_BLOCKS)]
            spans = [(0, _END), *blocks, (size - _END, _END)]
        for start, length in spans:
            digest.update(os.pread(descriptor, length, start))


@dataclass(frozen=True, slots=True)
class Stat:
    """What changes when somebody writes to a slide, or puts another in its place."""

    size: int
    modified_ns: int
    inode: int
    files: int


def stat_of(path: Path) -> Stat:
    """Return a slide's state: equal before and after a run, or the slide was changed meanwhile.

    Parameters
    ----------
    path : pathlib.Path
        The slide's file, as `find_slide` returns it; of a slide of many files all are looked at.

    Raises
    ------
    UnreadableSlide
        A file is gone or cannot be looked at.
    """
    try:
        found = [file.stat() for file in files_of(path)]
    except OSError as error:
        raise UnreadableSlide(f"cannot read {path}: {error.strerror}") from None
    return Stat(
        size=sum(stat.st_size for stat in found),
        modified_ns=max(stat.st_mtime_ns for stat in found),
        inode=min(stat.st_ino for stat in found),
        files=len(found),
    )
