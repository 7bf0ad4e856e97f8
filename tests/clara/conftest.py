"""Stages as NVIDIA's platform would start them, with the stand-in for its module on the path."""

from __future__ import annotations

import json
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.clara_job import MEMORY, Job
from tests.helpers.command import Run, command, environment


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
