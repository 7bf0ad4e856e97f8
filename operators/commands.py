"""The commands. A stage is imported when its command runs, so that an image needs only its own stage's packages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from nuclei_segmentation.shared.clara.driver import run_stage
from nuclei_segmentation.shared.runtime import cli
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings import config_file as config
from nuclei_segmentation.shared.settings.environment import SHARD

log = logging.getLogger("nuclei")


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    return cli.main(
        arguments,
        {
            "segmentation": ("load, filter and stitch in one process: slide in, overlaid pyramid out", _segmentation),
            "load": ("slide in, its tiles with tissue out, as a store of memory-mappable arrays", _load),
            "filter": ("tile store in, map store out", _filter),
            "stitch": ("slide and both stores in, overlaid pyramid out", _stitch),
            "config": ("print a config.yaml with every key, its default and its meaning", _config),
        },
    )


def _segmentation(settings: Callable[[], Settings]) -> None:
    from nuclei_segmentation.operators.segmentation.run import segment

    run_stage(settings(), segment)


def _load(settings: Callable[[], Settings]) -> None:
    from nuclei_segmentation.operators.load.command import run

    run_stage(_whole(settings(), "load reads all tiles"), run)


def _filter(settings: Callable[[], Settings]) -> None:
    from nuclei_segmentation.operators.filter.command import run

    run_stage(settings(), run)


def _stitch(settings: Callable[[], Settings]) -> None:
    from nuclei_segmentation.operators.stitch.command import run

    run_stage(_whole(settings(), "stitch draws all shards"), run)


def _whole(settings: Settings, what: str) -> Settings:
    """Return the settings; say that a shard, which may be set for all stages, is none of this one's concern."""
    if settings.shard is not None:
        log.info("%s, whatever %s or `shard` says: that is for filter", what, SHARD)
    return settings


def _config(settings: Callable[[], Settings]) -> None:
    print(config.reference(), end="")  # noqa: T201 - the command's result
