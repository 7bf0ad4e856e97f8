"""The output folder of a stage that makes a store: who may write there, and what is already there."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from nuclei_segmentation.shared.clara.fastio import FASTIO, Context
from nuclei_segmentation.shared.errors import OutputError, StoreError
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.files import force, put_file
from nuclei_segmentation.shared.runtime.lock import FolderLock
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.settings.shard import Shard
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.clean import clear, remove
from nuclei_segmentation.shared.store.ledger import MISSING, Entry, LedgerWriter
from nuclei_segmentation.shared.store.manifest import COMPLETE, FILE, WORK, Kind, Manifest, is_complete, read_manifest
from nuclei_segmentation.shared.store.reader import StoreReader
from nuclei_segmentation.shared.store.shard_folders import holds_store, rivals
from nuclei_segmentation.shared.store.writer import keep_files

log = logging.getLogger("nuclei")


class StoreFolder(Closing):
    """An output folder, held by one run.

    Parameters
    ----------
    output : pathlib.Path
        The output folder; made if it does not exist.
    shard : Shard or None, optional
        Which share of a store is made, in a folder of its own in the output folder; None for the whole.

    Attributes
    ----------
    path, work
        The store's folder, and its folder of work.

    Raises
    ------
    OutputError
        It cannot be written, or another run holds it.
    """

    def __init__(self, output: Path, shard: Shard | None = None) -> None:
        self._output, self._shard = output, shard
        self.path = output = output if shard is None else output / shard.folder
        self.work = output / WORK
        if self.work.is_symlink():
            raise OutputError(f"{self.work} is a link; a run works there, and removes what it finds: delete the link")
        self._finished = self._claimed = False
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
            self._fresh = not self.work.exists()
            self._lock = FolderLock(self.work, output)

    def claim(
        self,
        kind: Kind,
        key: str,
        run: str,
        *,
        overwrite: bool,
        files: Mapping[str, bytes] | None = None,
        fastio: Context = None,
    ) -> bool:
        """Begin or continue the store `key`.

        Parameters
        ----------
        kind, key, run : Kind, str, str
            As in its manifest.
        overwrite : bool
            Replace another store.
        files : Mapping of str to bytes or None, optional
            What travels with tiles, by name; renewed in a store that is complete.
        fastio : Context, optional
            The FastIO context of NVIDIA's driver, where it runs this stage.

        Returns
        -------
        bool
            Whether there is anything to do: False if this very store is complete, and every tile is what it was.

        Raises
        ------
        OutputError
            The folder holds another store or an unfinished run, and `overwrite` is off.
        """
        self._refuse_image()
        self._make_way(overwrite, fastio)
        there = self._there(overwrite)
        shard = None if there is None or there.shard is None else there.shard.shard
        if there is not None and (there.kind, there.key, shard) == (kind, key, self._shard):
            if self._whole(there):
                if kind == "tiles":
                    keep_files(self.path, self.work, files or {})
                if there.run != run:  # the stages after this one wait for that run's
                    put_file(self.path, self.work, FILE, replace(there, run=run).to_json())
                self._finished = True
                return False
        elif there is not None and not overwrite:
            other = f"a store of {there.kind}" if there.kind != kind else f"another store of {kind}"
            raise OutputError(
                f"{self.path} holds {other} (of {there.slide.name}); use an empty folder, or set `overwrite: true` in "
                "config.yaml to replace it"
            )
        self._fresh, self._claimed = False, True
        return True

    def finish(self) -> None:
        """Note that the store is complete, and what is kept for going on is no longer needed."""
        self._finished = True

    def close(self) -> None:
        """Give the folder back."""
        with writing(self.work):
            if self._finished or (self._claimed and not (self.path / FILE).exists()):
                clear(self.work)
            elif not self._fresh or any(entry.name != "lock" for entry in self.work.iterdir()):
                self._lock.close()
                return
            self._lock.remove()
        if Shard.named(self.path.name) is not None:
            with suppress(OSError):  # it is not empty
                self.path.rmdir()

    def _refuse_image(self) -> None:
        if (self.work / "key").exists():
            raise OutputError(
                f"{self.path} holds an unfinished run of stitch or segmentation; repeat that one, or use another folder"
            )

    def _make_way(self, overwrite: bool, fastio: Context) -> None:
        """Refuse, or remove, what would not go with this store. Other shards of it may do so at the same time."""
        there = rivals(self._output, self._shard)
        one = "an undivided one" if self._shard is None else f"shard {self._shard}"
        for certain in (False, True):  # nothing is removed if anything must stay
            for rival in there:
                stands = f"{rival} holds a store that does not go with {one} in {self._output}; "
                if rival != self._output and rival.is_symlink():
                    raise OutputError(f"{stands}it is a link: delete that, or use an empty folder")
                try:
                    with StoreFolder(rival) as held:
                        held._refuse_image()
                        if not overwrite and not held._only_locked():
                            raise OutputError(
                                f"{stands}use an empty folder, or set `overwrite: true` in config.yaml to replace it"
                            )
                        if certain:
                            remove(held.path, held.work, fastio)
                            held.finish()
                except OutputError:
                    if holds_store(rival):  # else another shard has just removed it
                        raise

    def _only_locked(self) -> bool:
        """Tell whether nothing is here but our lock: who had it before has died, and left nothing."""
        return not (self.path / FILE).exists() and all(entry.name == "lock" for entry in self.work.iterdir())

    def _whole(self, manifest: Manifest) -> bool:
        """Tell whether a store is complete and sound; what is not is struck from it, to be made again."""
        try:
            if not is_complete(self.path, manifest):
                return False
            if manifest.arrays[manifest.kind].file.startswith(FASTIO):
                raise StoreError(f"the {manifest.kind} of {self.path} went with their job; they are made again")
            with StoreReader(self.path, manifest, WaitLimit(None)) as reader:
                for name in set(manifest.arrays) - {manifest.kind}:
                    reader.small(name)
                wrong = reader.wrong_items()
                again = int(reader.damaged(0, manifest.n).sum())
        except StoreError as error:
            log.warning("%s", error)
        else:
            if not wrong and not again:
                return True
            if wrong:
                log.warning("%s: %d tiles are damaged (%d, …); they are made again", self.path, len(wrong), wrong[0])
                with LedgerWriter(self.path / ledger.FILE, manifest.generation, manifest.n, create=False) as records:
                    records.append(Entry(item, MISSING, 0) for item in wrong)
            else:
                log.info("%d tiles could not be read last time; they are tried again", again)
        with writing(self.path):
            (self.path / COMPLETE).unlink()
            force(self.path)
        return False

    def _there(self, overwrite: bool) -> Manifest | None:
        try:
            return read_manifest(self.path)
        except StoreError as error:
            if not overwrite:
                raise OutputError(
                    f"{self.path} holds something that cannot be read: {error}; or set `overwrite: true`"
                ) from error
            log.warning("%s; it is replaced", error)
            return None
