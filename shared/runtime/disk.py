"""Turns system errors met while writing into errors that say what to do."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nuclei_segmentation.shared.errors import NoSpace, NucleiError, OutputError
from nuclei_segmentation.shared.runtime.resources import free_bytes, human

_ELSEWHERE = "use another output folder"
_ADVICE = {
    errno.EACCES: f"check its permissions or {_ELSEWHERE}",
    errno.EPERM: f"check its permissions or {_ELSEWHERE}",
    errno.EIO: f"its disk, or the way to it, may be failing; {_ELSEWHERE}",
    errno.EMFILE: "too many files are open in this process; raise the limit (ulimit -n) or use fewer workers (-w)",
    errno.ENFILE: "too many files are open on this machine; run the same command again later",
}
"""What to do about an error of writing, where it is not just to use another folder."""


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
        `NoSpace` if the disk or the quota is full, or a file may not become so large; else `OutputError`.
    """
    wanted = f"{human(needed)} needed, " if needed else ""
    if error.errno == errno.ENOSPC:
        return NoSpace(
            f"no space left for {path}: {wanted}{_free(path)} free; make room and run the same command again, or "
            f"{_ELSEWHERE}"
        )
    if error.errno == errno.EDQUOT:  # what is free on the disk says nothing then
        return NoSpace(
            f"the disk quota is used up at {path}{f': {human(needed)} needed' if needed else ''}; remove files of this "
            f"user or raise the quota, and run the same command again, or {_ELSEWHERE}"
        )
    if error.errno == errno.EFBIG:
        return NoSpace(f"{path} would be larger than {_largest_file()}: {wanted}raise that limit or {_ELSEWHERE}")
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        obstacle = error.filename or path
        return OutputError(f"cannot write {path}: {obstacle} is in the way; remove it or {_ELSEWHERE}")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return OutputError(f"cannot write {path}: {reason}; {_ADVICE.get(error.errno or 0, _ELSEWHERE)}")


def _largest_file() -> str:
    """Return whose limit a file has reached that may not become larger."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if limit == resource.RLIM_INFINITY:
        return "a file may be on this file system"
    return f"a file of this process may be, {human(limit)} (ulimit -f)"


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
