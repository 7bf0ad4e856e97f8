"""An output folder that one run holds, and the work folder inside it."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from nuclei_segmentation.shared.errors import LockLost, NucleiError, OutputError
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.folder import OpenFolder
from nuclei_segmentation.shared.runtime.lock import FolderLock

WORK = ".run"
"""Name of the work folder: it has the lock, and the folders of runs with what is unfinished. The rest is not ours."""
IMAGE_KEY = "key"
"""File of an unfinished image: the key of its run."""
UNFINISHED_SUMMARY = "summary.json"
"""File of an unfinished image: what it is made from."""
JOURNAL = "maps"
"""File of an unfinished fused run: the maps so far."""
PUBLISHING = "publishing"
"""File of an unfinished image: it is there when files of the result may have got their final names."""
MAKING = "making"
"""File of an unfinished store; see `shared.store.clean`."""

KEPT = (IMAGE_KEY, UNFINISHED_SUMMARY, PUBLISHING, MAKING, JOURNAL)
"""What a run takes over from one before it. What it does not take over is removed."""

_OF_MAPS = (IMAGE_KEY, UNFINISHED_SUMMARY, JOURNAL)


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
        The folder for this run's unfinished files, which is its own. It has what an earlier run left to be continued.

    Raises
    ------
    OutputError
        The folder cannot be written, or another run holds it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._finished = self._closed = False
        self._kept: Sequence[str] = ()
        if (path / WORK).is_symlink():
            raise OutputError(f"{path / WORK} is a link, and a run deletes files in that folder; remove the link")
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(path / WORK, path)
            self.work = self._lock.own
            try:
                self._take_over()
            except BaseException:
                self._lock.abandon()
                raise

    def check(self) -> None:
        """Make sure that this run still holds the folder; to be called before anything in it is renamed or removed.

        Raises
        ------
        LockLost
            Another run has taken it over.
        OutputError
            That cannot be found out.
        """
        with writing(self.path):
            self._lock.check()

    def check_noticed(self) -> None:
        """Do as `check`, if it is known already that another run has taken the folder over; costs no time."""
        if self._lock.lost:
            self._lock.check()

    def finish(self, *, keep_maps: bool = False) -> None:
        """Note that the result is complete: the next run needs nothing from the work folder.

        Parameters
        ----------
        keep_maps : bool, optional
            Whether the journal of maps stays all the same, and what says which run it belongs to.
        """
        self._finished = True
        self._kept = _OF_MAPS if keep_maps else ()

    def close(self) -> None:
        """Give the folder back. The work folder stays only if an unfinished run has left something in it."""
        if self._closed:
            return
        self._closed = True
        if self._is_lost():
            self._lock.abandon()
            return
        with writing(self.work):
            if self._finished:
                self._clear(self._kept)
            if self._contents():
                self._lock.close()
            else:
                # The lock goes last: the run that takes it next finds nothing that is still being removed.
                self._lock.remove()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The next holder removes what it finds, so that a run which has lost its folder fails in many ways.
        lost = isinstance(error, (NucleiError, OSError)) and not isinstance(error, LockLost) and self._is_lost()
        self.close()
        if lost:
            self._lock.check()

    def _is_lost(self) -> bool:
        try:
            self._lock.check()
        except LockLost:
            return True
        except OSError:  # it cannot be told: what follows fails as well, and says why
            return False
        return False

    def _take_over(self) -> None:
        """Move what earlier holders have left into this run's own folder, and remove their folders.

        A holder that only fell silent may wake up, and write to a file that it has open. So its journal is copied.
        Whatever it has not yet renamed to its final name is gone when it wakes up.
        """
        others = self._lock.others()
        with OpenFolder(self.path / WORK) as folder, OpenFolder(self.work) as own:
            for name, ended in others:
                found = folder.status(name)
                if found is not None and stat.S_ISDIR(found.st_mode):
                    with OpenFolder(folder.path / name, folder) as other:
                        for file in KEPT:
                            if own.status(file) is None:
                                _move(other, own, file, copy=file == JOURNAL and not ended)
                folder.remove(name)

    def _contents(self) -> list[str]:
        """Return the names of what this run has not finished."""
        with OpenFolder(self.work) as own:
            return own.names()

    def _clear(self, kept: Sequence[str] = ()) -> None:
        """Remove what this run has not finished."""
        with OpenFolder(self.work) as own:
            for name in own.names():
                if name not in kept:
                    own.remove(name)


def _move(source: OpenFolder, target: OpenFolder, name: str, *, copy: bool) -> None:
    """Move a regular file, if it is there, from one folder to another: by its name, or as a copy."""
    found = source.status(name)
    if found is None or not stat.S_ISREG(found.st_mode):
        return
    if not copy and found.st_nlink == 1:  # of a file with further names, nobody knows who else uses it
        os.rename(name, name, src_dir_fd=source.number, dst_dir_fd=target.number)
        return
    part = f"{name}.part"
    with os.fdopen(source.open(name), "rb") as old, os.fdopen(target.create(part), "wb") as new:
        shutil.copyfileobj(old, new, 1 << 20)
        new.flush()
        os.fsync(new.fileno())
    os.rename(part, name, src_dir_fd=target.number, dst_dir_fd=target.number)
