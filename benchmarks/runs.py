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
from nuclei_segmentation.operators.segmentation import estimate as estimates
from nuclei_segmentation.operators.segmentation import run
from nuclei_segmentation.shared.runtime.resources import usable_cpus
from nuclei_segmentation.shared.settings import MaskSettings, ModelsSettings, Settings

OUTPUT = CACHE / f"out-{os.getpid()}"
"""The output folder of this process; two benchmarks at the same time do not share files."""
_SAMPLE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class RunTime:
    """The time that a run took.

    Attributes
    ----------
    start : Usage
        Opening slide and model, and finding tissue.
    work : Usage
        The rest.
    """

    start: Usage
    work: Usage

    @property
    def total(self) -> Usage:
        """The time of the whole run."""
        return self.start + self.work


def settings_for(slide: Path, repository: Path, mask: Literal["tissue", "none"] = "tissue") -> Settings:
    """Return the default settings of the command line for a slide and a model repository.

    Parameters
    ----------
    slide : pathlib.Path
        The slide.
    repository : pathlib.Path
        The model repository.
    mask : {"tissue", "none"}
        Method of the tissue mask.
    """
    return Settings(
        input_path=slide,
        output_path=OUTPUT,
        num_workers=usable_cpus(),
        mask=MaskSettings(method=mask),
        models=ModelsSettings(repository=repository),
    )


@contextlib.contextmanager
def empty_output() -> Iterator[Path]:
    """Provide an empty output folder, and remove it at the end."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    try:
        yield OUTPUT
    finally:
        shutil.rmtree(OUTPUT, ignore_errors=True)


def segment(settings: Settings) -> RunTime:
    """Run in this process, into an empty folder, and without output on the terminal."""
    began: list[Usage] = []
    real: Callable[..., object] = estimates.estimate

    def begin(*arguments: object) -> object:
        """Note the end of the start. Inference for the estimate counts as work, since its maps are kept."""
        began.append(now())
        return real(*arguments)

    with empty_output() as folder, contextlib.redirect_stdout(io.StringIO()), mock.patch.object(run, "estimate", begin):
        start = now()
        run.segment(replace(settings, output_path=folder))
        return RunTime(began[0] - start, now() - began[0])


@dataclass(frozen=True, slots=True)
class Footprint:
    """The memory and the time that a process took.

    Attributes
    ----------
    peak : int
        Peak of its anonymous memory, in bytes.
    estimated : int
        Memory that the run itself estimated at its start, in bytes.
    seconds : float
        Wall time.
    """

    peak: int
    estimated: int
    seconds: float


def fresh(settings: Settings) -> Footprint:
    """Run in a process of its own, as a user would, and sample its anonymous memory from outside.

    Raises
    ------
    RuntimeError
        The run failed, or did not print an estimate of its memory.
    """
    lines = f"models: {{repository: {settings.models.repository}}}\nmask: {{method: {settings.mask.method}}}\n"
    lines += f"outputs: [{', '.join(settings.outputs)}]\n"
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
        printed = log.read()
    estimate = re.search(r"at most ([\d.]+) (GiB|MiB|KiB) of memory", printed)
    if process.returncode or estimate is None:
        raise RuntimeError(f"the run ended with {process.returncode}:\n{printed}")
    unit = {"GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10}[estimate.group(2)]
    return Footprint(peak, int(float(estimate.group(1)) * unit), seconds)


def _anonymous(process: int) -> int:
    """Return the anonymous memory of a process, in bytes; 0 if it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB", status, re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0
