"""Three stages at work at once."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.command import command, environment
from tests.helpers.outputs import digest
from tests.helpers.stages import Stages


@pytest.fixture
def stages(small_slide: Path, dark_config: Path, tmp_path: Path) -> Iterator[Stages]:
    found = Stages(tmp_path, small_slide, dark_config)
    yield found
    for process in found.processes.values():
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def expected(small_slide: Path, dark_config: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Digest of the image that `segmentation` makes of the slide."""
    out = tmp_path_factory.mktemp("expected")
    options = ["--input-path", small_slide.parent, "--output-path", out, "--config-path", dark_config, "-t", "48"]
    subprocess.run(command("segmentation", *options), check=True, capture_output=True, env=environment())
    return digest(out)


@pytest.fixture
def slow_load(stages: Stages, sample_slide: Path) -> Path:
    """The sample slide, of whose 2,914 tiles of 48 pixels load needs a while."""
    folder = stages.inputs / "slide"
    for path in folder.iterdir():
        path.unlink()
    shutil.copy(sample_slide, folder / "slide.svs")
    stages.setting("mask: none\n")
    return folder
