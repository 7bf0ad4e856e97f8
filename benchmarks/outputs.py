"""How fast the files of nuclei are written: ``python -m benchmarks.outputs [COUNT]``. Time is CPU time of one thread.

The nuclei are made up, with outlines of 45 vertices and ten measurements each.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.nuclei import MEASUREMENTS, header, nuclei
from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader
from nuclei_segmentation.operators.stitch.outputs.chunks import chunks
from nuclei_segmentation.operators.stitch.outputs.csv_table import CsvWriter
from nuclei_segmentation.operators.stitch.outputs.geojson import geojson_writer
from nuclei_segmentation.operators.stitch.outputs.parquet import ParquetWriter
from nuclei_segmentation.operators.stitch.outputs.writer import Writer

ROUNDS = 5


def main(count: int) -> None:
    """Write each file several times, and print the best time.

    Parameters
    ----------
    count : int
        Number of nuclei.
    """
    print("file          nuclei a second and core   in workers   in order   bytes a nucleus")
    for name in MAKERS:
        encoding, appending, size = _best(name, count)
        microseconds = f"{encoding / count * 1e6:>10.1f} µs {appending / count * 1e6:>7.1f} µs"
        print(f"{name:12} {count / (encoding + appending):>25,.0f} {microseconds} {size / count:>17.0f}")


def rate(name: str, count: int) -> float:
    """Return how many nuclei a second one core writes.

    Parameters
    ----------
    name : str
        The file, of `MAKERS`.
    count : int
        Number of nuclei.
    """
    encoding, appending, _ = _best(name, count)
    return count / (encoding + appending)


MAKERS: dict[str, Callable[[Path, NucleiHeader], Writer[Any]]] = {
    "geojson.gz": lambda path, about: geojson_writer(path, about, one_file=about.count),
    "geojson.zip": lambda path, about: geojson_writer(path, about, one_file=0),
    "csv.gz": lambda path, about: CsvWriter(path, about, MEASUREMENTS),
    "parquet": lambda path, about: ParquetWriter(path, about, MEASUREMENTS),
}


def _best(name: str, count: int) -> tuple[float, float, int]:
    """Return the best of several times, and the size of the file."""
    about, found = header(count), nuclei(count)
    make = MAKERS[name]
    tries = (_times(lambda path: make(path, about), found) for _ in range(ROUNDS))
    return min(tries, key=lambda times: sum(times[:2]))


def _times(make: Callable[[Path], Writer[Any]], found: Nuclei) -> tuple[float, float, int]:
    """Return the CPU seconds of `encode`, those of all else, and the size of the file in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        encoding, start = 0.0, time.process_time()
        with make(path) as writer:
            for chunk in chunks([found]):
                begin = time.process_time()
                encoded = writer.encode(chunk)
                encoding += time.process_time() - begin
                writer.append(encoded)
            writer.finish()
        return encoding, time.process_time() - start - encoding, path.stat().st_size


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
