"""The two small files beside image.tif, and how the three get their final names.

What NVIDIA's Render Server wants for volumes is public; what it wants for slides is not. `meta` uses the volumes' keys
for slides: that choice is ours, and this is the only place that knows them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from nuclei_segmentation.shared.clara.render_config import RENDER, take_over
from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.result import IMAGE, SUMMARY
from nuclei_segmentation.shared.runtime.disk import writing

META = "config.meta"

_DEFAULT = {
    "DataView": {
        "name": "DataView",
        "zoomFactor": 1.0,
        "viewOffset": {"x": 0.0, "y": 0.0},
        "pixelAspectRatio": 1.0,
    },
    "View": {"mode": "TWOD", "dataViewName": "DataView"},
}


def publish(
    work: Path, output: Path, *, name: str, run: str, damaged: int, render_config: Path | None, summary: bytes
) -> None:
    """Give a finished image and its two files their final names.

    The files are made and forced to the disk in the work folder first. Then an older result's config.meta is removed,
    the others are renamed into place, and config.meta comes last: where it exists, the result is whole, and belongs to
    the run that it names.

    Parameters
    ----------
    work : pathlib.Path
        Holds the finished image.tif; on the same file system as `output`.
    output : pathlib.Path
        The output folder.
    name : str
        The data set's name in config.meta.
    run : str
        The run's key.
    damaged : int
        Places that could not be read.
    render_config : pathlib.Path or None
        A config_render.json to take over byte for byte, or None for a plain one.

    Raises
    ------
    InputError
        `render_config` is no regular file, or too large.
    NoSpace
        The disk is full.
    OutputError
        The files cannot be written.
    """
    for file in (IMAGE, RENDER, SUMMARY, META):
        if (output / file).is_dir():
            raise OutputError(f"{output / file} is a folder; remove it or use another output folder")
    render = _default() if render_config is None else take_over(render_config)
    described = meta(name, run, damaged)
    with writing(work / RENDER, len(render)):
        _write(work / RENDER, render)
    with writing(work / SUMMARY, len(summary)):
        _write(work / SUMMARY, summary)
    with writing(work / META, len(described)):
        _write(work / META, described)
    with writing(work / IMAGE):
        _force(work / IMAGE)
        _force(work)
    with writing(output / META):
        (output / META).unlink(missing_ok=True)
        _force(output)
        (work / RENDER).rename(output / RENDER)
        (work / IMAGE).rename(output / IMAGE)
        (work / SUMMARY).rename(output / SUMMARY)
        _force(output)
        (work / META).rename(output / META)
        _force(output)


def meta(name: str, run: str, damaged: int) -> bytes:
    """Return the content of config.meta.

    Parameters
    ----------
    name : str
        The data set's name.
    run : str
        The run's key: ours, by which a later run knows what is already done.
    damaged : int
        Places that could not be read: ours as well.
    """
    content = {"name": name, "density": IMAGE, "settings": RENDER, "seg_masks": [], "run": run, "damaged": damaged}
    return _json(content, sort_keys=True)


def renew_render_config(work: Path, output: Path, render_config: Path) -> bool:
    """Take over a config_render.json that changed after its image was finished.

    Parameters
    ----------
    work, output, render_config : pathlib.Path
        As for `publish`.

    Returns
    -------
    bool
        Whether it had changed.

    Raises
    ------
    InputError, NoSpace, OutputError
        As for `publish`.
    """
    content = take_over(render_config)
    with writing(output / RENDER, len(content)):
        if (output / RENDER).read_bytes() == content:
            return False
        _write(work / RENDER, content)
        (work / RENDER).rename(output / RENDER)
        _force(output)
    return True


def _default() -> bytes:
    return _json(_DEFAULT, sort_keys=False)


def _json(content: object, *, sort_keys: bool) -> bytes:
    return (json.dumps(content, indent=4, sort_keys=sort_keys) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _force(path: Path) -> None:
    """Force a file's content, or a folder's names, to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
