"""The whole job with the bundled model, beside the bare work in it."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass

from benchmarks.bare import Bare, Parts
from benchmarks.models import BUNDLED
from benchmarks.runs import Timed, empty_output, segment, settings_for
from benchmarks.slides import ROOT, SAMPLE, generated
from benchmarks.table import Row
from benchmarks.timing import Usage
from nuclei_segmentation.operators.filter.inference.embedded.model_files import file_in_use
from nuclei_segmentation.shared.settings import Settings

_IMPORTS = """
import nuclei_segmentation.operators.commands
import nuclei_segmentation.operators.filter.inference.embedded.engine
import nuclei_segmentation.operators.segmentation.run
"""


@dataclass(slots=True)
class _Best:
    """The least seconds that were seen, each for itself."""

    start: Usage
    total: Usage
    bare: Bare

    def take(self, job: Timed, bare: Bare) -> None:
        self.start, self.total = self.start.best(job.start), self.total.best(job.total)
        self.bare = Bare(
            self.bare.read.best(bare.read), self.bare.infer.best(bare.infer), self.bare.write.best(bare.write)
        )


def rows(*, quick: bool, full: bool) -> list[Row]:
    """Run over the sample slide and over a generated one."""
    found = _rows("sample slide", settings_for(SAMPLE, BUNDLED), rounds=2 if quick else 3)
    if not quick:
        side = 20_000 if full else 6_000
        slide = generated(side, side)
        found += _rows(f"{side} x {side}", settings_for(slide.path, BUNDLED), rounds=1 if full else 2)
    return [*found, Row("  start-up: imports", f"{_imports():.2f} s", "in a fresh process", None, None)]


def _rows(name: str, settings: Settings, rounds: int) -> list[Row]:
    parts = Parts(settings, file_in_use(settings))
    best: _Best | None = None
    for _ in range(rounds):
        job = segment(settings)
        with empty_output() as folder:
            bare = parts.measure(folder)
        if best is None:
            best = _Best(job.start, job.total, bare)
        else:
            best.take(job, bare)
    assert best is not None
    sums, ideal = best.bare, best.bare.cpu / settings.num_workers
    return [
        Row(
            f"whole job, {name}: CPU",
            f"{best.total.cpu:.2f} CPU s",
            f"read {sums.read.cpu:.2f} + infer {sums.infer.cpu:.2f} + write {sums.write.cpu:.2f} CPU s",
            best.total.cpu / sums.cpu,
            1.1,
            at_least=False,
        ),
        Row(
            "  wall",
            f"{best.total.wall:.2f} s",
            f"that sum over {settings.num_workers} cores: {ideal:.2f} s",
            best.total.wall / ideal,
            1.1,
            at_least=False,
        ),
        Row(
            "  of it start-up: model, tissue mask",
            f"{best.start.wall:.2f} s ({best.start.cpu:.2f} CPU s)",
            f"{parts.foreground} tiles inferred",
            None,
            None,
        ),
    ]


def _imports() -> float:
    """Return the wall seconds that a fresh process takes to import everything, the interpreter's own not counted."""

    def seconds(code: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
        return time.perf_counter() - start

    return min(seconds(_IMPORTS) for _ in range(3)) - min(seconds("") for _ in range(3))
