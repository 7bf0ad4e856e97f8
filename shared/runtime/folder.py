"""A folder that is open: its files are opened by its descriptor, and no link in it is followed.

Others may write to an output folder too, and put a link where a run expects a file or folder of its own. What a run
writes there, it writes by these functions.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nuclei_segmentation.shared.runtime.closing import Closing

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # opening a pipe would wait for its other end
_OBSTACLES = {errno.EISDIR, errno.ELOOP, errno.ENXIO, errno.ENOTDIR, errno.EEXIST}


class OpenFolder(Closing):
    """An open folder.

    Parameters
    ----------
    path : pathlib.Path
        The folder.
    within : OpenFolder or None, optional
        The open folder that it lies in. None: it is opened by its path, whose last part must not be a link.

    Raises
    ------
    FileNotFoundError
        It does not exist.
    FileExistsError
        Something else is in its place: a link, or a file.
    OSError
        It cannot be opened.
    """

    def __init__(self, path: Path, within: OpenFolder | None = None) -> None:
        self.path = path
        with _naming(path):
            if within is None:
                self.number = os.open(path, _FOLDER | os.O_NOFOLLOW)
            else:
                self.number = os.open(path.name, _FOLDER | os.O_NOFOLLOW, dir_fd=within.number)

    def close(self) -> None:
        """Close the descriptor."""
        if self.number >= 0:
            os.close(self.number)
            self.number = -1

    def create(self, name: str) -> int:
        """Make a file and return its descriptor, to write and to read. What was there under this name is removed.

        Parameters
        ----------
        name : str
            The file.

        Raises
        ------
        FileExistsError
            A folder of this name is in the way.
        OSError
            The file cannot be made.
        """
        with _naming(self.path / name):
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.number)
            return os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE, 0o666, dir_fd=self.number)

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Open a regular file and return its descriptor.

        Parameters
        ----------
        name : str
            The file.
        flags : int, optional
            As for `os.open`.

        Raises
        ------
        FileNotFoundError
            There is no such file.
        FileExistsError
            Something else is in its place: a link, a folder, a pipe.
        OSError
            The file cannot be opened.
        """
        with _naming(self.path / name):
            file = os.open(name, flags | _FILE, 0o666, dir_fd=self.number)
            if stat.S_ISREG(os.fstat(file).st_mode):
                return file
            os.close(file)
            raise FileExistsError(errno.EEXIST, "not a regular file")

    def read(self, name: str, most: int) -> bytes | None:
        """Return the first bytes of a file; None where there is no regular file of this name.

        Parameters
        ----------
        name : str
            The file.
        most : int
            How many bytes to read at most.
        """
        try:
            number = self.open(name)
        except (FileNotFoundError, FileExistsError):
            return None
        with os.fdopen(number, "rb") as file:
            return file.read(most)

    def status(self, name: str) -> os.stat_result | None:
        """Return what `os.lstat` says of a file or folder; None if it does not exist."""
        try:
            return os.stat(name, dir_fd=self.number, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def names(self) -> list[str]:
        """Return the names of all files and folders in it, in order."""
        return sorted(os.listdir(self.number))  # noqa: PTH208 - by the descriptor

    def make(self, name: str) -> OpenFolder:
        """Open a folder in it, and make it if it does not exist. A link in its place is removed.

        Parameters
        ----------
        name : str
            The folder.

        Raises
        ------
        FileExistsError
            A file is in the way.
        OSError
            The folder cannot be made.
        """
        found = self.status(name)
        with _naming(self.path / name):
            if found is not None and stat.S_ISLNK(found.st_mode):
                os.unlink(name, dir_fd=self.number)
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=self.number)
        return OpenFolder(self.path / name, self)

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that is in it; of a link the link itself."""
        found = self.status(name)
        if found is None:
            return
        with _naming(self.path / name):
            if stat.S_ISDIR(found.st_mode):
                shutil.rmtree(name, dir_fd=self.number)
            else:
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=self.number)


def create_file(path: Path) -> int:
    """Make a file in a folder that is no link, and return its descriptor; see `OpenFolder.create`."""
    with OpenFolder(path.parent) as folder:
        return folder.create(path.name)


def open_file(path: Path, flags: int = os.O_RDONLY) -> int:
    """Open a regular file in a folder that is no link, and return its descriptor; see `OpenFolder.open`.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    flags : int, optional
        As for `os.open`.
    """
    with OpenFolder(path.parent) as folder:
        return folder.open(path.name, flags)


def make_folders(root: Path, path: Path) -> None:
    """Make a folder below another one, with the folders between them. Links among these are removed.

    Parameters
    ----------
    root : pathlib.Path
        A folder that exists. It may be a link.
    path : pathlib.Path
        The folder to be made.

    Raises
    ------
    FileExistsError
        A file is in the way.
    OSError
        The folder cannot be made.
    """
    at = OpenFolder(Path(os.path.realpath(root)))
    try:
        for name in path.relative_to(root).parts:
            inner = at.make(name)
            at.close()
            at = inner
    finally:
        at.close()


def is_folder(root: Path, path: Path) -> bool:
    """Tell whether a folder is there below another one, with no link on the way.

    Parameters
    ----------
    root : pathlib.Path
        A folder. It may be a link.
    path : pathlib.Path
        A path below it.
    """
    at = Path(os.path.realpath(root))
    for name in ("", *path.relative_to(root).parts):
        at /= name
        if at.is_symlink() or not at.is_dir():
            return False
    return True


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let errors name the whole path, and say of all that is in the way of a file or folder that it exists."""
    try:
        yield
    except OSError as error:
        number = errno.EEXIST if error.errno in _OBSTACLES else error.errno
        raise OSError(number, error.strerror, str(path)) from error
