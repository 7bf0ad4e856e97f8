"""An output folder that one run holds, and the work folder inside it."""

from __future__ import annotations

import shutil
from pathlib import Path

from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.lock import FILE as LOCK
from nuclei_segmentation.shared.runtime.lock import FolderLock

WORK = ".run"
"""Name of the work folder: it has the lock, and whatever an unfinished run keeps for the next one."""
IMAGE_KEY = "key"
"""File in the work folder of an image: the key of the unfinished run."""


class OutputFolder(Closing):
    """An output folder that this run holds until `close`.

    Parameters
    ----------
    path : pathlib.Path
        The output folder. It is made if it does not exist.

    Attributes
    ----------
    path : pathlib.Path
        The output folder.
    work : pathlib.Path
        Its work folder.

    Raises
    ------
    OutputError
        The folder cannot be written, or another run holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.work = path, path / WORK
        self._finished = self._closed = False
        if self.work.is_symlink():
            raise OutputError(f"{self.work} is a link, and a run deletes files in that folder; remove the link")
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.work, path)

    def finish(self) -> None:
        """Note that the result is complete: the next run needs nothing from the work folder."""
        self._finished = True

    def close(self) -> None:
        """Give the folder back. The work folder stays only if an unfinished run has left something in it."""
        if self._closed:
            return
        self._closed = True
        with writing(self.work):
            if self._finished:
                self._clear()
            if self._contents():
                self._lock.close()
            else:
                # The lock goes last: the run that takes it next finds nothing that is still being removed.
                self._lock.remove()

    def _contents(self) -> list[Path]:
        """Return what the work folder has besides the lock."""
        return [entry for entry in self.work.iterdir() if entry.name != LOCK] if self.work.exists() else []

    def _clear(self) -> None:
        """Empty the work folder, except for the lock."""
        for entry in self._contents():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
