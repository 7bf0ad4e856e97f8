"""`segment`: a slide in, a result folder out, for programs in Python."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from nuclei_segmentation.operators.segmentation import run
from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.result import IMAGE, SegmentationResult
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.config_file import check


def segment(
    slide: str | os.PathLike[str], output: str | os.PathLike[str], settings: Settings | None = None
) -> SegmentationResult:
    """Find the nuclei of a slide, and write the image that shows them.

    The same as the command ``nuclei segmentation``, and the same bytes. Nothing is printed; progress and warnings go to
    the loggers below ``nuclei_segmentation``.

    Parameters
    ----------
    slide : str or os.PathLike
        The slide, or a folder that holds one.
    output : str or os.PathLike
        The folder for the result; made if it does not exist. An unfinished run of the same slide and settings in it is
        resumed, a finished one is not done again.
    settings : Settings, optional
        Anything else. Its `input_path` and `output_path` are not used. Environment variables and ``config.yaml`` are
        not read: name Triton servers by `Settings.triton_servers`.

    Returns
    -------
    SegmentationResult
        As ``summary.json`` in the folder has it.

    Raises
    ------
    NucleiError
        One of its kinds: the class says what failed, the message what to do.
    """
    given = check(settings if settings is not None else Settings())
    given = replace(given, input_path=Path(slide), output_path=Path(output))
    result = run.segment(given)
    if result is None:
        raise OutputError(
            f"{output} holds this result without a summary.json that can be read; use another folder, or remove "
            f"{Path(output) / IMAGE} to make the result again"
        )
    return result
