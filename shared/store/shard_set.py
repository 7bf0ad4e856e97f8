"""The parts of a store of masks: the store itself, or its shards, wherever they lie and as they come.

Shards go together if their number, their content's key and their run are the same. What else is there is refused by who
does not wait, and left aside by who does, for it may be about to be replaced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os.path import realpath
from pathlib import Path

from nuclei_segmentation.shared.errors import InputError, StoreError
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.environment import SHARD
from nuclei_segmentation.shared.settings.shard import Shard
from nuclei_segmentation.shared.store.find import belongs_elsewhere, missing, places_of
from nuclei_segmentation.shared.store.ledger import FILE as LEDGER
from nuclei_segmentation.shared.store.ledger import records
from nuclei_segmentation.shared.store.manifest import Manifest, is_complete, read_manifest
from nuclei_segmentation.shared.store.shard_folders import shard_folders

Refuse = Callable[[Manifest], str]


@dataclass(frozen=True, slots=True)
class ShardStore:
    """A store of masks that has all or a share of them."""

    folder: Path
    manifest: Manifest

    @property
    def shard(self) -> Shard:
        """Which one it is; all masks are shard 0 of 1."""
        return Shard(0, 1) if self.manifest.shard is None else self.manifest.shard.shard

    @property
    def first(self) -> int:
        """Its first tile, among all."""
        return 0 if self.manifest.shard is None else self.manifest.shard.first

    @property
    def group(self) -> tuple[int, str, str]:
        """What is the same in all parts that go together."""
        return self.shard.count, self.manifest.key, self.manifest.run


class ShardSet:
    """The parts of one store of masks. Who waits has at least one of them, who does not has all.

    Parameters
    ----------
    settings : Settings
        Where to look. Who waits and belongs to a run (``NUCLEI_RUN_ID``) takes no store of another run.
    wait_limit : WaitLimit
        How long to wait for the first of them.
    refuse : Refuse
        Says what is wrong with a store that was found, or nothing.

    Attributes
    ----------
    found : dict of int to ShardStore
        Those that are there, by the shard's number.
    one
        The manifest of any of them: of slide, tiles and model all say the same.
    count
        How many there are to be.

    Raises
    ------
    InputError
        There is none, or one is missing, and no waiting.
    WaitedTooLong
        None came.
    StoreError
        A manifest cannot be understood, a part is not the right one, or is there twice.
    """

    def __init__(self, settings: Settings, wait_limit: WaitLimit, refuse: Refuse) -> None:
        self._settings, self._waits, self._refuse = settings, wait_limit.waits, refuse
        self._places = places_of(settings, "masks")
        self._other = ""
        self.found: dict[int, ShardStore] = {}
        while not self.look():
            if not self._waits:
                raise InputError(missing(settings, "masks"))
            wait_limit.wait(lambda: f"store of masks in {self._places[0]} or {self._places[1]}{self._other}")
        first = next(iter(self.found.values()))
        self.one, self.count = first.manifest, first.shard.count
        if not self._waits and len(self.found) < self.count:
            raise InputError(self._missing(first))

    def look(self) -> bool:
        """Take in what has come since; return whether there is anything at all."""
        if self.found and len(self.found) == self.count:
            return True
        known = {part.folder for part in self.found.values()}
        parts, unreadable = self._fitting(known)
        like = next(iter(self.found.values())) if self.found else _typical(parts)
        if like is not None and like.manifest.shard is None:
            parts = [like]  # of several the first, as of stores of tiles
        for part in parts:
            if like is not None and part.group == like.group:
                twice = self.found.setdefault(part.shard.number, part)
                if realpath(twice.folder) != realpath(part.folder):
                    raise StoreError(
                        f"{_name(part)} is there twice, in {twice.folder} and in {part.folder}; remove one"
                    )
            elif like is not None:
                wrong = f"{_name(part)} in {part.folder} {_difference(part, like)}"
                if not self._waits:
                    raise StoreError(wrong)
                self._other = f" ({wrong})"
        if unreadable is not None and (like is None or len(self.found) < like.shard.count):
            raise unreadable
        return bool(self.found)

    @property
    def count_there(self) -> int:
        """Masks that the ledgers name, of all parts that are there."""
        return sum(min(part.manifest.n, records(part.folder / LEDGER)) for part in list(self.found.values()))

    def progress(self) -> int:
        """Return a number that grows whenever a part comes, or anybody works on one."""
        return len(self.found) + sum(records(part.folder / LEDGER) for part in self.found.values())

    @property
    def complete(self) -> bool:
        """Whether all are there, and complete."""
        return len(self.found) == self.count and all(
            is_complete(part.folder, part.manifest) for part in self.found.values()
        )

    @property
    def folders(self) -> list[Path]:
        """Where those lie that are there, and what they lie in where that is more."""
        shards = {part.folder.parent for part in self.found.values() if Shard.named(part.folder.name) is not None}
        return [*(part.folder for part in self.found.values()), *shards]

    @property
    def manifests(self) -> list[Manifest]:
        """Of those that are there."""
        return [part.manifest for part in self.found.values()]

    def lacking(self, number: int) -> str:
        """Say that a shard is waited for which is not there yet."""
        return f"masks of shard {Shard(number, self.count)} in {self._places[0]} or {self._places[1]}{self._other}"

    def _fitting(self, known: set[Path]) -> tuple[list[ShardStore], StoreError | None]:
        """Return the parts that will do, but for known ones, and what could not be read."""
        fitting: list[ShardStore] = []
        unreadable = None
        self._other = ""
        for folder in self._folders():
            if folder in known:
                continue
            try:
                manifest = read_manifest(folder)
            except StoreError as error:  # it may be somebody else's file, and the store in the other folder
                unreadable = unreadable or error
                continue
            if manifest is None or manifest.kind != "masks":
                continue
            part = ShardStore(folder, manifest)
            wrong = self._refuse(manifest) or (belongs_elsewhere(self._settings, manifest) if self._waits else "")
            if not wrong:
                fitting.append(part)
            elif self._waits:
                self._other = f" ({wrong})"
            elif not any(one.manifest.shard is None for one in fitting):
                raise StoreError(f"the store of masks in {folder} does not fit: {wrong}{_again(part)}")
        return fitting, unreadable

    def _folders(self) -> Iterator[Path]:
        for place in self._places:
            yield place
            for _, folder in shard_folders(place):
                yield folder

    def _missing(self, like: ShardStore) -> str:
        lacking = [Shard(number, self.count) for number in range(self.count) if number not in self.found]
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        return (
            f"the masks in {like.folder.parent} are in {self.count} shards, of which {lacking[0]}{more} "
            f"{'are' if more else 'is'} missing; run filter with {SHARD}={lacking[0]} on the same tiles and folder"
        )


def _typical(parts: list[ShardStore]) -> ShardStore | None:
    """Return one of those parts that most others go with."""
    whole = [part for part in parts if part.manifest.shard is None]
    shards = [part for part in parts if part.manifest.shard is not None]
    if whole and shards:
        raise StoreError(
            f"{whole[0].folder} holds all masks, and {shards[0].folder} a shard of them; remove one of the two"
        )
    if whole:
        return whole[0]
    groups = Counter(part.group for part in parts)
    return max(parts, key=lambda part: groups[part.group], default=None)  # of as many, the first


def _name(part: ShardStore) -> str:
    return f"shard {part.shard}" if part.manifest.shard is not None else "the store of masks"


def _again(part: ShardStore) -> str:
    return f"; run filter again with {SHARD}={part.shard}, or remove it" if part.manifest.shard is not None else ""


def _difference(part: ShardStore, like: ShardStore) -> str:
    """Say why a shard does not go with another."""
    if part.shard.count != like.shard.count:
        return (
            f"does not go with shard {like.shard} in {like.folder}: all shards must be of one number; remove those of "
            "the other"
        )
    if part.manifest.key != like.manifest.key:
        return (
            f"was made with another model, settings or version than shard {like.shard} in {like.folder}{_again(part)}"
        )
    runs = [manifest.run or "(unnamed)" for manifest in (part.manifest, like.manifest)]
    return f"belongs to run {runs[0]}, shard {like.shard} in {like.folder} to {runs[1]}{_again(part)}"
