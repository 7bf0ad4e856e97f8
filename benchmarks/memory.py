"""The peak memory of runs in fresh processes, compared with their own estimate and with the limit of 1 GiB."""

from __future__ import annotations

from benchmarks.models import BUNDLED, idle_repository
from benchmarks.runs import Footprint, fresh, settings_for
from benchmarks.slides import SAMPLE, generated
from benchmarks.table import Row
from nuclei_segmentation.shared.runtime.resources import GIB, human


def rows(*, quick: bool) -> list[Row]:
    """Run on slides of several shapes, then on the sample slide with the bundled model.

    Parameters
    ----------
    quick : bool
        Whether to use smaller slides.
    """
    side, factor = (6_000, 4) if quick else (20_000, 4)
    shapes = [(side, side), (side, factor * side), (factor * side, side)]
    repository = idle_repository()
    runs = {
        f"{width} x {height}": fresh(settings_for(generated(width, height).path, repository, "none"))
        for width, height in shapes
    }
    square, tall, _ = runs.values()
    runs["sample slide, bundled model"] = fresh(settings_for(SAMPLE, BUNDLED))
    table = [
        Row(f"memory, {name}", _peak(run), f"estimated {human(run.estimated)}", run.peak / run.estimated, 1.0, False)
        for name, run in runs.items()
    ]
    most = max(runs.values(), key=lambda run: run.peak)
    return [
        *table,
        Row(f"memory, {factor} times the height", _peak(tall), _peak(square), tall.peak / square.peak, 1.1, False),
        Row("memory, the largest of them", _peak(most), "limit 1.0 GiB", most.peak / GIB, 1.0, False),
    ]


def _peak(run: Footprint) -> str:
    return f"{human(run.peak)} ({run.seconds:.0f} s)"
