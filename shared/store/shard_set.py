"""The stores that together hold the maps of all tiles: one undivided map store, or its shards, wherever they lie.

Shards go together if their number of shards, their key and their run are the same. A stage that does not wait refuses
other shards. A stage that waits ignores them, for they may be about to be replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path

from nuclei_segmentation.shared.errors import InputError, StoreError
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.environment import SHARD
from nuclei_segmentation.shared.settings.shard import Shard
from nuclei_segmentation.shared.store.find import Objection, no_store, reason_to_wait, store_folders
from nuclei_segmentation.shared.store.ledger import FILE as LEDGER
from nuclei_segmentation.shared.store.ledger import records
from nuclei_segmentation.shared.store.manifest import Manifest, is_complete, read_manifest
from nuclei_segmentation.shared.store.shard_folders import shard_folders


@dataclass(frozen=True, slots=True)
class ShardStore:
    """A map store with all tiles, or with one shard of them.

    Attributes
    ----------
    folder : pathlib.Path
        The store's folder.
    manifest : Manifest
        Its manifest.
    """

    folder: Path
    manifest: Manifest

    @property
    def shard(self) -> Shard:
        """Which shard it is. An undivided store is shard 0 of 1."""
        return Shard(0, 1) if self.manifest.shard is None else self.manifest.shard.shard

    @property
    def first(self) -> int:
        """Id of its first tile."""
        return 0 if self.manifest.shard is None else self.manifest.shard.first

    @property
    def group(self) -> tuple[int, str, str]:
        """What shards that go together have in common: the number of shards, the key and the run."""
        return self.shard.count, self.manifest.key, self.manifest.run


class ShardSet:
    """The map stores that a stage reads. A stage that waits begins with one of them, any other with all of them.

    Parameters
    ----------
    settings : Settings
        Say where to look. A stage that waits and belongs to a run (``NUCLEI_RUN_ID``) ignores stores of other runs.
    wait_limit : WaitLimit
        How long to wait for the first store.
    objection : Objection
        Returns why a store is not the right one; an empty text if it is.

    Attributes
    ----------
    stores : dict of int to ShardStore
        The stores found so far, by their shard's number.
    manifest : Manifest
        The manifest of one of them. In all of them the slide, the tiles and the model are the same.
    count : int
        How many shards there are in total.

    Raises
    ------
    InputError
        There is no store, or a shard is missing, and the stage does not wait.
    WaitedTooLong
        No store came.
    StoreError
        A manifest is invalid, a store is not the right one, or a shard exists twice.
    """

    def __init__(self, settings: Settings, wait_limit: WaitLimit, objection: Objection) -> None:
        self._settings, self._waits, self._objection = settings, wait_limit.waits, objection
        self._places = store_folders(settings, "masks")
        self._ignored = ""  # why a store was ignored, for messages
        self.stores: dict[int, ShardStore] = {}
        while not self.look():
            if not self._waits:
                raise InputError(no_store(settings, "masks"))
            wait_limit.wait(lambda: f"map store in {self._places[0]} or {self._places[1]}{self._ignored}")
        first = next(iter(self.stores.values()))
        self.manifest, self.count = first.manifest, first.shard.count
        if not self._waits and len(self.stores) < self.count:
            raise InputError(self._missing_shards(first))

    def look(self) -> bool:
        """Look for further stores; return whether any store was found so far.

        Raises
        ------
        StoreError
            A manifest is invalid, a store is not the right one, or a shard exists twice.
        """
        if self.stores and len(self.stores) == self.count:
            return True
        known = {store.folder for store in self.stores.values()}
        candidates, unreadable = self._candidates(known)
        model = next(iter(self.stores.values())) if self.stores else _most_common(candidates)
        if model is not None and model.manifest.shard is None:
            candidates = [model]  # of several undivided stores the first is taken
        for store in candidates:
            assert model is not None
            if store.group == model.group:
                other = self.stores.setdefault(store.shard.number, store)
                if realpath(other.folder) != realpath(store.folder):
                    raise StoreError(
                        f"{_name(store)} exists twice, in {other.folder} and in {store.folder}; remove one"
                    )
            else:
                reason = f"{_name(store)} in {store.folder} {_difference(store, model)}"
                if not self._waits:
                    raise StoreError(reason)
                self._ignored = f" ({reason})"
        if unreadable is not None and (model is None or len(self.stores) < model.shard.count):
            raise unreadable
        return bool(self.stores)

    @property
    def finished_tiles(self) -> int:
        """Number of tiles whose maps are finished, in all stores found so far."""
        return sum(min(store.manifest.n, records(store.folder / LEDGER)) for store in list(self.stores.values()))

    def progress(self) -> int:
        """Return a number that grows whenever a store is found, or a stage writes to one."""
        return len(self.stores) + sum(records(store.folder / LEDGER) for store in self.stores.values())

    @property
    def complete(self) -> bool:
        """Whether all shards are found and complete."""
        return len(self.stores) == self.count and all(
            is_complete(store.folder, store.manifest) for store in self.stores.values()
        )

    @property
    def folders(self) -> list[Path]:
        """The folders of the stores found so far, and those that shard folders lie in."""
        parents = {store.folder.parent for store in self.stores.values() if Shard.named(store.folder.name) is not None}
        return [*(store.folder for store in self.stores.values()), *parents]

    @property
    def manifests(self) -> list[Manifest]:
        """The manifests of the stores found so far."""
        return [store.manifest for store in self.stores.values()]

    def awaited(self, number: int) -> str:
        """Return which shard is waited for, for messages."""
        return (
            f"map store of shard {Shard(number, self.count)} in {self._places[0]} or {self._places[1]}{self._ignored}"
        )

    def _candidates(self, known: set[Path]) -> tuple[list[ShardStore], StoreError | None]:
        """Return the map stores that are not known yet and raise no objection, and the first unreadable manifest."""
        candidates: list[ShardStore] = []
        unreadable = None
        self._ignored = ""
        for folder in self._folders():
            if folder in known:
                continue
            try:
                manifest = read_manifest(folder)
            except StoreError as error:  # it may be another program's file, with the store in the other folder
                unreadable = unreadable or error
                continue
            if manifest is None or manifest.kind != "masks":
                continue
            store = ShardStore(folder, manifest)
            reason = self._objection(manifest) or (reason_to_wait(self._settings, manifest) if self._waits else "")
            if not reason:
                candidates.append(store)
            elif self._waits:
                self._ignored = f" ({reason})"
            elif not any(other.manifest.shard is None for other in candidates):
                raise StoreError(f"the map store in {folder} does not fit: {reason}{_advice(store)}")
        return candidates, unreadable

    def _folders(self) -> Iterator[Path]:
        for place in self._places:
            yield place
            for _, folder in shard_folders(place):
                yield folder

    def _missing_shards(self, found: ShardStore) -> str:
        missing = [Shard(number, self.count) for number in range(self.count) if number not in self.stores]
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        return (
            f"the maps in {found.folder.parent} are in {self.count} shards, of which {missing[0]}{more} "
            f"{'are' if more else 'is'} missing; run filter with {SHARD}={missing[0]} on the same tiles and folder"
        )


def _most_common(stores: list[ShardStore]) -> ShardStore | None:
    """Return a store of the group that most stores belong to; None if there are no stores."""
    undivided = [store for store in stores if store.manifest.shard is None]
    shards = [store for store in stores if store.manifest.shard is not None]
    if undivided and shards:
        raise StoreError(
            f"{undivided[0].folder} holds all maps, and {shards[0].folder} a shard of them; remove one of the two"
        )
    if undivided:
        return undivided[0]
    groups = Counter(store.group for store in stores)
    return max(stores, key=lambda store: groups[store.group], default=None)  # of equally large groups, the first


def _name(store: ShardStore) -> str:
    return f"shard {store.shard}" if store.manifest.shard is not None else "the map store"


def _advice(store: ShardStore) -> str:
    return f"; run filter again with {SHARD}={store.shard}, or remove it" if store.manifest.shard is not None else ""


def _difference(store: ShardStore, other: ShardStore) -> str:
    """Return why a shard does not go with another."""
    if store.shard.count != other.shard.count:
        return (
            f"does not go with shard {other.shard} in {other.folder}: all shards must be of the same division; remove "
            "those of one of the two"
        )
    if store.manifest.key != other.manifest.key:
        return (
            f"was made with another model, settings or version than shard {other.shard} in {other.folder}"
            f"{_advice(store)}"
        )
    run, other_run = (manifest.run or "(unnamed)" for manifest in (store.manifest, other.manifest))
    return f"belongs to run {run}, but shard {other.shard} in {other.folder} belongs to run {other_run}{_advice(store)}"
