"""The output folder of an image: what is already in it, and what a run may do there.

A finished run leaves ``image.tif``, ``config_render.json``, ``summary.json`` and ``config.meta`` only. An unfinished
run keeps its key, what it is made from, the journal of maps and the unfinished image in the work folder.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nuclei_segmentation.shared.clara.config_meta import META, read_config_meta
from nuclei_segmentation.shared.clara.render_config import RENDER
from nuclei_segmentation.shared.errors import OutputError, StoreError
from nuclei_segmentation.shared.provenance import differences
from nuclei_segmentation.shared.result import IMAGE, SUMMARY, read_document
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.files import write_file
from nuclei_segmentation.shared.runtime.output_folder import IMAGE_KEY, OutputFolder
from nuclei_segmentation.shared.store.manifest import STORE_NAMES, read_manifest
from nuclei_segmentation.shared.store.shard_folders import shard_folders

SPOOL = "spool"


class ResultFolder(OutputFolder):
    """The output folder of an image, held by one run.

    Parameters
    ----------
    path : pathlib.Path
        The output folder. It is made if it does not exist.

    Raises
    ------
    OutputError
        The folder cannot be written, or another run holds it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._claimed = False

    def claim(self, key: str, provenance: dict[str, Any], *, overwrite: bool) -> bool:
        """Begin or resume a run.

        Parameters
        ----------
        key : str
            The run's key.
        provenance : dict of str to object
            What the result is made from, as `Provenance.to_json` returns it.
        overwrite : bool
            Whether to replace another result.

        Returns
        -------
        bool
            Whether there is anything to do: False if this very run is already finished.

        Raises
        ------
        OutputError
            The folder holds a store, or holds another run, finished or not, and `overwrite` is off.
        """
        if store := _store_in(self.path):
            raise OutputError(f"{self.path} holds a {store}; the image needs a folder of its own")
        with writing(self.work):
            finished, unfinished = self._finished_key(), self._unfinished_key()
            if finished == key:
                if self._is_sound():
                    return False
            elif finished is not None and not overwrite:
                raise OutputError(
                    f"{self.path} holds another result{_difference(self.path, provenance)}; use an empty folder, "
                    "or set `overwrite: true` in config.yaml to replace it"
                )
            if unfinished is not None and unfinished != key:
                if not overwrite:
                    raise OutputError(
                        f"{self.path} holds an unfinished run with another slide, model or settings"
                        f"{_difference(self.work, provenance)}; repeat that run, use an empty folder, "
                        "or set `overwrite: true` in config.yaml to discard it "
                        f"(or delete {self.work})"
                    )
                self._clear()
            self._drop_image()
            content = json.dumps(provenance).encode()
            write_file(self.work / SUMMARY, content, self.work / f"{SUMMARY}.part")
            write_file(self.work / IMAGE_KEY, key.encode(), self.work / f"{IMAGE_KEY}.part")
        self._claimed = True
        return True

    def close(self) -> None:
        """Give the folder back. The work folder stays only if an unfinished run has left something in it."""
        if self._claimed:
            self._claimed = False
            with writing(self.work):
                self._drop_image()
        super().close()

    def _drop_image(self) -> None:
        """Remove an unfinished image, which the next run starts again; the journal stays."""
        for name in (IMAGE, SPOOL):
            (self.work / name).unlink(missing_ok=True)

    def _finished_key(self) -> str | None:
        """Return the key of the run whose result is here; "" if another program wrote it, None if there is none."""
        meta = read_config_meta(self.path / META)
        if meta is not None:
            return str(meta.get("run", ""))
        return "" if (self.path / IMAGE).exists() and self._unfinished_key() is None else None

    def _unfinished_key(self) -> str | None:
        try:
            return (self.work / IMAGE_KEY).read_text(errors="replace")
        except FileNotFoundError:
            return None
        except IsADirectoryError:
            return ""

    def _is_sound(self) -> bool:
        """Tell whether a finished result has all its files, and no damage: the slide may be a better copy by now."""
        meta = read_config_meta(self.path / META) or {}
        return not meta.get("damaged") and (self.path / IMAGE).is_file() and (self.path / RENDER).is_file()


def _store_in(folder: Path) -> str:
    """Return what kind of store a folder or its shard folders hold; "" if none."""
    for place in (folder, *(path for _, path in shard_folders(folder))):
        try:
            manifest = read_manifest(place)
        except StoreError:  # another program's manifest.json
            continue
        if manifest is not None:
            return STORE_NAMES[manifest.kind]
    return ""


def _difference(folder: Path, provenance: dict[str, Any]) -> str:
    """Say how the result in a folder differs from the one that is wanted, if it recorded what it was made from."""
    document = read_document(folder)
    found = differences(document, provenance) if document is not None else ""
    return f" ({found})" if found else ""
