"""What a run leaves in its output folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

FILES = ["config.meta", "config_render.json", "image.tif", "summary.json"]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "image.tif").read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def unfinished(folder: Path, name: str) -> Path | None:
    """Return a file that an unfinished run keeps in its own folder in the work folder; None if there is none yet."""
    return next((folder / ".run").glob(f"run-*/{name}"), None)


def size_of_journal(folder: Path) -> int:
    """Return how many bytes the journal of an unfinished run has."""
    path = unfinished(folder, "maps")
    try:
        return 0 if path is None else path.stat().st_size
    except FileNotFoundError:  # the run has just ended
        return 0


def left_by_image(folder: Path, **files: str) -> Path:
    """Write what an unfinished run of an image leaves: its key and other files. Return its own folder."""
    own = folder / ".run" / f"run-{'0' * 32}"
    own.mkdir(parents=True)
    for name, content in ({"key": "k"} | files).items():
        (own / name).write_text(content)
    return own
