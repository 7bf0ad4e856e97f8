"""A user's mistake is one line and a documented exit code; none of this needs PyTorch."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from training import __main__ as training
from training import overlay
from training.command_line import describe


def usage_error(main: object, arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match="2"):
        main(list(arguments))  # type: ignore[operator] # a function
    return capsys.readouterr().err


@pytest.mark.parametrize("option", ["--steps", "--threads", "--rate"])
def test_a_training_needs_numbers_above_0(option: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--data", str(tmp_path), "--output", str(tmp_path), option, "0"]
    assert f"argument {option}" in usage_error(training.main, arguments, capsys)


def test_a_training_without_pytorch_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without_torch(name: str, *arguments: object, **keywords: object) -> object:
        if name == "training.run":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        return real(name, *arguments, **keywords)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(builtins, "__import__", without_torch)
    assert training.main(["--data", str(tmp_path), "--output", str(tmp_path), "--work", str(tmp_path)]) == 1
    assert capsys.readouterr().err == "torch is not installed: run `pip install -r requirements/training.txt`\n"


def test_a_training_with_an_unwritable_work_folder_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "training.run", type("run", (), {"run": None}))
    (tmp_path / "file").touch()
    work = tmp_path / "file" / "work"
    assert training.main(["--data", str(tmp_path), "--output", str(tmp_path), "--work", str(work)]) == 1
    assert capsys.readouterr().err == f"{work}: Not a directory\n"


@pytest.mark.parametrize("option", [["--zoom", "0"], ["--region", "0", "0", "0", "5"], ["--output", "picture"]])
def test_a_wrong_option_of_overlay_is_a_usage_error(
    option: list[str], small_slide_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--slide", str(small_slide_folder / "a.tif"), "--output", str(tmp_path / "a.png"), *option]
    assert option[0] in usage_error(overlay.main, arguments, capsys)


@pytest.mark.parametrize(
    ("slide", "output", "model", "text"),
    [
        ("none.tif", "a.png", None, "none.tif is not a file"),
        ("README.md", "a.png", None, "README.md cannot be read by OpenSlide"),
        ("a.tif", "a.png", "no_such", "no_such"),
        ("a.tif", "none/a.png", None, "none/a.png: No such file or directory"),
    ],
)
def test_a_mistake_in_overlay_is_one_line(
    slide: str,
    output: str,
    model: str | None,
    text: str,
    small_slide_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--slide", str(small_slide_folder / slide), "--output", str(tmp_path / output)]
    assert overlay.main([*arguments, *(["--model", model] if model else [])]) == 1
    printed = capsys.readouterr().err
    assert text in printed
    assert printed.count("\n") == 1


def test_an_overlay_is_as_large_as_its_region(small_slide_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    arguments = ["--slide", str(small_slide_folder / "a.tif"), "--output", str(output), "--zoom", "2"]
    assert overlay.main([*arguments, "--region", "10", "20", "40", "30"]) == 0
    drawn = cv2.imread(str(output))
    assert drawn is not None
    assert np.asarray(drawn).shape == (60, 80, 3)


def test_an_error_of_the_file_system_names_the_file() -> None:
    assert describe(FileNotFoundError(2, "No such file or directory", "x")) == "x: No such file or directory"
    assert describe(OSError("no room")) == "no room"
