"""config_render.json: settings for NVIDIA's Render Server that may come with a slide; handed on byte for byte."""

from __future__ import annotations

from pathlib import Path

from nuclei_segmentation.shared.errors import InputError
from nuclei_segmentation.shared.runtime.files import read_regular

RENDER = "config_render.json"
RENDER_LIMIT = 16 << 20
"""Bytes of the largest one that is taken over."""


def find_render_config(slide: Path, *folders: Path) -> Path | None:
    """Return the config_render.json that came with a slide: beside it, above its folder ``slide``, or in `folders`."""
    above = [slide.parent.parent] if slide.parent.name == "slide" else []
    return next((folder / RENDER for folder in (slide.parent, *above, *folders) if (folder / RENDER).exists()), None)


def take_over(path: Path) -> bytes:
    """Return the bytes of a file that somebody gave us: opened without waiting, and never more than the limit.

    Raises
    ------
    InputError
        It cannot be read, is no regular file, or is too large.
    """
    try:
        content = read_regular(path, RENDER_LIMIT + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; make it readable, or remove it") from error
    if content is None:
        raise InputError(f"{path} is not a regular file; put a file there, or remove it to get a plain one")
    if len(content) > RENDER_LIMIT:
        raise InputError(f"{path} has more than {RENDER_LIMIT >> 20} MiB; a file of render settings has a few kB")
    return content
