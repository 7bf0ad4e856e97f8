"""Services that a run can do without, since not every file system has them: the run then goes on, with one warning.

CIFS and some FUSE file systems refuse to force a folder to the disk, Lustre without the option ``flock`` has no file
locks, NFS before 4.2 cannot reserve space. Such an answer says nothing about the data: it is no error of writing.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import stat
import threading
from pathlib import Path

from nuclei_segmentation.shared.runtime.resources import free_bytes

log = logging.getLogger(__name__)

_UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOTTY, errno.ENOLCK})
_ZEROS = bytes(1 << 20)
_NAMES_LOST = "a power cut may undo the last renames"

_said: set[tuple[str, int]] = set()
"""Of which services, on which devices, the warning was given."""
_saying = threading.Lock()


def sync_file(file: int, *, data_only: bool = False) -> None:
    """Force an open file, or the names in an open folder, to the disk.

    Parameters
    ----------
    file : int
        A file descriptor.
    data_only : bool, optional
        Whether the content will do, with what it takes to read it; times and permissions may be lost.

    Raises
    ------
    OSError
        Data may be lost. Do not try again: the system has marked the lost pages as written.
    """
    try:
        (os.fdatasync if data_only else os.fsync)(file)
    except OSError as error:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            _go_on(error, file, "cannot force the names in a folder to the disk", _NAMES_LOST)
        else:
            _go_on(error, file, "cannot force files to the disk", "a power cut may damage what was written")


def sync(path: Path) -> None:
    """Force the content of a file, or the names in a folder, to the disk.

    Parameters
    ----------
    path : pathlib.Path
        The file or folder.

    Raises
    ------
    OSError
        It may be lost.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError as error:  # names can be made in a folder that cannot be read
        if not path.is_dir():
            raise
        _warn(error, path.stat().st_dev, path, "cannot be read, and so cannot be forced to the disk", _NAMES_LOST)
        return
    try:
        sync_file(file)
    finally:
        os.close(file)


def lock_file(file: int, operation: int) -> bool:
    """Lock an open file, as `fcntl.flock` does.

    Parameters
    ----------
    file : int
        A file descriptor.
    operation : int
        ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``, with ``fcntl.LOCK_NB``.

    Returns
    -------
    bool
        Whether the file is locked; False where the file system has no locks.

    Raises
    ------
    OSError
        Somebody else has locked it, or something else went wrong.
    """
    try:
        fcntl.flock(file, operation)
    except OSError as error:
        _go_on(error, file, "has no file locks", "another run in this folder is noticed only by the time of its lock")
        return False
    return True


def reserve_space(file: int, size: int, folder: Path, *, mapped: bool = False) -> None:
    """Give an open, empty file its size, and reserve the space, so that a full disk is noticed before the work starts.

    Parameters
    ----------
    file : int
        A file descriptor.
    size : int
        Bytes; the file reads as zeros.
    folder : pathlib.Path
        Where the file lies.
    mapped : bool, optional
        Whether the file will be mapped. A mapped page for which there is no space ends the process, so where the
        system cannot reserve it, zeros are written.

    Raises
    ------
    OSError
        There is less space.
    """
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        if free_bytes(folder) < size:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        os.ftruncate(file, size)
        if mapped:
            for start in range(0, size, len(_ZEROS)):
                os.pwrite(file, _ZEROS[: size - start], start)
            return
        _go_on(error, file, "cannot reserve space", "a disk that fills up is noticed only when it is full")


def _go_on(error: OSError, file: int, lack: str, consequence: str) -> None:
    """Warn, or raise the error if it says something else than that the service is missing."""
    if error.errno not in _UNSUPPORTED:
        raise error
    path = Path(f"/proc/self/fd/{file}").readlink()
    _warn(error, os.fstat(file).st_dev, path, f"is on a file system that {lack}", consequence)


def _warn(error: OSError, device: int, path: Path, lack: str, consequence: str) -> None:
    with _saying:
        if (lack, device) in _said:
            return
        _said.add((lack, device))
    log.warning("%s %s (%s); the run goes on, but %s", path, lack, error.strerror, consequence)
