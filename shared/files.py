"""Reads small files that somebody else gave us."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def read_regular(path: Path, most: int) -> bytes | None:
    """Return the first bytes of a file; None if it is no regular file.

    It is opened without waiting: opening a pipe that nobody writes to would wait for ever.

    Parameters
    ----------
    path
        Of the file.
    most
        Bytes that are read at most.

    Raises
    ------
    OSError
        It cannot be read.
    """
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        return None
    with os.fdopen(number, "rb") as file:
        return file.read(most)
