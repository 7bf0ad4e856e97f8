"""Opening the files of a store. Strangers may have put something else in their place: links are not followed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from nuclei_segmentation.shared.errors import StoreError
from nuclei_segmentation.shared.runtime.files import open_regular


def open_store_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a file of a store.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    flags : int, optional
        As for `os.open`.

    Returns
    -------
    int
        The file descriptor.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is no such file.
    StoreError
        The path does not name a regular file, or the file cannot be opened.
    """
    try:
        file = open_regular(path, flags | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        link = error.errno == errno.ELOOP and path.is_symlink()
        reason = "it is a link, and a store has regular files only" if link else error.strerror
        advice = "run all stages as one user" if error.errno == errno.EACCES else "make the store again"
        raise StoreError(f"{path} cannot be opened: {reason}; {advice}") from error
    if file is None:
        raise StoreError(f"{path} is not a regular file; make the store again")
    return file


def read_store_file(path: Path, limit: int) -> bytes:
    """Return the content of a small file of a store.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    limit : int
        The most bytes that it may have.

    Returns
    -------
    bytes

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        There is no such file.
    StoreError
        The file cannot be read, or is larger.
    """
    number = open_store_file(path)
    try:
        with os.fdopen(number, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}; make the store again") from error
    if len(content) > limit:
        raise StoreError(f"{path} has more than {limit} bytes, too many for this file of a store")
    return content
