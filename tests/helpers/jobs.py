"""Runs of plans whose operators are small scripts."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.runner import execute
from nuclei_segmentation.pipelines.runner.launch import Process, Running
from nuclei_segmentation.pipelines.runner.plan import Plan
from nuclei_segmentation.pipelines.runner.step import Step
from nuclei_segmentation.pipelines.runner.view import View


def left(folder: Path) -> list[str]:
    """Return the processes whose command lines name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in text:
            found.append(text)
    return found


class Job:
    """Runs plans whose operators are scripts for bash, in folders of its own."""

    def __init__(self, root: Path) -> None:
        self.folders = Folders(root / "in", root / "out")
        self.folders.payload.mkdir()
        (self.folders.payload / "slide").touch()
        self.shown: list[str] = []
        self.plan = Plan("p", "r", ())
        self.options = execute.RunOptions()

    def step(self, name: str, script: str, *upstream: str) -> None:
        out = self.folders.written(name, "")
        step = Step(name, upstream, ("bash", "-c", script, name, str(out)), (str(out),))
        ends = (str(out), str(self.folders.output))
        self.plan = replace(self.plan, steps=(*self.plan.steps, step), results=(ends,))

    def run(self, launch: Callable[[Step, Path], Running] = Process) -> int:
        stream = io.StringIO()
        view = View([one.name for one in self.plan.steps], stream)
        try:
            return execute.execute(self.plan, self.folders, None, view, replace(self.options, launch=launch))
        finally:
            self.shown = stream.getvalue().splitlines()

    def table(self) -> dict[str, str]:
        """Return what the summary says of each operator."""
        rows = [line.split() for line in self.shown if line.startswith("  ")]
        return {row[0]: " ".join(row[1:4]) for row in rows if row[0] in {one.name for one in self.plan.steps}}


def diamond(job: Job, b: str = "true", c: str = "true") -> None:
    job.step("a", "echo a > $1/a")
    job.step("b", b, "a")
    job.step("c", c, "a")
    job.step("d", "echo d > $1/result", "b", "c")
    job.step("e", "echo e > $1/result", "d")
