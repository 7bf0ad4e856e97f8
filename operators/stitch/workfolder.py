"""The output folder of a run: who may write there, what is already there, and what a run keeps until it is done.

While a run is under way everything lies in ``.run/`` inside the output folder: the lock, the run's key, the journal of
maps and the unfinished image. A finished run leaves ``image.tif``, ``config_render.json`` and ``config.meta`` only.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nuclei_segmentation.operators.stitch.render_files import META
from nuclei_segmentation.shared.clara.render_config import RENDER
from nuclei_segmentation.shared.errors import OutputError, StoreError
from nuclei_segmentation.shared.provenance import differences
from nuclei_segmentation.shared.result import IMAGE, SUMMARY, read_document
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.lock import FolderLock
from nuclei_segmentation.shared.store.manifest import WORK, read_manifest
from nuclei_segmentation.shared.store.shard_folders import shard_folders

META_LIMIT = 1 << 20
"""Most bytes of a config.meta; ours have a few hundred."""


class WorkFolder:
    """The output folder, held by one run.

    Parameters
    ----------
    output : pathlib.Path
        The output folder; made if it does not exist.

    Raises
    ------
    OutputError
        It cannot be written, or another run holds it.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output / WORK
        self._claimed = self._closed = False
        if self.path.is_symlink():
            raise OutputError(f"{self.path} is a link; a run works there, and removes what it finds: delete the link")
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
            self._fresh = not self.path.exists()
            self._lock = FolderLock(self.path, output)

    def finished(self) -> str | None:
        """Return the key of the finished run whose result lies here, "" if it is not ours to know, None if none."""
        meta = self._meta()
        if meta is not None:
            return str(meta.get("run", ""))
        return "" if (self.output / IMAGE).exists() and self._key() is None else None

    def claim(self, key: str, provenance: dict[str, Any], *, overwrite: bool) -> bool:
        """Begin or continue the run `key`.

        Returns
        -------
        bool
            Whether there is anything to do: False if this very run is already finished.

        Raises
        ------
        OutputError
            The folder holds another run, finished or not, and `overwrite` is off.
        """
        if (store := _store_in(self.output)) is not None:
            raise OutputError(f"{self.output} holds a store of {store}; the image needs a folder of its own")
        with writing(self.path):
            finished, begun = self.finished(), self._key()
            if finished == key:
                # a result with damaged places is made again: the slide may be a better copy by now
                whole = not (self._meta() or {}).get("damaged")
                if whole and (self.output / IMAGE).is_file() and (self.output / RENDER).is_file():
                    return False
            elif finished is not None and not overwrite:
                raise OutputError(
                    f"{self.output} holds another result{_difference(read_document(self.output), provenance)}; use an "
                    "empty folder, or set `overwrite: true` in config.yaml to replace it"
                )
            if begun is not None and begun != key:
                if not overwrite:
                    raise OutputError(
                        f"{self.output} holds an unfinished run with another slide, model or settings"
                        f"{_difference(read_document(self.path), provenance)}; repeat that one, use an empty folder, "
                        f"or set `overwrite: true` in config.yaml to drop it (or delete {self.path})"
                    )
                self._clear()
            self._drop_image()
            (self.path / SUMMARY).write_text(json.dumps(provenance))
            unfinished = self.path / "key.part"
            unfinished.write_text(key)
            unfinished.rename(self.path / "key")
        self._fresh, self._claimed = False, True
        return True

    def _drop_image(self) -> None:
        """Give back the space of an unfinished image, which the next run starts anew; the journal stays."""
        for name in (IMAGE, "spool"):
            (self.path / name).unlink(missing_ok=True)

    def close(self, *, remove: bool) -> None:
        """Give the folder back.

        Parameters
        ----------
        remove : bool
            Whether what a run keeps until it is done is no longer needed.
        """
        if self._closed:
            return
        self._closed = True
        with writing(self.path):
            if self._claimed and not remove:
                self._drop_image()
            if remove or self._fresh:
                self._clear()
                # the lock goes last: whoever gets it before that finds nothing that is still being removed
                self._lock.remove()
            else:
                self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(remove=False)

    def _meta(self) -> dict[str, object] | None:
        """Return the content of config.meta, {} if it is none of ours, None if there is no such file."""
        path = self.output / META
        if not path.is_symlink() and not path.exists():
            return None
        if not path.is_file() or path.stat().st_size > META_LIMIT:
            return {}  # a pipe, a folder: nothing that we wrote
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError):
            return {}
        return document if isinstance(document, dict) else {}

    def _key(self) -> str | None:
        try:
            return (self.path / "key").read_text(errors="replace")
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            return ""

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if entry.name != "lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _store_in(folder: Path) -> str | None:
    for place in (folder, *(shard for _, shard in shard_folders(folder))):
        try:
            manifest = read_manifest(place)
        except StoreError:  # somebody else's manifest.json
            continue
        if manifest is not None:
            return manifest.kind
    return None


def _difference(old: dict[str, Any] | None, new: dict[str, Any]) -> str:
    """Say how the result that is there differs from the one that is wanted, where that is recorded."""
    found = differences(old, new) if old is not None else ""
    return f" ({found})" if found else ""
