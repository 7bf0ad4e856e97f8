"""``python -m benchmarks``: measure, and print one table. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.slides import SAMPLE
from benchmarks.table import Row, render
from nuclei_segmentation.shared.runtime.resources import usable_cpus

NAMES = ("read", "write", "path", "model", "feed", "job", "staged", "memory")


def main() -> int:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller slides: about two minutes, coarser figures")
    parser.add_argument(
        "--full", action="store_true", help="the whole job on all of the large slide: some ten minutes more"
    )
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there as well")
    arguments = parser.parse_args()
    if not SAMPLE.is_file():
        parser.error(f"{SAMPLE} is missing: make sample")
    logging.getLogger("nuclei").setLevel(logging.ERROR)
    start, busy = time.perf_counter(), os.getloadavg()[0]
    rows: list[Row] = []
    for name in NAMES:
        if name in arguments.only:
            _say(f"{name} ...")
            rows += _measure(name, quick=arguments.quick, full=arguments.full)
    _say(f"{time.perf_counter() - start:.0f} s")
    print(f"{platform.machine()}, {usable_cpus()} processors, load {busy:.1f} before the start\n")
    print(render(rows))
    if arguments.json:
        document = {
            "machine": platform.machine(),
            "processors": usable_cpus(),
            "load": busy,
            "rows": [{**asdict(row), "met": row.met} for row in rows],
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _measure(name: str, *, quick: bool, full: bool) -> list[Row]:
    """Return the rows of one benchmark; imported here, so that one that misses its peer does not stop the others."""
    if name == "feed":
        from benchmarks import feeding

        return feeding.rows(quick=quick)
    from benchmarks import data_path, inference, memory, reader, staged, whole_job, writer

    if name == "read":
        return reader.rows(quick=quick)
    if name == "write":
        return writer.rows(quick=quick)
    if name == "path":
        return data_path.rows(quick=quick)
    if name == "model":
        return inference.rows(quick=quick)
    if name == "job":
        return whole_job.rows(quick=quick, full=full)
    if name == "staged":
        return staged.rows(quick=quick)
    return memory.rows(quick=quick)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
