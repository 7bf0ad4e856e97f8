"""What a stage is given: its slide, and a place for its result that is not where its input lies."""

from __future__ import annotations

import os
from pathlib import Path

from nuclei_segmentation.shared.errors import InputError, OutputError
from nuclei_segmentation.shared.result import IMAGE
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.slides import find_slide


def slide_of(settings: Settings) -> Path:
    """Return the slide in the input folders.

    Raises
    ------
    InputError
        There is none, or more than one.
    OutputError
        The result would lie where the slide does.
    """
    problem: InputError | None = None
    for folder in settings.inputs:
        try:
            path = find_slide(folder)
        except InputError as error:
            problem = problem or error
            continue
        _refuse_input_as_output(folder, path, settings.output_path)
        return path
    assert problem is not None
    raise problem


def _refuse_input_as_output(folder: Path, slide: Path, output_path: Path) -> None:
    output = os.path.realpath(output_path)  # unlike Path.resolve it takes a loop of links for what it is
    same = folder.is_dir() and os.path.realpath(folder) == output
    if same or os.path.realpath(slide) == f"{output}/{IMAGE}":
        raise OutputError(f"{output_path} is the input folder; the result needs a folder of its own")
