"""The lines that the READMEs tell people to type."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.container_engine import ROOT, Engine, folder
from tests.helpers.outputs import FILES, names


def commands(readme: str) -> list[str]:
    """Return the indented blocks that run a container, without their `make`."""
    blocks = re.findall(r"(?m)(?:^ {4}\S.*\n(?: {4}.*\n)*)", (ROOT / readme).read_text())
    return [re.sub(r"(?m)^\s*make .*$", "", block) for block in blocks if "docker run" in block]


def typed(engine: Engine, text: str, place: Path) -> None:
    script = f'docker() {{ command {engine.program} "$@"; }}\n{text}'
    done = subprocess.run(
        ["bash", "-euc", script], cwd=place, capture_output=True, text=True, check=False, timeout=240,
        env=os.environ | engine.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def place(tmp_path: Path, small_slide: Path) -> Path:
    shutil.copy(small_slide, folder(tmp_path / "slides"))
    return tmp_path


@pytest.mark.parametrize("readme", ["README.md", "operators/segmentation/README.md"])
def test_one_container(engine: Engine, image: Callable[[str], str], place: Path, outside: bytes, readme: str) -> None:
    image("segmentation")
    (line,) = commands(readme)
    typed(engine, line, place)
    assert names(place / "result") == FILES
    assert (place / "result" / "image.tif").read_bytes() == outside


def test_three_containers(engine: Engine, image: Callable[[str], str], place: Path, outside: bytes) -> None:
    for stage in ("load", "filter", "stitch"):
        image(stage)
        (line,) = commands(f"operators/{stage}/README.md")
        typed(engine, line, place)
    assert (place / "result" / "image.tif").read_bytes() == outside
