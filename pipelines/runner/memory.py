"""The folder that stands for ``/dev/shm`` in all containers of a run: what passes through memory lies there."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.runtime.resources import human


def share(folder: str) -> None:
    """Make the folder, if there is to be one.

    Services may run as another user than operators, so everybody may write there, as to ``/dev/shm`` itself. Other
    users of this machine cannot reach it, since it lies in a folder that is the caller's alone.

    Raises
    ------
    OutputError
        Somebody else has taken its name.
    """
    if folder:
        path = Path(folder)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        facts = path.parent.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid():
            raise OutputError(f"{path.parent} is somebody else's; remove it, or have it removed")
        path.mkdir(exist_ok=True)
        path.chmod(0o1777)


def kept(folder: str) -> str:
    """Return how much lies there, for people; '' if that is nothing."""
    size = sum(one.stat().st_blocks * 512 for one in Path(folder).glob("**/*")) if folder else 0
    return human(size) if size else ""


def free(folder: str) -> None:
    """Remove the folder with all that is in it."""
    if folder:
        shutil.rmtree(Path(folder).parent, ignore_errors=True)
