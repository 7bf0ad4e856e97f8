"""The folder that all containers of a run see as ``/dev/shm``: arrays pass through it in memory."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.runtime.resources import human


def create(folder: str) -> None:
    """Create the folder, unless its name is ''.

    Services may run as another user than operators, so every user may write there, as in ``/dev/shm`` itself. Other
    users of this machine cannot get to it, since its parent folder belongs to the caller alone.

    Raises
    ------
    OutputError
        The parent folder belongs to another user.
    """
    if folder:
        path = Path(folder)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        status = path.parent.lstat()
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise OutputError(f"{path.parent} belongs to another user; remove it, or ask its owner to")
        path.mkdir(exist_ok=True)
        path.chmod(0o1777)


def size_in_use(folder: str) -> str:
    """Return the size of what is stored there, for a message; '' if nothing is."""
    size = sum(path.stat().st_blocks * 512 for path in Path(folder).glob("**/*")) if folder else 0
    return human(size) if size else ""


def release(folder: str) -> None:
    """Remove the folder and everything in it."""
    if folder:
        shutil.rmtree(Path(folder).parent, ignore_errors=True)
