"""Stages as NVIDIA's platform would start them, with the stand-in for its module on the path."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.stages.conftest import Done, Run, arguments, command, crop, dark_config, environment, run, small_slide

__all__ = ["arguments", "crop", "dark_config", "run", "small_slide"]

HERE = Path(__file__).parent
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
            "PYTHONPATH": str(HERE),
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


@pytest.fixture(scope="session")
def plain(small_slide: Path, dark_config: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The image that a plain run makes."""
    out = tmp_path_factory.mktemp("plain")
    paths = ("--input-path", small_slide.parent, "--output-path", out, "--config-path", dark_config)
    subprocess.run(command("segmentation", *paths), check=True, env=environment(NVIDIA_CLARA_NOSYNCLOCK="TRUE"))
    return (out / "image.tif").read_bytes()


@pytest.fixture
def job(run: Run, dark_config: Path, tmp_path: Path) -> Iterator[Job]:
    """A job whose stores are to lie in shared memory."""
    config = tmp_path / "config"
    config.mkdir()
    (config / "config.yaml").write_text((dark_config / "config.yaml").read_text() + "store: {shm: true}\n")
    made = Job(run, uuid.uuid4().hex, tmp_path / "calls", config)
    yield made
    shutil.rmtree(made.memory, ignore_errors=True)


@pytest.fixture(autouse=True)
def nothing_stays_in_shared_memory(tmp_path: Path) -> Iterator[None]:
    yield
    left = set()  # of what the stores here name: others may be at work on this machine
    for manifest in tmp_path.rglob("manifest.json"):
        for facts in json.loads(manifest.read_bytes())["arrays"].values():
            path = Path(facts["file"])
            if path.parent == MEMORY and path.exists():
                path.unlink()
                left.add(path)
    assert not left
