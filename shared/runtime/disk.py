"""Writing to disks: what a system error is called, and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nuclei_segmentation.shared.errors import NoSpace, NucleiError, OutputError
from nuclei_segmentation.shared.runtime.resources import free_bytes, human

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def explain(error: OSError, path: Path, needed: int = 0) -> NucleiError:
    """Return the error to raise when writing to `path` failed.

    Parameters
    ----------
    error : OSError
        What the system said.
    path : pathlib.Path
        The file or folder.
    needed : int, optional
        Bytes wanted there, for the message; 0 where that is not known.

    Returns
    -------
    NucleiError
        `NoSpace` where the disk or the quota is full, else `OutputError`.
    """
    if error.errno in _FULL:
        wanted = f"{human(needed)} needed, " if needed else ""
        return NoSpace(
            f"no space left for {path}: {wanted}{_free(path)} free; "
            "make room and run the same command again, or use another output folder"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        there = error.filename or path
        return OutputError(f"cannot write {path}: {there} is in the way; remove it or use another output folder")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(f"cannot write {path}: {reason}; check its permissions or use another output folder")


@contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Raise what `explain` makes of a system error.

    Parameters
    ----------
    path, needed : pathlib.Path, int
        See `explain`.
    """
    try:
        yield
    except OSError as error:
        raise explain(error, path, needed) from error


def _free(path: Path) -> str:
    while not path.exists():
        path = path.parent
    return human(free_bytes(path))
