"""Processes that behave as if they ran on two machines that share a folder, but no locks of the kernel.

A process becomes one on another machine by `settle`. As a script: the arguments are the machine's name, the name of a
file before whose rename the process stops itself ("" for none), and a command line.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from nuclei_segmentation.operators.commands import run
from nuclei_segmentation.shared.runtime import lock
from tests.helpers.command import ROOT, environment

SILENCE = {"NUCLEI_LOCK_SILENCE": "1"}


class _Boot:
    """The file with the boot's id, of another machine."""

    def __init__(self, name: str) -> None:
        self._name = name

    def read_text(self) -> str:
        return self._name


def settle(machine: str, patch: pytest.MonkeyPatch | None = None) -> None:
    """Let this process run on a machine: only the boot's id is its own, and no lock reaches another machine."""
    for name, value in (("_BOOT", _Boot(machine)), ("lock_file", lambda *_: True)):
        patch.setattr(lock, name, value) if patch is not None else setattr(lock, name, value)


def stop_before(name: str) -> None:
    """Let this process stop itself once: when it is about to rename a file of this name, having looked at the lock."""
    rename = Path.rename
    done = False

    def stopping(path: Path, target: Any) -> Path:
        nonlocal done
        if name in (path.name, Path(target).name) and not path.name.endswith(".part") and not done:
            done = True
            os.kill(os.getpid(), signal.SIGSTOP)
        return rename(path, target)

    Path.rename = stopping  # type: ignore[method-assign, assignment]


@contextmanager
def started(**what: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a process, and see to it that it does not stay there, asleep, if the test fails."""
    with subprocess.Popen(**what, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def on(machine: str, *arguments: str | Path, stop: str = "") -> dict[str, Any]:
    """Return what to pass to `subprocess` for a command on a machine."""
    line = [sys.executable, "-m", "tests.helpers.machines", machine, stop, *map(str, arguments)]
    return {"args": line, "cwd": ROOT, "env": environment(**SILENCE)}


def wait_until_stopped(process: int) -> None:
    """Wait until a child has stopped itself."""
    _, status = os.waitpid(process, os.WUNTRACED)
    assert os.WIFSTOPPED(status), f"it ended instead: {status}"


if __name__ == "__main__":
    settle(sys.argv[1])
    if sys.argv[2]:
        stop_before(sys.argv[2])
    sys.exit(run(sys.argv[3:]))
