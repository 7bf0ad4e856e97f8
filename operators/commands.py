"""The commands. A stage is imported when its command runs, so that an image needs only its own stage's packages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nuclei_segmentation.shared.clara.driver import run_stage
from nuclei_segmentation.shared.runtime import cli
from nuclei_segmentation.shared.runtime.memory import INFERENCE, LIBRARIES, check_memory
from nuclei_segmentation.shared.runtime.summary import print_summary
from nuclei_segmentation.shared.runtime.version import program
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings import config_file as config
from nuclei_segmentation.shared.settings.environment import SHARD

if TYPE_CHECKING:
    from nuclei_segmentation.shared.result import SegmentationResult

log = logging.getLogger(__name__)


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
        _version,
    )


def _segmentation(settings: Callable[[], Settings]) -> None:
    started = _started(settings())
    from nuclei_segmentation.operators.segmentation.run import segment

    run_stage(started, lambda given: _print(segment(given)))


def _load(settings: Callable[[], Settings]) -> None:
    started = _whole(_started(settings(), infers=False), "load reads all tiles")
    from nuclei_segmentation.operators.load.command import run

    run_stage(started, run)


def _filter(settings: Callable[[], Settings]) -> None:
    started = _started(settings())
    from nuclei_segmentation.operators.filter.command import run

    run_stage(started, run)


def _stitch(settings: Callable[[], Settings]) -> None:
    started = _whole(_started(settings(), infers=False), "stitch draws all shards")
    from nuclei_segmentation.operators.stitch.command import run

    run_stage(started, lambda given: _print(run(given)))


def _started(settings: Settings, *, infers: bool = True) -> Settings:
    """Log what runs here, as the first line, and return the settings. The libraries are imported after this."""
    check_memory(lambda _: LIBRARIES + INFERENCE if infers else LIBRARIES, 1)
    log.info("%s; %s%s", program(), f"model {model_in_words(settings)}; " if infers else "", program().environment)
    return settings


def _print(result: SegmentationResult | None) -> None:
    if result is not None:
        print_summary(result.lines())


def _whole(settings: Settings, what: str) -> Settings:
    """Return the settings; say that a shard, which may be set for all stages, is none of this one's concern."""
    if settings.shard is not None:
        log.info("%s, whatever %s or `shard` says: that is for filter", what, SHARD)
    return settings


def _config(settings: Callable[[], Settings]) -> None:
    print(config.reference(), end="")  # noqa: T201 - the command's result


def _version(settings: Callable[[], Settings]) -> None:
    here = program()
    lines = [str(here), f"model {model_in_words(settings())}", *here.environment.split(", ")]
    print("\n".join(lines))  # noqa: T201 - the option's result


def model_in_words(settings: Settings) -> str:
    """Return the model that a run with these settings uses, with its precision, for people."""
    try:
        from nuclei_segmentation.operators.filter.inference import describe_model
    except ModuleNotFoundError:  # an image whose stage does not infer
        return "none: this image does not infer"
    return describe_model(settings)
