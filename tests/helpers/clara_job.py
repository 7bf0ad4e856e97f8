"""Stages as NVIDIA's platform would start them, with the stand-in for its module on the path."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.command import ROOT, Done, Run

STANDIN = ROOT / "tests" / "clara"
"""Holds the stand-in for NVIDIA's module ``clara``."""

MEMORY = Path("/dev/shm")
Folders = list[tuple[str, Path]]


@dataclass
class Job:
    """One job of the platform: its stages share memory."""

    run: Run
    name: str
    log: Path
    config: Path

    @property
    def memory(self) -> Path:
        """Where the stand-in keeps the job's memory."""
        return MEMORY / f"clara-standin-{self.name}"

    def variables(self, inputs: Folders, outputs: Folders, fault: str = "") -> dict[str, str]:
        return {
            "PYTHONPATH": str(STANDIN),
            "CLARA_STANDIN_ID": self.name,
            "CLARA_STANDIN_LOG": str(self.log),
            "CLARA_STANDIN_FAULT": fault,
            "NVIDIA_CLARA_NOSYNCLOCK": "",
            "NVIDIA_CLARA_INPUTPATHS": ",".join(f"{name}:{path}" for name, path in inputs),
            "NVIDIA_CLARA_OUTPUTPATHS": ",".join(f"{name}:{path}" for name, path in outputs),
        }

    def stage(
        self, command: str, inputs: Folders, outputs: Folders, *more: str | Path, fault: str = "", **variables: str
    ) -> Done:
        return self.run(
            command, "--config-path", self.config, "-w", "2", *more,
            **(self.variables(inputs, outputs, fault) | variables),
        )  # fmt: skip

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What was asked of the stand-in so far."""
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def called(self, what: str) -> int:
        return sum(call["call"] == what for call in self.calls)
