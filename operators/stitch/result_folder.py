"""The output folder of an image: what is already in it, and what a run may do there.

A finished run leaves ``image.tif``, ``config_render.json``, ``summary.json`` and ``config.meta`` only. An unfinished
run keeps its key, what it is made from, the journal of maps and the unfinished image in the work folder.

``config.meta`` names the run that the result belongs to, ``summary.json`` the run, the size and the checksum of the
image. A result is finished where they agree with each other and with the image. They may not, if a run was taken for
dead, and woke up at the worst instant.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from nuclei_segmentation.shared.clara.config_meta import META, read_config_meta
from nuclei_segmentation.shared.clara.render_config import RENDER
from nuclei_segmentation.shared.errors import OutputError, StoreError, UnreadableSlide
from nuclei_segmentation.shared.provenance import differences
from nuclei_segmentation.shared.result import IMAGE, SUMMARY, checksum, read_document
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.files import write_file
from nuclei_segmentation.shared.runtime.output_folder import (
    IMAGE_KEY,
    KEPT,
    PUBLISHING,
    UNFINISHED_SUMMARY,
    OutputFolder,
)
from nuclei_segmentation.shared.slides.tiff_index import Directory, read_index
from nuclei_segmentation.shared.store.manifest import STORE_NAMES, read_manifest
from nuclei_segmentation.shared.store.shard_folders import shard_folders

log = logging.getLogger(__name__)

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

    def claim(
        self, key: str, provenance: dict[str, Any], *, overwrite: bool, render_config: Path | None = None
    ) -> bool:
        """Begin or resume a run.

        Parameters
        ----------
        key : str
            The run's key.
        provenance : dict of str to object
            What the result is made from, as `Provenance.to_json` returns it.
        overwrite : bool
            Whether to replace another result.
        render_config : pathlib.Path or None, optional
            The config_render.json to copy, which may lie in the output folder already.

        Returns
        -------
        bool
            Whether there is anything to do: False if this very run is already finished.

        Raises
        ------
        OutputError
            The folder holds a store, or `overwrite` is off and the folder holds another run, finished or not, or a file
            of somebody else that has the name of one of the result's.
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
            elif finished is None and not overwrite and (name := self._of_somebody_else(render_config)):
                advice = "move it beside the slide, from where it is copied" if name == RENDER else "move it away"
                raise OutputError(
                    f"{self.path / name} was not written by a run; {advice}, use another folder, or set "
                    "`overwrite: true` in config.yaml to replace it"
                )
            if unfinished is None:
                self._clear((PUBLISHING,))  # maps that nobody knows the run of
            elif unfinished != key:
                if not overwrite:
                    raise OutputError(
                        f"{self.path} holds an unfinished run, or kept maps, of another slide, model or settings"
                        f"{_difference(self.work, provenance)}; repeat that run, use an empty folder, "
                        "or set `overwrite: true` in config.yaml to discard it "
                        f"(or delete {self.work})"
                    )
                self._clear()
            self._begin(key, provenance)
        return True

    def claim_outputs(self, key: str, provenance: dict[str, Any]) -> None:
        """Begin or resume the making of files beside an image that is finished.

        Parameters
        ----------
        key : str
            The run's key.
        provenance : dict of str to object
            What the result is made from, as `Provenance.to_json` returns it.
        """
        with writing(self.work):
            if self._unfinished_key() != key:
                self._clear((PUBLISHING,))
            self._begin(key, provenance)

    def _begin(self, key: str, provenance: dict[str, Any]) -> None:
        """Note which run this is; only its journal is taken over."""
        self._drop_unfinished()
        content = json.dumps(provenance).encode()
        write_file(self.work / UNFINISHED_SUMMARY, content, self.work / f"{UNFINISHED_SUMMARY}.part")
        write_file(self.work / IMAGE_KEY, key.encode(), self.work / f"{IMAGE_KEY}.part")
        self._claimed = True

    def close(self) -> None:
        """Give the folder back. The work folder stays only if an unfinished run has left something in it."""
        if self._claimed:
            self._claimed = False
            if not self._is_lost():  # else its work folder is another's to remove, and may be gone
                with writing(self.work):
                    self._drop_unfinished()
        super().close()

    def _drop_unfinished(self) -> None:
        """Remove unfinished files, which the next run starts again; the journal stays."""
        self._clear(KEPT)

    def _finished_key(self) -> str | None:
        """Return the key of the run whose result is here; "" if another program wrote it, None if there is none."""
        meta = read_config_meta(self.path / META)
        if meta is not None:
            return str(meta.get("run", ""))
        return "" if os.path.lexists(self.path / IMAGE) and not (self.work / PUBLISHING).exists() else None

    def _of_somebody_else(self, render_config: Path | None) -> str:
        """Return the name of a file beside the image that no run has written; "" if there is none."""
        if (self.path / META).exists() or (self.work / PUBLISHING).exists():
            return ""
        found = [name for name in (RENDER, SUMMARY) if os.path.lexists(self.path / name)]
        if RENDER in found and render_config is not None and (self.path / RENDER).exists():
            found = [name for name in found if name != RENDER or not render_config.samefile(self.path / RENDER)]
        return found[0] if found else ""

    def _unfinished_key(self) -> str | None:
        try:
            return (self.work / IMAGE_KEY).read_text(errors="replace")
        except FileNotFoundError:
            return None

    def _is_sound(self) -> bool:
        """Tell whether a finished result has all its files, which belong together, and no damage.

        A damaged one is made again: the slide may be a better copy by now.
        """
        meta = read_config_meta(self.path / META) or {}
        if meta.get("damaged") or not (self.path / IMAGE).is_file() or not (self.path / RENDER).is_file():
            return False
        problem = _problem_of_image(self.path, meta.get("run"))
        if problem:
            log.warning("%s: %s; it is made again", self.path / IMAGE, problem)
        return not problem


def _problem_of_image(folder: Path, run: object) -> str:
    """Return why the image in a folder is not that of the run which config.meta names; "" if it is.

    A summary may be missing, be of an unknown version, or have no checksum. Then the structure of the file must do:
    whether all tiles lie in it.
    """
    document = read_document(folder)
    image = folder / IMAGE
    if document is not None and "key" in document:
        said = document.get("image")
        facts = said if isinstance(said, dict) else {}
        if document.get("key") != run:
            return "config.meta and summary.json belong to different runs"
        if facts.get("bytes") != image.stat().st_size:
            return "its size is not the one in summary.json"
        if "xxh3" in facts:
            return "" if facts["xxh3"] == checksum(image) else "its checksum is not the one in summary.json"
    return "" if _is_whole_tiff(image) else "it is not a whole TIFF file"


def _is_whole_tiff(path: Path) -> bool:
    """Tell whether a file is a TIFF all of whose tiles lie in it."""
    with path.open("rb") as file:
        try:
            index = read_index(file.fileno())
        except UnreadableSlide:
            return False
        size = os.fstat(file.fileno()).st_size
    if index.faults or not isinstance(index.base, Directory):
        return False
    return all(
        len(image.offsets) > 0 and bool(((image.counts > 0) & (image.offsets + image.counts <= size)).all())
        for image in (index.base, *index.others)
    )


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
