"""Runs the benchmarks and prints one table: ``python -m benchmarks``. See docs/benchmarks.md.

Exit code 0: done; 1: an error, or a gate that fails, in a line on standard error; 2: wrong options, or the sample slide
is missing.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results import document
from benchmarks.slides import SAMPLE
from benchmarks.table import Row, render
from nuclei_segmentation.shared.errors import NucleiError
from nuclei_segmentation.shared.runtime.resources import usable_cpus

MODULES = {
    "read": "reader",
    "write": "writer",
    "path": "data_path",
    "model": "inference",
    "feed": "triton_throughput",
    "job": "whole_job",
    "nuclei": "nuclei_files",
    "staged": "staged",
    "memory": "memory",
}
"""The module of each benchmark, by its name on the command line."""

FULL = ("job", "nuclei")
"""Benchmarks that can take longer and measure more."""

OPTIONAL = ("pyvips", "wsi_tile_processor", "tritonclient")
"""Packages that only some benchmarks need."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks from the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="use smaller slides: about two minutes, less precise")
    parser.add_argument(
        "--full",
        action="store_true",
        help="the whole job on all of the large slide, and a million nuclei: 20 minutes more",
    )
    names = list(MODULES)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument(
        "--gate", action="store_true", help="compare ratios of CPU time with their bounds: three minutes"
    )
    parser.add_argument("--calibrate", type=int, metavar="RUNS", help="measure the bounds of the gate anew")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    options = parser.parse_args(arguments)
    if not SAMPLE.is_file():
        parser.error(f"the sample slide {SAMPLE} is missing: run `make sample`")
    logging.getLogger(__name__).setLevel(logging.ERROR)
    try:
        if options.json:
            options.json.touch()  # an unwritable file is reported now, not after ten minutes
        if options.gate or options.calibrate:
            return _gate(options.calibrate)
        _run(options)
    except (NucleiError, OSError) as error:
        _say(f"python -m benchmarks: {error}")
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    """Run the chosen benchmarks; print their rows, and write them to a file if asked for."""
    start, load = time.perf_counter(), os.getloadavg()[0]
    rows: list[Row] = []
    for name in MODULES:
        if name in options.only:
            _say(f"{name} ...")
            rows += _measure(name, quick=options.quick, full=options.full)
    _say(f"{time.perf_counter() - start:.0f} s")
    print(f"{platform.machine()}, {usable_cpus()} processors, load {load:.1f} before the start\n")
    print(render(rows))
    if options.json:
        complete = options.only == list(MODULES) and not options.quick
        options.json.write_text(json.dumps(document(rows, complete=complete) | {"load": load}, indent=2) + "\n")


def _gate(calibrate: int | None) -> int:
    """Check the bounds of the gate, or measure them; return the exit code."""
    from benchmarks import gate  # needs the optional packages

    if calibrate:
        gate.calibrate(calibrate, _say)
        return 0
    failed = gate.gate(_say)
    for line in failed:
        _say(f"slower than it was: {line}")
    return 1 if failed else 0


def _measure(name: str, *, quick: bool, full: bool) -> list[Row]:
    """Return the rows of one benchmark, or a row that says which package it lacks."""
    try:
        module = importlib.import_module(f"benchmarks.{MODULES[name]}")
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        return [Row(name, f"{error.name} is not installed: run `make bench`", "", None, None)]
    rows: list[Row] = module.rows(quick=quick, full=full) if name in FULL else module.rows(quick=quick)
    return rows


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
