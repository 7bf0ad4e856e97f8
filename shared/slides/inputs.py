"""The input slide of a run, which must not lie where the result is written."""

from __future__ import annotations

import os
from pathlib import Path

from nuclei_segmentation.shared.errors import InputError, OutputError
from nuclei_segmentation.shared.result import IMAGE
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.slides import Slide, find_slide, open_slide


def find_input_slide(settings: Settings) -> Path:
    """Return the path of the slide in the input folders.

    Parameters
    ----------
    settings : Settings
        Names the input folders, which are tried in order, and the output folder.

    Returns
    -------
    pathlib.Path
        The file to open, from the first input folder that holds exactly one slide.

    Raises
    ------
    InputError
        No input folder holds exactly one slide. The error is that of the first folder.
    OutputError
        The output folder is the input folder, or the result would overwrite the slide.
    """
    first_error: InputError | None = None
    for folder in settings.inputs:
        try:
            path = find_slide(folder)
        except InputError as error:
            first_error = first_error or error
            continue
        _refuse_input_as_output(folder, path, settings.output_path)
        return path
    assert first_error is not None
    raise first_error


def open_input_slide(path: Path, settings: Settings) -> Slide:
    """Open the slide of a run, and of it the image that the settings name.

    Parameters
    ----------
    path : pathlib.Path
        As `find_input_slide` returns it.
    settings : Settings
        Of these count: channel, plane, mpp.

    Raises
    ------
    UnreadableSlide
        No reader can open it, or it has several channels and none is named.
    ConfigError
        There is no such channel or plane.
    """
    return open_slide(path, channel=settings.channel, plane=settings.plane, mpp=settings.mpp)


def _refuse_input_as_output(folder: Path, slide: Path, output_path: Path) -> None:
    output = os.path.realpath(output_path)  # Path.resolve raises an error for links in a loop
    same = folder.is_dir() and os.path.realpath(folder) == output
    if same or os.path.realpath(slide) == f"{output}/{IMAGE}":
        raise OutputError(f"{output_path} is the input folder; the result needs a folder of its own")
