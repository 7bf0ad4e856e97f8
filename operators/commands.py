"""The commands. A stage is imported when its command runs, so that an image needs only its own stage's packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from shared import cli, config
from shared.settings import Settings


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    return cli.main(
        arguments,
        {
            "segmentation": ("load, filter and stitch in one process: slide in, overlaid pyramid out", _segmentation),
            "config": ("print a config.yaml with every key, its default and its meaning", _config),
        },
    )


def _segmentation(settings: Callable[[], Settings]) -> None:
    from operators.segmentation.run import segment

    segment(settings())


def _config(settings: Callable[[], Settings]) -> None:
    print(config.reference(), end="")  # noqa: T201 - the command's result
