"""Turns system errors met while writing into errors that say what to do."""

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
        The system's error.
    path : pathlib.Path
        The file or folder.
    needed : int, optional
        How many bytes were to be written, for the message; 0 where that is not known.

    Returns
    -------
    NucleiError
        `NoSpace` if the disk or the quota is full, else `OutputError`.
    """
    if error.errno in _FULL:
        wanted = f"{human(needed)} needed, " if needed else ""
        return NoSpace(
            f"no space left for {path}: {wanted}{_free(path)} free; "
            "make room and run the same command again, or use another output folder"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        obstacle = error.filename or path
        return OutputError(f"cannot write {path}: {obstacle} is in the way; remove it or use another output folder")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(f"cannot write {path}: {reason}; check its permissions or use another output folder")


@contextmanager
def writing(path: Path, needed: int = 0) -> Iterator[None]:
    """Run a block that writes, and raise its system errors as `explain` words them.

    Parameters
    ----------
    path : pathlib.Path
        The file or folder.
    needed : int, optional
        How many bytes are to be written; 0 where that is not known.

    Raises
    ------
    NoSpace
        The disk or the quota is full.
    OutputError
        The path cannot be written.
    """
    try:
        yield
    except OSError as error:
        raise explain(error, path, needed) from error


def _free(path: Path) -> str:
    while not path.exists():
        path = path.parent
    return human(free_bytes(path))
