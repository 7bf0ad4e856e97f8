"""What a run leaves in its output folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

FILES = ["config.meta", "config_render.json", "image.tif", "summary.json"]


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "image.tif").read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
