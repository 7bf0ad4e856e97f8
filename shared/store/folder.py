"""The output folder of a store: what is already in it, and what a run may do there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nuclei_segmentation.shared.clara.fastio import FASTIO, Context
from nuclei_segmentation.shared.errors import OutputError, StoreError
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.file_system import sync
from nuclei_segmentation.shared.runtime.files import write_file
from nuclei_segmentation.shared.runtime.output_folder import IMAGE_KEY, OutputFolder
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.settings.shard import Shard
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.clean import remove
from nuclei_segmentation.shared.store.ledger import MISSING, Entry, LedgerWriter
from nuclei_segmentation.shared.store.manifest import (
    COMPLETE,
    FILE,
    STORE_NAMES,
    Kind,
    Manifest,
    is_complete,
    read_manifest,
)
from nuclei_segmentation.shared.store.reader import StoreReader
from nuclei_segmentation.shared.store.shard_folders import conflicting_stores, holds_store
from nuclei_segmentation.shared.store.writer import keep_files

log = logging.getLogger(__name__)


class StoreFolder(OutputFolder):
    """The output folder of a store, held by one run.

    Parameters
    ----------
    output : pathlib.Path
        The output folder of the stage. It is made if it does not exist.
    shard : Shard or None, optional
        The shard that is made, in a folder of its own in the output folder; None for a store with all tiles.

    Attributes
    ----------
    path : pathlib.Path
        The store's folder: the output folder, or the shard folder in it.
    work : pathlib.Path
        Its work folder.

    Raises
    ------
    OutputError
        The folder cannot be written, or another run holds it.
    """

    def __init__(self, output: Path, shard: Shard | None = None) -> None:
        self._output, self._shard, self._claimed = output, shard, False
        super().__init__(output if shard is None else output / shard.folder)

    def claim(
        self,
        kind: Kind,
        key: str,
        run: str,
        *,
        overwrite: bool,
        files: Mapping[str, bytes] | None = None,
        fastio: Context = None,
        made_from: Mapping[str, object] | None = None,
    ) -> bool:
        """Begin or resume a store.

        Parameters
        ----------
        kind : Kind
            Its kind.
        key : str
            Its key.
        run : str
            The run that it belongs to; empty if it has no name.
        overwrite : bool
            Whether to replace another store.
        files : Mapping of str to bytes or None, optional
            Further files of a tile store, by name. In a complete store they are brought up to date.
        fastio : Context, optional
            The FastIO context, if NVIDIA's driver runs this stage.
        made_from : Mapping of str to object or None, optional
            What the store is made from, as `Manifest.made_from` returns it, for the message about another store.

        Returns
        -------
        bool
            Whether there is anything to do: False if this very store is complete and sound.

        Raises
        ------
        OutputError
            The folder holds another store, and `overwrite` is off, or an unfinished run of another kind.
        """
        self._refuse_unfinished_image()
        self._remove_conflicting_stores(overwrite, fastio)
        present = self._read_manifest(overwrite)
        shard = None if present is None or present.shard is None else present.shard.shard
        if present is not None and (present.kind, present.key, shard) == (kind, key, self._shard):
            if self._is_sound(present):
                if kind == "tiles":
                    keep_files(self.path, self.work, files or {}, self.check)
                if present.run != run:  # the next stages wait for a store of their run
                    manifest = replace(present, run=run)
                    write_file(self.path / FILE, manifest.to_json(), self.work / f"{FILE}.part", self.check)
                self.finish()
                return False
        elif present is not None and not overwrite:
            other = f"another {STORE_NAMES[kind]}" if present.kind == kind else f"a {STORE_NAMES[present.kind]}"
            differs = _differences(present, made_from) if present.kind == kind and made_from is not None else ""
            raise OutputError(
                f"{self.path} holds {other} ({differs or f'of {present.slide.name}'}); use an empty folder, or set "
                "`overwrite: true` in config.yaml to replace it"
            )
        self._claimed = True
        return True

    def close(self) -> None:
        """Give the folder back. The work folder stays only if an unfinished run has left something in it."""
        if self._claimed and not (self.path / FILE).exists():
            self.finish()  # without a manifest there is nothing to resume
        super().close()
        if Shard.named(self.path.name) is not None:
            with suppress(OSError):  # it is not empty
                self.path.rmdir()

    def _refuse_unfinished_image(self) -> None:
        if (self.work / IMAGE_KEY).exists():
            raise OutputError(
                f"{self.path} holds an unfinished run of stitch or segmentation; repeat that run or use another folder"
            )

    def _remove_conflicting_stores(self, overwrite: bool, fastio: Context) -> None:
        """Remove stores that conflict with this one, or refuse. Other shards of it may do so at the same time."""
        folders = conflicting_stores(self._output, self._shard)
        wanted = "a store of all tiles" if self._shard is None else f"shard {self._shard}"
        for certain in (False, True):  # nothing is removed if anything must stay
            for folder in folders:
                conflict = f"{folder} holds a store that conflicts with {wanted} in {self._output}; "
                if folder != self._output and folder.is_symlink():
                    raise OutputError(f"{conflict}it is a link: remove the link or use an empty folder")
                try:
                    with StoreFolder(folder) as other:
                        other._refuse_unfinished_image()
                        if not overwrite and not other._is_empty():
                            raise OutputError(
                                f"{conflict}use an empty folder, or set `overwrite: true` in config.yaml to replace it"
                            )
                        if certain:
                            remove(other.path, other.work, other.check, fastio)
                            other.finish()
                except OutputError:
                    if holds_store(folder):  # else another shard has just removed it
                        raise

    def _is_empty(self) -> bool:
        """Tell whether the run that held this folder before has left nothing but its lock."""
        return not (self.path / FILE).exists() and not self._contents()

    def _is_sound(self, manifest: Manifest) -> bool:
        """Tell whether a store is complete and sound. If not, mark it as incomplete, and corrupt tiles as missing."""
        try:
            if not is_complete(self.path, manifest):
                return False
            if manifest.arrays[manifest.kind].file.startswith(FASTIO):
                raise StoreError(f"the {manifest.kind} of {self.path} were lost with their job; they are made again")
            with StoreReader(self.path, manifest, WaitLimit(None)) as reader:
                for name in set(manifest.arrays) - {manifest.kind}:
                    reader.small(name)
                corrupt = reader.corrupt_items()
                damaged = int(reader.damaged(0, manifest.n).sum())
        except StoreError as error:
            log.warning("%s", error)
        else:
            if not corrupt and not damaged:
                return True
            if corrupt:
                log.warning(
                    "%s: %d %s corrupt (the first is %d) and made again",
                    self.path,
                    len(corrupt),
                    "tile is" if len(corrupt) == 1 else "tiles are",
                    corrupt[0],
                )
                path = self.path / ledger.FILE
                with LedgerWriter(
                    path, manifest.generation, manifest.n, self.work, self.check, create=False
                ) as records:
                    records.append(Entry(item, MISSING, 0) for item in corrupt)
            else:
                log.info("%d unreadable %s of the last run: trying again", damaged, "tile" if damaged == 1 else "tiles")
        self.check()
        with writing(self.path):
            (self.path / COMPLETE).unlink()
            sync(self.path)
        return False

    def _read_manifest(self, overwrite: bool) -> Manifest | None:
        try:
            return read_manifest(self.path)
        except StoreError as error:
            if not overwrite:
                raise OutputError(
                    f"the manifest in {self.path} cannot be used: {error}; use an empty folder, or set "
                    "`overwrite: true` in config.yaml to replace it"
                ) from error
            log.warning("%s; it is replaced", error)
            return None


def _differences(present: Manifest, wanted: Mapping[str, object]) -> str:
    """Say how a store differs from the one that is wanted: "tile size 256 -> 512; overlap 0 -> 64"."""
    there = present.made_from()
    changed = ((name, there[name], value) for name, value in wanted.items() if there[name] != value)
    return "; ".join(f"{name} {_word(old)} -> {_word(new)}" for name, old, new in changed)


def _word(value: object) -> object:
    return "-" if value is None else value
