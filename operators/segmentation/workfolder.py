"""The output folder of a run: who may write there, what is already there, and what a run keeps until it is done.

While a run is under way everything lies in ``.run/`` inside the output folder: the lock, the run's key, the journal of
maps and the unfinished image. A finished run leaves ``image.tif``, ``config_render.json`` and ``config.meta`` only.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import socket
from pathlib import Path
from types import TracebackType
from typing import Self

from operators.stitch.render_files import IMAGE, META, RENDER
from shared.disk import writing
from shared.errors import OutputError

FOLDER = ".run"


class WorkFolder:
    """The output folder, held by one run.

    Parameters
    ----------
    output
        The output folder; made if it does not exist.

    Raises
    ------
    OutputError
        It cannot be written, or another run holds it.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output / FOLDER
        self._lock = -1
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
            self._fresh = not self.path.exists()
            self.path.mkdir(exist_ok=True)
            self._lock = self._acquire()

    def finished(self) -> str | None:
        """Return the key of the finished run whose result lies here, "" if it is not ours to know, None if none."""
        meta = self.output / META
        if meta.exists():
            try:
                document = json.loads(meta.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                return ""
            return str(document.get("run", "")) if isinstance(document, dict) else ""
        return "" if (self.output / IMAGE).exists() and self._key() is None else None

    def claim(self, key: str, *, overwrite: bool) -> bool:
        """Begin or continue the run `key`.

        Returns
        -------
        Whether there is anything to do: False if this very run is already finished.

        Raises
        ------
        OutputError
            The folder holds another run, finished or not, and `overwrite` is off.
        """
        finished, begun = self.finished(), self._key()
        if finished == key:
            if (self.output / IMAGE).is_file() and (self.output / RENDER).is_file():
                return False
        elif finished is not None and not overwrite:
            raise OutputError(
                f"{self.output} holds another result; use an empty folder, "
                "or set `overwrite: true` in config.yaml to replace it"
            )
        if begun is not None and begun != key:
            if not overwrite:
                raise OutputError(
                    f"{self.output} holds an unfinished run with another slide, model or settings; repeat that one, "
                    f"use an empty folder, or set `overwrite: true` in config.yaml (or delete {self.path}) to drop it"
                )
            self._clear()
        with writing(self.path):
            unfinished = self.path / "key.part"
            unfinished.write_text(key)
            unfinished.rename(self.path / "key")
        self._fresh = False
        return True

    def close(self, *, remove: bool) -> None:
        """Give the folder back.

        Parameters
        ----------
        remove
            Whether what a run keeps until it is done is no longer needed.
        """
        if self._lock < 0:
            return
        if remove or self._fresh:
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(remove=False)

    def _acquire(self) -> int:
        path = self.path / "lock"
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    os.close(lock)
                    raise
                holder = os.pread(lock, 200, 0).decode(errors="replace").strip()
                os.close(lock)
                raise OutputError(
                    f"{self.output} is in use by another run ({holder or 'starting up'}); "
                    "wait for it, or use another folder"
                ) from error
            # the holder before us may have removed the file between our open and our lock
            try:
                same = os.path.samestat(os.fstat(lock), path.stat())
            except FileNotFoundError:
                self.path.mkdir(exist_ok=True)
                same = False
            if same:
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
                return lock
            os.close(lock)

    def _key(self) -> str | None:
        try:
            return (self.path / "key").read_text()
        except FileNotFoundError:
            return None

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
