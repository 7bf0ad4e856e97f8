"""The output folder of a stage that makes a store: who may write there, and what is already there."""

from __future__ import annotations

import logging
from pathlib import Path

from shared.closing import Closing
from shared.disk import writing
from shared.errors import OutputError, StoreError
from shared.lock import FolderLock
from shared.store.manifest import WORK, Kind, Manifest, is_complete, read_manifest
from shared.store.writer import remove_store, rename_run, resumable

log = logging.getLogger("nuclei")


class StoreFolder(Closing):
    """An output folder, held by one run.

    Parameters
    ----------
    output
        The folder; made if it does not exist.

    Raises
    ------
    OutputError
        It cannot be written, or another run holds it.
    """

    def __init__(self, output: Path) -> None:
        self.path, self.work = output, output / WORK
        if self.work.is_symlink():
            raise OutputError(f"{self.work} is a link; a run works there, and removes what it finds: delete the link")
        self._finished = False
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
            self._fresh = not self.work.exists()
            self._lock = FolderLock(self.work, output)

    def claim(self, kind: Kind, key: str, run: str, *, overwrite: bool) -> bool:
        """Begin or continue the store `key`.

        Parameters
        ----------
        kind, key, run
            As in its manifest.
        overwrite
            Replace another store.

        Returns
        -------
        Whether there is anything to do: False if this very store is complete.

        Raises
        ------
        OutputError
            The folder holds another store, and `overwrite` is off.
        """
        there = self._there(overwrite)
        if there is not None and (there.kind, there.key) == (kind, key):
            if is_complete(self.path, there) and resumable(self.path, key):
                if there.run != run:
                    rename_run(self.path, self.work, there, run)
                self._finished = True
                return False
        elif there is not None and not overwrite:
            other = f"a store of {there.kind}" if there.kind != kind else f"another store of {kind}"
            raise OutputError(
                f"{self.path} holds {other} (of {there.slide.name}); use an empty folder, or set `overwrite: true` in "
                "config.yaml to replace it"
            )
        self._fresh = False
        return True

    def finish(self) -> None:
        """Note that the store is complete, and what is kept for going on is no longer needed."""
        self._finished = True

    def close(self) -> None:
        """Give the folder back."""
        with writing(self.work):
            if self._finished or self._fresh:
                self._lock.remove()
            else:
                self._lock.close()

    def _there(self, overwrite: bool) -> Manifest | None:
        try:
            return read_manifest(self.path)
        except StoreError as error:
            if not overwrite:
                raise OutputError(
                    f"{self.path} holds something that cannot be read: {error}; or set `overwrite: true`"
                ) from error
            log.warning("%s; it is replaced", error)
            remove_store(self.path, self.work)
            return None
