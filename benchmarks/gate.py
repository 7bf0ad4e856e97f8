"""The gate: CPU time compared with that of other programs, against bounds. ``python -m benchmarks --gate``.

Only CPU time counts, and only compared with a reference in the same run, so a busy machine does not fail it. Each ratio
was measured ten times (``--calibrate 10``); its bound is 1.3 times the highest of them. A ratio above its bound is
measured once more before it fails.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np

from benchmarks import reader, triton_throughput, vips, writer
from benchmarks.models import BUNDLED, CHANNELS, constant_nuclei, drawing_repository, idle_repository
from benchmarks.results import processor
from benchmarks.runs import empty_output, segment, settings_for
from benchmarks.slides import ROOT, generated, pattern, pixels
from benchmarks.timing import Usage, alternate, used
from nuclei_segmentation.operators.filter.inference.embedded.model_files import choose_model
from nuclei_segmentation.operators.stitch.count import NucleusCount, find_pieces
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.settings import Settings

BOUNDS = ROOT / "benchmarks" / "gate.json"
MARGIN = 1.3
"""From the highest ratio of the calibration to the bound: above its noise, below a regression worth the name."""

Ratios = dict[str, float]
"""CPU time divided by that of the reference, by name: lower is better."""


def gate(say: Callable[[str], None]) -> list[str]:
    """Measure all ratios, those above their bounds twice; return a line for each that fails.

    Parameters
    ----------
    say : callable
        Called with each line of the report.

    Raises
    ------
    UsageError
        The bounds are missing, or not those of the ratios that are measured here.
    """
    bounds = _bounds()
    failed: list[str] = []
    for measure in MEASUREMENTS:
        ratios = measure()
        if any(ratio > bounds[name] for name, ratio in ratios.items()):
            again = measure()
            ratios = {name: min(ratio, again[name]) for name, ratio in ratios.items()}
        for name, ratio in ratios.items():
            line = f"{name:<45} {ratio:5.2f}, bound {bounds[name]:.2f}"
            say(line if ratio <= bounds[name] else f"{line}: FAILED")
            if ratio > bounds[name]:
                failed.append(line)
    return failed


def calibrate(runs: int, say: Callable[[str], None]) -> None:
    """Measure every ratio several times, and write the bounds.

    Parameters
    ----------
    runs : int
        How often.
    say : callable
        Called with each line of the report.
    """
    seen: dict[str, list[float]] = {}
    for _ in range(runs):
        for measure in MEASUREMENTS:
            for name, ratio in measure().items():
                seen.setdefault(name, []).append(ratio)
    checks = {
        name: {
            "lowest": round(min(ratios), 3),
            "median": round(statistics.median(ratios), 3),
            "highest": round(max(ratios), 3),
            "bound": round(MARGIN * max(ratios), 2),
        }
        for name, ratios in seen.items()
    }
    for name, check in checks.items():
        say(f"{name:<45} {check}")
    date = time.strftime("%Y-%m-%d", time.gmtime())
    document = {"processor": processor(), "date": date, "runs": runs, "margin": MARGIN, "checks": checks}
    BOUNDS.write_text(json.dumps(document, indent=2) + "\n")


def _bounds() -> dict[str, float]:
    try:
        checks = json.loads(BOUNDS.read_text())["checks"]
        return {str(name): float(check["bound"]) for name, check in checks.items()}
    except (OSError, ValueError, KeyError) as error:
        raise UsageError(f"{BOUNDS}: {error}; run `python -m benchmarks --calibrate 10`") from error


def _ratio(best: dict[str, Usage], ours: str, reference: str) -> float:
    return best[ours].cpu / best[reference].cpu


def _reading() -> Ratios:
    ratios = {}
    for stored in (256, 240):
        slide = generated(8_000, 8_000, stored)
        grid = TileGrid(slide.width, slide.height, reader.TILE)
        tasks = {
            "ours": partial(used, partial(reader.read_here, slide.path, grid, 4)),
            "theirs": partial(used, partial(reader.read_by_openslide, slide.path, grid, 4)),
        }
        ratios[f"reading tiles of {stored} / OpenSlide"] = _ratio(alternate(tasks, 3), "ours", "theirs")
    return ratios


def _writing() -> Ratios:
    image = pixels(6_000, 6_000)

    def run(work: Callable[[Path], object]) -> Usage:
        with empty_output() as folder:
            return used(partial(work, folder))

    tasks = {
        "ours": partial(run, partial(writer.write, image)),
        "theirs": partial(run, lambda folder: vips.save(image, folder / "vips.tif")),
    }
    return {"writing a pyramid / libvips": _ratio(alternate(tasks, 4), "ours", "theirs")}


def _data_path() -> Ratios:
    slide = generated(8_000, 8_000)

    def copy() -> Usage:
        with empty_output() as folder:
            return used(lambda: vips.copy(slide.path, folder / "vips.tif"))

    kinds = {
        "every tile": settings_for(slide.path, idle_repository(), "none"),
        "tissue only": settings_for(slide.path, idle_repository(), "tissue"),
        "nuclei everywhere": settings_for(slide.path, drawing_repository(), "none"),
    }

    def run(settings: Settings) -> Usage:
        return segment(settings).total

    tasks: dict[str, Callable[[], Usage]] = {name: partial(run, settings) for name, settings in kinds.items()}
    best = alternate(tasks | {"copy": copy}, 3)
    return {f"data path, {name} / libvips' copy": _ratio(best, name, "copy") for name in kinds}


def _counting() -> Ratios:
    """Count the nuclei of tiles that are full of them, compared with encoding as many tiles."""
    maps, side = constant_nuclei(), 20
    tile = np.ascontiguousarray(pattern()[0][: len(maps), : len(maps)])

    def count() -> None:
        total = NucleusCount(TileGrid(side * len(maps), side * len(maps), len(maps)))
        for row in range(side):
            for column in range(side):
                total.add(row, column, find_pieces(maps, CHANNELS.split(",")))
        if total.total < side * side:
            raise RuntimeError("nuclei were lost")

    def encode() -> None:
        for _ in range(side * side):
            imagecodecs.jpeg8_encode(tile, level=85, colorspace="RGB", outcolorspace="YCBCR", subsampling="420")

    best = alternate({"count": partial(used, count), "encode": partial(used, encode)}, 3)
    return {"counting nuclei / encoding tiles": _ratio(best, "count", "encode")}


def _feeding() -> Ratios:
    best = triton_throughput.measure(requests=200, rounds=3)
    return {
        f"feeding Triton, {way} / minimal client": _ratio(best, way, f"baseline {way}")
        for way in ("http", "slot", "store")
    }


def _starting() -> Ratios:
    """Segment one tile in a fresh process, compared with a process that imports the libraries and opens the model."""
    slide = generated(256, 256)
    settings = settings_for(slide.path, BUNDLED)
    libraries = "numpy, cv2, onnxruntime, imagecodecs, openslide, tifffile"
    bare = f"import {libraries}; onnxruntime.InferenceSession({str(choose_model(settings)[0].path)!r})"

    def ours() -> Usage:
        with empty_output() as folder:
            main = str(ROOT / "operators" / "main.py")
            paths = ["--input-path", str(slide.path), "--output-path", str(folder)]
            return _in_process([sys.executable, main, "segmentation", "-d", "ERROR", *paths])

    best = alternate({"ours": ours, "bare": lambda: _in_process([sys.executable, "-c", bare])}, 3)
    return {"start-up, a slide of one tile / its libraries": _ratio(best, "ours", "bare")}


def _in_process(command: Sequence[str]) -> Usage:
    def spent() -> Usage:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return Usage(time.perf_counter(), children.ru_utime + children.ru_stime)

    start = spent()
    with tempfile.TemporaryFile() as log:
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=log)
    return spent() - start


MEASUREMENTS: tuple[Callable[[], Ratios], ...] = (_reading, _writing, _data_path, _counting, _feeding, _starting)
