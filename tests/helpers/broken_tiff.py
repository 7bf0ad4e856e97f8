"""Faults in single tiles of TIFF files."""

from __future__ import annotations

from pathlib import Path

import tifffile


def break_tile(path: Path, page: int, number: int, how: str) -> None:
    """Break one stored tile.

    Parameters
    ----------
    path : pathlib.Path
        The TIFF file.
    page : int
        Number of the directory in the chain of the file.
    number : int
        Number of the tile.
    how : str
        ``missing``: the directory says that it has no bytes. ``unreadable``: its bytes are no image. ``zeroed``: its
        bytes are zeros. ``outside``: it lies beyond the end of the file.
    """
    with tifffile.TiffFile(path, mode="r+") as file:
        tags = file.pages[page].tags  # type: ignore[union-attr]  # a page, not a frame
        offsets, counts = list(tags["TileOffsets"].value), list(tags["TileByteCounts"].value)
        if how in ("missing", "outside"):
            if how == "missing":
                counts[number] = 0
            offsets[number] = 0 if how == "missing" else 1 << 30
            tags["TileOffsets"].overwrite(offsets)
            tags["TileByteCounts"].overwrite(counts)
            return
    with path.open("r+b") as raw:
        raw.seek(offsets[number])
        raw.write(bytes(counts[number]) if how == "zeroed" else b"\x5a" * counts[number])
