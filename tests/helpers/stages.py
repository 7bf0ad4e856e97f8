"""The three stages, started at once."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from nuclei_segmentation.shared.store import ledger
from tests.helpers.command import Done, command, environment

STAGES = ("load", "filter", "stitch")
OUTPUT = {"load": "tiles", "filter": "masks", "stitch": "out"}


class Stages:
    """The three stages on one slide, each in a process of its own."""

    def __init__(self, root: Path, slide: Path, config: Path) -> None:
        self.root, self.inputs, self.config = root, root / "in", root / "config"
        (self.inputs / "slide").mkdir(parents=True)
        shutil.copy(slide, self.inputs / "slide")
        shutil.copytree(config, self.config)
        self.processes: dict[str, subprocess.Popen[str]] = {}

    def setting(self, text: str) -> None:
        with (self.config / "config.yaml").open("a") as file:
            file.write(text)

    def output(self, stage: str) -> Path:
        return (self.root if stage == "stitch" else self.inputs) / OUTPUT[stage]

    def arguments(self, stage: str) -> list[str]:
        tiles = ["-t", "48"] if stage == "load" else []
        return [
            stage, "--input-path", str(self.inputs), "--output-path", str(self.output(stage)),
            "--config-path", str(self.config), "-w", "2", *tiles,
        ]  # fmt: skip

    def start(self, stage: str, **variables: str) -> subprocess.Popen[str]:
        self.processes[stage] = subprocess.Popen(
            command(*self.arguments(stage)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=environment(**variables),
        )  # fmt: skip
        return self.processes[stage]

    def end(self, stage: str) -> Done:
        process = self.processes.pop(stage)
        out, err = process.communicate(timeout=120)
        return Done(process.returncode, out, err)

    def records(self, stage: str) -> int:
        path = self.output(stage) / ledger.FILE
        return len(ledger.parse(path.read_bytes()[ledger.HEADER :])) if path.exists() else 0

    def until(self, holds: Callable[[], object], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, {name: process.poll() for name, process in self.processes.items()}
            time.sleep(0.005)

    def until_in_use(self, folder: Path) -> None:
        """Wait until a run has taken a folder and said so: its lock is there an instant before its name is in it."""
        lock = folder / ".run" / "lock"
        self.until(lambda: lock.exists() and lock.stat().st_size > 0)
