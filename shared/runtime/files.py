"""Reading files that somebody else made, and writing files so that they survive a crash."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.file_system import sync, sync_file
from nuclei_segmentation.shared.runtime.folder import create_file


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int | None:
    """Open a file that somebody else may have made, without waiting: opening a pipe would wait for its writer.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    flags : int, optional
        As for `os.open`. Links are followed unless ``os.O_NOFOLLOW`` is among them.

    Returns
    -------
    int or None
        The file descriptor; None if the path does not name a regular file.

    Raises
    ------
    OSError
        The file does not exist or cannot be opened.
    """
    file = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    return None


def read_regular(path: Path, most: int) -> bytes | None:
    """Return the first bytes of a file.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    most : int
        How many bytes to read at most.

    Returns
    -------
    bytes or None
        The content; None if the path does not name a regular file.

    Raises
    ------
    OSError
        The file does not exist or cannot be read.
    """
    number = open_regular(path)
    if number is None:
        return None
    with os.fdopen(number, "rb") as file:
        # Not much more than there is: Python reserves the memory for what is asked for. Files of /proc have no size.
        return file.read(min(most, max(1 << 20, os.fstat(number).st_size)))


def read_at(file: int, length: int, offset: int) -> bytes:
    """Return bytes of an open file; fewer only where the file ends, although one call may read less.

    Parameters
    ----------
    file : int
        A file descriptor.
    length : int
        How many bytes to read.
    offset : int
        Where in the file they begin, in bytes.
    """
    data = os.pread(file, length, offset)
    if len(data) in (0, length):  # nearly always
        return data
    parts = [data]
    while data:
        length, offset = length - len(data), offset + len(data)
        data = os.pread(file, length, offset) if length else b""
        parts.append(data)
    return b"".join(parts)


def write_all(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data`, although one call may write less: on a disk that is nearly full, or more than 2 GiB.

    Parameters
    ----------
    file : int
        A file descriptor.
    data : bytes or memoryview
        What to write.
    offset : int
        Where in the file to write it, in bytes.
    """
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, offset)
        view, offset = view[done:], offset + done


def write_file(path: Path, content: bytes, unfinished: Path, check: Callable[[], None] = lambda: None) -> None:
    """Write a file completely or not at all, even if the power fails.

    The content is written and synced under another name, and the file is then renamed.

    Parameters
    ----------
    path : pathlib.Path
        The file; an older one is replaced.
    content : bytes
        Its content.
    unfinished : pathlib.Path
        The other name, on the same file system. A file of this name is removed.
    check : callable, optional
        Called before the file gets its name: what it raises prevents that.

    Raises
    ------
    NoSpace
        The disk is full.
    OutputError
        The file cannot be written.
    """
    with writing(path, len(content)):
        try:
            file = create_file(unfinished)
            try:
                write_all(file, content, 0)
                sync_file(file)
            finally:
                os.close(file)
            check()
            unfinished.rename(path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        sync(path.parent)
