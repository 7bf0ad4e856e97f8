"""A file that is written from its start to its end."""

from __future__ import annotations

import os
from pathlib import Path

from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.file_system import sync_file
from nuclei_segmentation.shared.runtime.files import write_all
from nuclei_segmentation.shared.runtime.folder import create_file


class NewFile(Closing):
    """An open file to which bytes are appended. It serves libraries that want to write to a Python file, too.

    Parameters
    ----------
    path : pathlib.Path
        The file. An older one is removed; no link is followed.

    Raises
    ------
    NoSpace
        The disk is full.
    OutputError
        The file cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = 0
        with writing(path):
            self._number = create_file(path)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of `data`, and return how many bytes these are.

        Raises
        ------
        NoSpace
            The disk or the quota is full.
        OutputError
            The file cannot be written.
        """
        view = memoryview(data)
        with writing(self._path, view.nbytes):
            write_all(self._number, view, self._size)
        self._size += view.nbytes
        return view.nbytes

    def rewrite(self, data: bytes, offset: int) -> None:
        """Replace bytes that were appended before.

        Parameters
        ----------
        data : bytes
            The new ones.
        offset : int
            Where the old ones begin.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        with writing(self._path, len(data)):
            write_all(self._number, data, offset)

    def tell(self) -> int:
        """Return the number of bytes that were written."""
        return self._size

    def flush(self) -> None:
        """Do nothing: no byte is held back."""

    def finish(self) -> None:
        """Force the file to the disk, and close it.

        Raises
        ------
        NoSpace
            The disk or the quota is full.
        OutputError
            Data may be lost.
        """
        with writing(self._path):
            sync_file(self._number)
        self.close()

    @property
    def closed(self) -> bool:
        """Whether the file is closed."""
        return self._number < 0

    def close(self) -> None:
        """Close the file; a second time, do nothing."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)
