"""The folders of shards: which there are in a folder, and which may not lie beside a store that is to be made.

The shards of a store of masks lie side by side in one folder, each in ``shard-I-of-N``, and each is a store of its own.
A store that has all masks, or shards of another number, would not go with them.
"""

from __future__ import annotations

import os
from pathlib import Path

from nuclei_segmentation.shared.settings.shard import Shard
from nuclei_segmentation.shared.store.manifest import FILE, WORK


def shard_folders(folder: Path) -> list[tuple[Shard, Path]]:
    """Return the folders of shards in a folder, in order; none where it is missing or cannot be looked into."""
    try:
        with os.scandir(folder) as entries:
            found = [(shard, folder / entry.name) for entry in entries if (shard := Shard.named(entry.name))]
    except OSError:
        return []
    return sorted(found, key=lambda one: (one[0].count, one[0].number))


def holds_store(folder: Path) -> bool:
    """Tell whether a folder holds a store, or somebody begins one there."""
    return (folder / FILE).exists() or (folder / WORK).exists()


def rivals(output: Path, shard: Shard | None) -> list[Path]:
    """Return the folders in and below an output folder with what would not go with a new store.

    Parameters
    ----------
    output : pathlib.Path
        The output folder, which holds the store or the folders of shards.
    shard : Shard or None
        Which one is to be made; None for a store that has all.
    """
    others = [folder for it, folder in shard_folders(output) if shard is None or it.count != shard.count]
    if shard is not None:
        others.insert(0, output)
    return [folder for folder in others if holds_store(folder)]
