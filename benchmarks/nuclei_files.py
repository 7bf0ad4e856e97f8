"""What the files of nuclei cost: runs with all of them compared with runs without."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from benchmarks.models import BUNDLED, drawing_repository
from benchmarks.outputs import rate
from benchmarks.runs import empty_output, fresh, segment, settings_for
from benchmarks.slides import Generated, generated
from benchmarks.table import Row
from benchmarks.timing import Usage, alternate
from nuclei_segmentation.operators.segmentation import run
from nuclei_segmentation.shared.runtime.resources import human
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.values import OUTPUTS

FOR_OTHERS = ("geojson", "table")
"""The outputs that other programs open."""
_MICROSECONDS = 80.0


def rows(*, quick: bool, full: bool) -> list[Row]:
    """Run with nuclei everywhere, and with the bundled model.

    Parameters
    ----------
    quick : bool
        Whether to use smaller slides.
    full : bool
        Whether to run on a slide with a million nuclei too, for the memory: some ten minutes.
    """
    side, job_side = (4_000, 2_000) if quick else (20_000, 6_000)
    drawn = settings_for(generated(side, side).path, drawing_repository(), "none")
    nuclei, best = _compare(drawn, {"none": (), "others": FOR_OTHERS, "all": OUTPUTS}, rounds=1)
    none, others, everything = best["none"], best["others"], best["all"]
    each = (others.cpu - none.cpu) / nuclei * 1e6
    _, job = _compare(settings_for(generated(job_side, job_side).path, BUNDLED), {"none": (), "others": FOR_OTHERS})
    table = [
        Row(
            "nuclei as files: a nucleus", f"{each:.0f} CPU µs", f"aim {_MICROSECONDS:.0f} µs, {nuclei:,} nuclei",
            each / _MICROSECONDS, 1.0, at_least=False,
        ),
        Row(
            "  all files, nuclei everywhere", f"{everything.wall:.1f} s", f"without {none.wall:.1f} s",
            everything.wall / none.wall, 3.5, at_least=False,
        ),
        Row(
            f"  geojson and table, {job_side} x {job_side}: CPU", f"{job['others'].cpu:.2f} CPU s",
            f"without {job['none'].cpu:.2f} CPU s", job["others"].cpu / job["none"].cpu, 1.6, at_least=False,
        ),
    ]  # fmt: skip
    for name, aim in (("geojson.gz", 40_000), ("parquet", 150_000)):
        found = rate(name, 10_000 if quick else 50_000)
        ours = f"{found:,.0f} a second and core"
        table.append(Row(f"  {name}, serialised and compressed", ours, f"aim {aim:,}", found / aim, 1.0))
    return [*table, _million(generated(20_000, 80_000))] if full else table


def _compare(settings: Settings, kinds: dict[str, tuple[str, ...]], rounds: int = 2) -> tuple[int, dict[str, Usage]]:
    """Return the nuclei on the slide, and the best time for each choice of outputs."""
    tasks = {name: partial(_run, replace(settings, outputs=outputs)) for name, outputs in kinds.items()}
    best = alternate(tasks, rounds)
    with empty_output() as folder:
        result = run.segment(replace(settings, output_path=folder))
    assert result is not None
    return result.nuclei, best


def _run(settings: Settings) -> Usage:
    return segment(settings).total


def _million(slide: Generated) -> Row:
    """Write all files of a million nuclei and more."""
    found = fresh(replace(settings_for(slide.path, drawing_repository(), "none"), outputs=OUTPUTS))
    return Row(
        f"  memory, all files, {slide.width} x {slide.height}", f"{human(found.peak)} ({found.seconds:.0f} s)",
        f"estimated {human(found.estimated)}", found.peak / found.estimated, 1.0, at_least=False,
    )  # fmt: skip
