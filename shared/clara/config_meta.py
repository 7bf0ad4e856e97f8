"""config.meta, the file that tells NVIDIA's Render Server which files make up a data set.

Known, from NVIDIA's documentation: the keys ``name``, ``density``, ``settings`` and ``seg_masks``, for volumes. Not
known: which keys the server wants for slides. Our choice: the keys for volumes, with ``image.tif`` as the density. The
keys ``run`` and ``damaged`` are this project's own; by them a later run recognises a finished result.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from nuclei_segmentation.shared.clara.render_config import RENDER
from nuclei_segmentation.shared.result import IMAGE
from nuclei_segmentation.shared.runtime.files import read_regular
from nuclei_segmentation.shared.runtime.outside import parse_json

META = "config.meta"
LIMIT = 1 << 20
"""The most bytes that are read; a file of this program has a few hundred."""


def config_meta(name: str, run: str, damaged: int) -> bytes:
    """Return the content of config.meta.

    Parameters
    ----------
    name : str
        The data set's name.
    run : str
        The run's key.
    damaged : int
        Number of places of the slide that could not be read.

    Returns
    -------
    bytes
    """
    content = {"name": name, "density": IMAGE, "settings": RENDER, "seg_masks": [], "run": run, "damaged": damaged}
    return (json.dumps(content, indent=4, sort_keys=True) + "\n").encode()


def read_config_meta(path: Path) -> dict[str, object] | None:
    """Return what a config.meta says; nothing where it is not JSON, None where there is no such file.

    Raises
    ------
    OSError
        The file cannot be read.
    """
    if not os.path.lexists(path):
        return None
    content = read_regular(path, LIMIT + 1) if path.is_file() else None
    if content is None or len(content) > LIMIT:
        return {}
    try:
        document = parse_json(content)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
