"""What the system refuses, and what a long life must not gather."""

from __future__ import annotations

import os
import resource
import subprocess
import threading
from pathlib import Path

import pytest

from nuclei_segmentation.operators.commands import run as run_here
from nuclei_segmentation.shared.runtime.resources import anonymous_memory
from tests.helpers.command import Run, command, environment


def test_a_failing_fsync_is_reported(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file system here can be made to fail an fsync, so the call is."""

    def fail(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    code = run_here(arguments)
    shown = capsys.readouterr().err
    assert code == 13, shown
    assert "Input/output error" in shown
    assert "Traceback" not in shown
    assert list((tmp_path / "out").iterdir()) == [], "the first file that is synced is the run's key"


def test_too_little_memory_is_one_clear_line(arguments: list[str], tmp_path: Path) -> None:
    """Enough to start with; not enough for tiles of 8192 pixels, which is known before the work."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (3 << 29, 3 << 29))

    done = subprocess.run(
        [*command(*arguments), "-t", "8192", "-w", "8"],
        capture_output=True, text=True, check=False, env=environment(OMP_NUM_THREADS="1"), preexec_fn=limit,
    )  # fmt: skip
    assert done.returncode == 14, done.stderr
    assert done.stderr.count(" ERROR ") == 1
    assert "memory" in next(line for line in done.stderr.splitlines() if " ERROR " in line)
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "image.tif").exists()


def test_many_runs_in_one_process_leave_nothing_behind(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def once(number: int) -> tuple[int, int, int]:
        assert run_here([*arguments, "--output-path", str(tmp_path / f"out{number}")]) == 0
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), anonymous_memory()

    for number in range(3):  # caches fill
        before = once(number)
    for number in range(3, 13):
        after = once(number)
    capsys.readouterr()
    assert after[0] <= before[0]
    assert after[1] <= before[1]
    assert after[2] - before[2] < 20 << 20


def test_a_run_needs_no_home_no_temporary_folder_and_no_standard_input(run: Run, arguments: list[str]) -> None:
    done = run(*arguments, HOME="/nonexistent", TMPDIR="/nonexistent", PATH="/nonexistent")
    assert done.code == 0, done.err
