"""Whole runs with the bundled model, compared with the baseline loops."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.baseline import Baseline, BaselineLoops
from benchmarks.models import BUNDLED
from benchmarks.runs import RunTime, empty_output, segment, settings_for
from benchmarks.slides import ROOT, SAMPLE, generated
from benchmarks.table import Row
from benchmarks.timing import Usage
from nuclei_segmentation.operators.filter.inference.embedded.model_files import choose_model
from nuclei_segmentation.shared.settings import Settings

_IMPORTS = """
import nuclei_segmentation.operators.commands
import nuclei_segmentation.operators.filter.inference.embedded.engine
import nuclei_segmentation.operators.segmentation.run
"""


@dataclass(slots=True)
class _Best:
    """The best time of each part over all rounds."""

    start: Usage
    total: Usage
    baseline: Baseline

    def update(self, job: RunTime, baseline: Baseline) -> None:
        self.start, self.total = self.start.best(job.start), self.total.best(job.total)
        self.baseline = Baseline(
            self.baseline.read.best(baseline.read),
            self.baseline.infer.best(baseline.infer),
            self.baseline.write.best(baseline.write),
        )


def rows(*, quick: bool, full: bool) -> list[Row]:
    """Run on the sample slide and on a generated one.

    Parameters
    ----------
    quick : bool
        Whether to omit the generated slide.
    full : bool
        Whether to use a large generated slide.
    """
    table = _rows("sample slide", settings_for(SAMPLE, BUNDLED), rounds=2 if quick else 3)
    if not quick:
        side = 20_000 if full else 6_000
        slide = generated(side, side)
        table += _rows(f"{side} x {side}", settings_for(slide.path, BUNDLED), rounds=1 if full else 2)
    return [*table, Row("  start-up: imports", f"{_imports():.2f} s", "in a fresh process", None, None)]


def _rows(name: str, settings: Settings, rounds: int) -> list[Row]:
    loops = BaselineLoops(settings, choose_model(settings)[0].path)
    best: _Best | None = None
    for _ in range(rounds):
        job = segment(settings)
        with empty_output() as folder:
            baseline = loops.measure(folder)
        if best is None:
            best = _Best(job.start, job.total, baseline)
        else:
            best.update(job, baseline)
    assert best is not None
    sums, ideal = best.baseline, best.baseline.cpu / settings.num_workers
    return [
        Row(
            f"whole job, {name}: CPU",
            f"{best.total.cpu:.2f} CPU s",
            f"read {sums.read.cpu:.2f} + infer {sums.infer.cpu:.2f} + write {sums.write.cpu:.2f} CPU s",
            best.total.cpu / sums.cpu,
            1.12,
            at_least=False,
        ),
        Row(
            "  wall",
            f"{best.total.wall:.2f} s",
            f"CPU sum over {settings.num_workers} cores: {ideal:.2f} s",
            best.total.wall / ideal,
            1.15,
            at_least=False,
        ),
        Row(
            "  start-up only: model, tissue mask",
            f"{best.start.wall:.2f} s ({best.start.cpu:.2f} CPU s)",
            f"{loops.foreground} tiles inferred",
            None,
            None,
        ),
    ]


def _imports() -> float:
    """Return the wall time of all imports in a fresh process, without the start of the interpreter."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        return time.perf_counter() - start

    return min(seconds(_IMPORTS) for _ in range(3)) - min(seconds("") for _ in range(3))
