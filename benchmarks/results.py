"""The results of a run as a file, and its figures in the documentation: ``python -m benchmarks.results``.

`make bench` writes ``benchmarks/results.json`` and puts its rows into README.md and docs/benchmarks.md, between two
comments. A test compares the pages with the file, so no row is older than its neighbour.

Exit code 0: the pages hold the figures; 1: an error, in one line on standard error.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.slides import ROOT
from benchmarks.table import Row
from nuclei_segmentation.shared.errors import NucleiError, UsageError
from nuclei_segmentation.shared.runtime.resources import usable_cpus
from nuclei_segmentation.shared.runtime.version import program

FILE = ROOT / "benchmarks" / "results.json"
PAGES = {ROOT / "README.md": False, ROOT / "docs" / "benchmarks.md": True}
"""The pages with figures, and whether they hold all rows; else those with a target."""

START, END = "<!-- figures of benchmarks/results.json -->", "<!-- end of the figures -->"


def document(rows: Sequence[Row], *, complete: bool) -> dict[str, Any]:
    """Return what the file holds: the rows, and where, when and of what they were measured.

    Parameters
    ----------
    rows : Sequence of Row
        The rows.
    complete : bool
        Whether all benchmarks ran, on slides of full size.
    """
    return {
        "version": program().version,
        "commit": program().commit[:10],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": platform.machine(),
        "processor": processor(),
        "processors": usable_cpus(),
        "load": os.getloadavg()[0],
        "complete": complete,
        "rows": [{**asdict(row), "met": row.met} for row in rows],
    }


def processor() -> str:
    """Return the name of the processor, and its widest vector instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.*)$", text, re.MULTILINE)
    known = flags[1].split() if flags else []
    vectors = "AVX-512" if "avx512f" in known else "AVX2" if "avx2" in known else "no AVX2"
    return f"{name[1].strip() if name else 'unknown'}, {vectors}"


def markdown(results: dict[str, Any], *, all_rows: bool) -> str:
    """Return the figures as text for a page.

    Parameters
    ----------
    results : dict
        From `document`.
    all_rows : bool
        Whether to include rows without a target.
    """
    rows = [Row(**{key: value for key, value in row.items() if key != "met"}) for row in results["rows"]]
    lines = ["| | ours | reference | ratio | target |", "|---|---|---|---|---|"]
    for row in rows:
        if row.target is None and not all_rows:
            continue
        name, ours, reference, ratio, target, met = row.cells()
        name = f"– {name.strip()}" if name.startswith(" ") else name
        lines.append(f"| {name} | {ours} | {reference} | {ratio} | {target}{', **missed**' if met == 'NO' else ''} |")
    where = f"{results['processors']} cores of an {results['processor']}"
    return "\n".join([*lines, "", f"Measured on {where}, {results['date']}, commit {results['commit']}."])


def with_figures(page: str, figures: str) -> str:
    """Return a page with its figures replaced.

    Parameters
    ----------
    page : str
        The page. It holds `START` and `END`.
    figures : str
        From `markdown`.
    """
    before, found, rest = page.partition(START)
    _, found_end, after = rest.partition(END)
    if not found or not found_end:
        raise UsageError(f"a page with figures needs the lines {START} and {END}")
    return f"{before}{START}\n{figures}\n{END}{after}"


def read(path: Path = FILE) -> dict[str, Any]:
    """Return the results of a complete run from a file."""
    try:
        results: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: {error}; run `make bench`") from error
    if not results.get("complete"):
        raise UsageError(f"{path} holds some of the benchmarks, or smaller slides; run `make bench`")
    return results


def main() -> int:
    """Put the figures into the pages; return the exit code."""
    try:
        results = read()
        for page, all_rows in PAGES.items():
            text = page.read_text()
            page.write_text(with_figures(text, markdown(results, all_rows=all_rows)))
            print(f"{page}: {len(results['rows'])} rows of {results['date']}")
    except (NucleiError, OSError) as error:
        print(f"python -m benchmarks.results: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
