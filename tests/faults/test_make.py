"""`make run`: what make itself would pass over in silence is refused, and nothing runs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.helpers.command import ROOT


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the Makefile and a slide; nothing is installed there, since make only prints its commands."""
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    (tmp_path / "x.svs").touch()
    return tmp_path


def make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", "-n", *words], cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "words",
    [("run", "x.svs"), ("x.svs", "run"), ("run", "./x.svs"), ("run", "../x.svs"), ("run", "gone.svs"),
     ("run", "Makefile"), ("run", "/"), ("x.svs",)],
)  # fmt: skip
def test_a_word_that_is_no_target_is_refused(words: tuple[str, ...], folder: Path) -> None:
    done = make(folder, *words)
    assert done.returncode == 2
    assert "SLIDE=x.svs" in done.stderr
    assert "main.py" not in done.stdout


@pytest.mark.parametrize("word", ["slide=x.svs", "SLIDES=x.svs", "INPUT=x.svs", "CONFIG_PATH=c", "TESTS=a"])
def test_a_variable_that_run_does_not_read_is_refused(word: str, folder: Path) -> None:
    done = make(folder, "run", word)
    assert done.returncode == 2
    assert f"'{word.partition('=')[0]}'" in done.stderr
    assert "CONFIG=config.yaml" in done.stderr
    assert "main.py" not in done.stdout


def test_slide_output_and_configuration_reach_the_program(folder: Path) -> None:
    done = make(folder, "run", "SLIDE=my slide.svs", "OUT=there", "CONFIG=my settings/config.yaml", "PYTHON=python3")
    assert done.returncode == 0
    (line,) = [line for line in done.stdout.splitlines() if "main.py" in line]
    assert '--input-path "my slide.svs" --output-path "there" --config-path "my settings/config.yaml"' in line


def test_without_a_configuration_none_is_named(folder: Path) -> None:
    done = make(folder, "run")
    assert done.returncode == 0
    assert "--config-path" not in done.stdout


@pytest.mark.parametrize("target", ["help", "test-fast", "check", "sample", ".venv/.linked"])
def test_other_targets_are_as_they_were(target: str, folder: Path) -> None:
    assert make(folder, target, "TESTS=tests/unit").returncode == 0
