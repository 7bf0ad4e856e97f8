"""A user's mistake is one line and a documented exit code, before anything is measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as command_line
from benchmarks import tissue
from benchmarks.table import Row, render


@pytest.fixture(autouse=True)
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "sample.svs"
    path.touch()
    monkeypatch.setattr(command_line, "SAMPLE", path)


def test_an_unknown_benchmark_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["--only", "reader"])
    assert "invalid choice: 'reader'" in capsys.readouterr().err


def test_a_missing_sample_slide_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command_line, "SAMPLE", tmp_path / "none.svs")
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["--only", "read"])
    assert "run `make sample`" in capsys.readouterr().err


def test_an_unwritable_file_is_reported_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(["--json", str(tmp_path / "none" / "rows.json")]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert "rows.json" in printed.err


def test_a_missing_package_is_a_row_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    monkeypatch.delitem(sys.modules, "benchmarks.vips", raising=False)
    monkeypatch.delitem(sys.modules, "benchmarks.writer", raising=False)
    assert command_line.main(["--only", "write"]) == 0
    assert "pyvips is not installed: run `make bench`" in capsys.readouterr().out


def test_an_unwritable_overlay_folder_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert tissue.main(["--overlays", str(tmp_path / "file")]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_the_help_needs_no_optional_package() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], capture_output=True, text=True, check=True)
    assert "--only" in done.stdout


def test_a_table_says_which_targets_are_met() -> None:
    rows = [
        Row("fast", "2 s", "4 s", 2.0, 1.5),
        Row("large", "3 GiB", "1 GiB", 3.0, 1.0, at_least=False),
        Row("reported", "", "", None, None),
    ]
    _, _, fast, large, reported = render(rows).splitlines()
    assert fast.split() == ["fast", "2", "s", "4", "s", "2.00", ">=", "1.50", "yes"]
    assert large.endswith("<= 1.00  NO")
    assert reported == "reported"
