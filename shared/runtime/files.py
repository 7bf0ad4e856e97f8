"""Files of a store: opened only if they are regular ones, written whole or not at all.

What lies in a store's folder may have been put there by strangers: a link must not lead anywhere else, and a pipe must
not be waited for.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from nuclei_segmentation.shared.errors import StoreError
from nuclei_segmentation.shared.runtime.disk import writing


def open_regular(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        It is not there.
    StoreError
        It is something else, or cannot be opened.
    """
    try:
        number = os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        link = error.errno == errno.ELOOP and path.is_symlink()
        reason = "it is a link, and a store has regular files only" if link else error.strerror
        raise StoreError(f"{path} cannot be opened: {reason}") from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise StoreError(f"{path} is not a regular file; make the store again")
    return number


def read_small(path: Path, limit: int) -> bytes:
    """Return a file's content, of which more than `limit` bytes are refused.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        It is not there.
    StoreError
        It cannot be read, or is too large.
    """
    number = open_regular(path)
    try:
        with os.fdopen(number, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise StoreError(f"{path} has more than {limit} bytes: it is no file of a store")
    return content


def write_all(file: int, data: bytes | memoryview, place: int) -> None:
    """Write all of `data`; one call may take only a part of it, on a disk that is nearly full or of more than 2 GiB."""
    view = memoryview(data)
    while view:
        done = os.pwrite(file, view, place)
        view, place = view[done:], place + done


def put_file(folder: Path, work: Path, name: str, content: bytes) -> None:
    """Write a file whole or not at all: in the folder of work first, then renamed."""
    part = work / f"{name}.part"
    with writing(folder / name, len(content)):
        part.unlink(missing_ok=True)
        number = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            write_all(number, content, 0)
            os.fsync(number)
        finally:
            os.close(number)
        part.rename(folder / name)
        force(folder)


def force(folder: Path) -> None:
    """Force a folder's names to the disk."""
    number = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def read_regular(path: Path, most: int) -> bytes | None:
    """Return the first bytes of a file; None if it is no regular file.

    It is opened without waiting: opening a pipe that nobody writes to would wait for ever.

    Parameters
    ----------
    path : pathlib.Path
        Of the file.
    most : int
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
