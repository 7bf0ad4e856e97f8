"""The folders of shards: which ones are in a folder, and which ones conflict with a store that is to be made.

The shards of a map store lie side by side in one folder, each in ``shard-I-of-N``, and each is a store of its own. They
conflict with a map store that has all tiles, and with shards of another division.
"""

from __future__ import annotations

import os
from pathlib import Path

from nuclei_segmentation.shared.runtime.output_folder import WORK
from nuclei_segmentation.shared.settings.shard import Shard
from nuclei_segmentation.shared.store.manifest import FILE


def shard_folders(folder: Path) -> list[tuple[Shard, Path]]:
    """Return the shard folders in a folder, in order; none if the folder is missing or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            found = [(shard, folder / entry.name) for entry in entries if (shard := Shard.named(entry.name))]
    except OSError:
        return []
    return sorted(found, key=lambda item: (item[0].count, item[0].number))


def holds_store(folder: Path) -> bool:
    """Tell whether a folder holds a store, or a run has begun one there."""
    return (folder / FILE).exists() or (folder / WORK).exists()


def conflicting_stores(output: Path, shard: Shard | None) -> list[Path]:
    """Return the folders of the stores that conflict with a new one: the output folder, and shard folders in it.

    Parameters
    ----------
    output : pathlib.Path
        The output folder, which holds the new store or its shard folder.
    shard : Shard or None
        The shard that is to be made; None for a store with all tiles.

    Returns
    -------
    list of pathlib.Path
    """
    folders = [folder for other, folder in shard_folders(output) if shard is None or other.count != shard.count]
    if shard is not None:
        folders.insert(0, output)
    return [folder for folder in folders if holds_store(folder)]
