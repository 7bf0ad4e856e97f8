"""Whole runs of ``segmentation``, in this process or in a fresh one."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal
from unittest import mock

from benchmarks.slides import CACHE, ROOT
from benchmarks.timing import Usage, now
from nuclei_segmentation.operators.segmentation import estimate, run
from nuclei_segmentation.shared.runtime.resources import usable_cpus
from nuclei_segmentation.shared.settings import MaskSettings, ModelsSettings, Settings

OUTPUT = CACHE / f"out-{os.getpid()}"
"""Of this process alone: two benchmarks at once disturb each other's figures, but not each other's files."""
_SAMPLE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Timed:
    """What a run took: to open slide and model and find the tissue, and from then on."""

    start: Usage
    work: Usage

    @property
    def total(self) -> Usage:
        """Of the run as a whole."""
        return self.start + self.work


def settings_for(slide: Path, repository: Path, mask: Literal["tissue", "none"] = "tissue") -> Settings:
    """Return the defaults of the command line, for a slide and a model repository."""
    return Settings(
        input_path=slide,
        output_path=OUTPUT,
        num_workers=usable_cpus(),
        mask=MaskSettings(method=mask),
        models=ModelsSettings(repository=repository),
    )


@contextlib.contextmanager
def empty_output() -> Iterator[Path]:
    """Provide an output folder that is empty before and gone after."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    try:
        yield OUTPUT
    finally:
        shutil.rmtree(OUTPUT, ignore_errors=True)


def segment(settings: Settings) -> Timed:
    """Run in this process, into an empty folder, and say nothing."""
    begun: list[Usage] = []
    real: Callable[..., object] = estimate.estimate

    def begin(*arguments: object) -> object:
        """Note when the start is over. What is inferred for the estimate is kept, and is work already."""
        begun.append(now())
        return real(*arguments)

    with empty_output() as folder, contextlib.redirect_stdout(io.StringIO()), mock.patch.object(run, "estimate", begin):
        start = now()
        run.segment(replace(settings, output_path=folder))
        return Timed(begun[0] - start, now() - begun[0])


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process took: bytes of anonymous memory at its peak, those it had announced, and wall seconds."""

    peak: int
    announced: int
    seconds: float


def fresh(settings: Settings) -> Footprint:
    """Run in a process of its own, as a user would, and watch its anonymous memory from outside.

    Raises
    ------
    RuntimeError
        The run failed, or did not announce what memory it needs.
    """
    lines = f"models: {{repository: {settings.models.repository}}}\nmask: {{method: {settings.mask.method}}}\n"
    kept = {name: value for name, value in os.environ.items() if "TRITON" not in name and "TRTIS" not in name}
    with empty_output() as folder, tempfile.TemporaryDirectory() as config, tempfile.TemporaryFile("w+") as log:
        Path(config, "config.yaml").write_text(lines)
        start, peak = time.perf_counter(), 0
        process = subprocess.Popen(
            [
                sys.executable, str(ROOT / "operators" / "main.py"), "segmentation", "-w", str(settings.num_workers),
                "--input-path", str(settings.input_path), "--output-path", str(folder), "--config-path", config,
            ],
            stdout=subprocess.DEVNULL, stderr=log, env=kept,
        )  # fmt: skip
        while process.poll() is None:
            peak = max(peak, _anonymous(process.pid))
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.perf_counter() - start
        log.seek(0)
        said = log.read()
    announced = re.search(r"at most ([\d.]+) (GiB|MiB|KiB) of memory", said)
    if process.returncode or announced is None:
        raise RuntimeError(f"the run ended with {process.returncode}:\n{said}")
    unit = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}[announced.group(2)]
    return Footprint(peak, int(float(announced.group(1)) * unit), seconds)


def _anonymous(process: int) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:  # it has just ended
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0
