"""The command ``pipelines`` as users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.command import ROOT, environment
from tests.helpers.container_engine import Engine


def pipelines(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "pipelines", *map(str, arguments)]


def run(name: str, payload: Path, output: Path, *more: str) -> subprocess.CompletedProcess[str]:
    line = pipelines("run", ROOT / "pipelines" / f"{name}.yaml", "--input", payload, "--output", output, *more)
    return subprocess.run(line, capture_output=True, text=True, timeout=240, env=environment(), check=False)


def line(engine: Engine, name: str, payload: Path, output: Path, *more: str) -> list[str]:
    definition = ROOT / "pipelines" / f"nuclei-segmentation{name}.yaml"
    return [
        sys.executable, "-m", "pipelines", "run", str(definition), "--engine", engine.program,
        "--input", str(payload), "--output", str(output), "-p", "WORKERS=1", *more,
    ]  # fmt: skip
