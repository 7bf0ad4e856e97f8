"""The command line as users run it: in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = "segmentation_unet_nuclei"


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-u", str(ROOT / "operators" / "main.py"), *map(str, arguments)]


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without Triton servers, plus some variables."""
    kept = {name: value for name, value in os.environ.items() if "TRITON" not in name and "TRTIS" not in name}
    return kept | variables


def refused(done: Done, code: int, *words: str, lines: int = 1) -> None:
    """Check that a run said in so many lines what is wrong, and ended with this code."""
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    errors = [line for line in done.err.splitlines() if " ERROR " in line]
    assert len(errors) == lines, done.err
    for word in words:
        assert any(word in line for line in errors), done.err


def run(*arguments: str | Path, **variables: str) -> Done:
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=environment(**variables), timeout=240
    )
    return Done(done.returncode, done.stdout, done.stderr)
