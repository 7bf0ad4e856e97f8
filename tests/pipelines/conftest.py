"""Writes definitions down, checks and exports them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from nuclei_segmentation.pipelines import Definition, Report
from nuclei_segmentation.pipelines.__main__ import main
from tests.helpers.command import Done, command, environment
from tests.helpers.definitions import Check, Export
from tests.helpers.jobs import Job


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks a text as pipeline.yaml, with further files beside it."""

    def run(text: str, files: dict[str, str] | None = None, *, lenient: bool = False) -> Report:
        for name, content in (files or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
        path = tmp_path / "pipeline.yaml"
        path.write_text(text, encoding="utf-8")
        return Definition(path, lenient).check()

    return run


@pytest.fixture
def argo(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command ``argo``."""

    def run(*arguments: str | Path) -> Done:
        code = main(["argo", *map(str, arguments)])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture
def export(tmp_path: Path, argo: Callable[..., Done]) -> Export:
    """Exports a text and returns the document."""

    def run(text: str, *options: str) -> dict[str, Any]:
        (tmp_path / "pipeline.yaml").write_text(text)
        done = argo(tmp_path / "pipeline.yaml", "--lenient", *options)
        assert done.code == 0, done.err
        return yaml.safe_load(done.out)

    return run


@pytest.fixture(scope="module")
def expected(small_slide: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """image.tif as `segmentation` writes it."""
    out = tmp_path_factory.mktemp("expected")
    line = command("segmentation", "--input-path", small_slide.parent, "--output-path", out, "-w", "2")
    subprocess.run(line, check=True, capture_output=True, env=environment())
    return (out / "image.tif").read_bytes()


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(tmp_path)
