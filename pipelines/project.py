"""The project itself: its program, its models, and the images that hold its operators."""

from __future__ import annotations

from pathlib import Path

from nuclei_segmentation.pipelines.language.model import Operator, Service

MAIN = Path(__file__).resolve().parents[1] / "operators" / "main.py"
"""The program that the project's images run."""
OPERATORS = ("load", "filter", "stitch", "segmentation")
"""Their images are named ``nuclei/OPERATOR``, with or without a registry in front."""


def project_operator(container: Operator | Service) -> str:
    """Return which of `OPERATORS` an operator or service runs; '' if its image is not this project's."""
    *_, folder, name = ("", *container.container.image.split("/"))
    return name if folder == "nuclei" and name in OPERATORS else ""


def shipped_models() -> Path | None:
    """Return the folder of models that comes with this installation; None if there is none."""
    folder = MAIN.parents[1] / "models"
    return folder if folder.is_dir() else None
