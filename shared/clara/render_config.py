"""config_render.json: settings for NVIDIA's Render Server. A file that came with the slide is copied byte for byte.

Known, from NVIDIA's documentation: the settings for volumes. Not known: those for slides. Our choice: if no file came
with the slide, `DEFAULT` is used, which asks for a flat view of the image with the keys for volumes. Our choice, too:
where to look for the file.
"""

from __future__ import annotations

import json
from pathlib import Path

from nuclei_segmentation.shared.errors import InputError
from nuclei_segmentation.shared.runtime.files import read_regular

RENDER = "config_render.json"
RENDER_LIMIT = 16 << 20
"""The most bytes that such a file may have."""

_VIEW = {
    "DataView": {
        "name": "DataView",
        "zoomFactor": 1.0,
        "viewOffset": {"x": 0.0, "y": 0.0},
        "pixelAspectRatio": 1.0,
    },
    "View": {"mode": "TWOD", "dataViewName": "DataView"},
}
DEFAULT = (json.dumps(_VIEW, indent=4) + "\n").encode()
"""Content of the file where none came with the slide."""


def find_render_config(slide: Path, *folders: Path) -> Path | None:
    """Return the config_render.json that came with a slide, or None.

    Parameters
    ----------
    slide : pathlib.Path
        The slide. The file may lie in the same folder or, if that is called ``slide``, in the folder above.
    *folders : pathlib.Path
        Further folders in which to look.

    Returns
    -------
    pathlib.Path or None
    """
    above = [slide.parent.parent] if slide.parent.name == "slide" else []
    return next((folder / RENDER for folder in (slide.parent, *above, *folders) if (folder / RENDER).exists()), None)


def take_over(path: Path) -> bytes:
    """Return the content of a config_render.json that somebody else made.

    Raises
    ------
    InputError
        The file cannot be read, is not a regular file, or is too large.
    """
    try:
        content = read_regular(path, RENDER_LIMIT + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; make it readable or remove it") from error
    if content is None:
        raise InputError(f"{path} is not a regular file; put a file there, or remove it to get default settings")
    if len(content) > RENDER_LIMIT:
        raise InputError(
            f"{path} has more than {RENDER_LIMIT >> 20} MiB, while render settings have a few kB; replace or remove it"
        )
    return content
