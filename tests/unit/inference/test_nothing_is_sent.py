"""By default, ONNX Runtime reports model and machine to its maker and stores an identifier; here it must not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "models" / "segmentation_unet_nuclei" / "1" / "model.onnx"


def left_behind(imports: str, home: Path) -> list[Path]:
    """Open a session in a new process, and return the files that it leaves in its home folder."""
    home.mkdir()
    removed = ("CI", "ORT_", "XDG_", "GITHUB_", "PYTEST_")  # these turn it off, or send the files elsewhere
    environment = {name: value for name, value in os.environ.items() if not name.startswith(removed)}
    code = f"{imports}; ort.InferenceSession({str(MODEL)!r}, providers=['CPUExecutionProvider'])"
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment | {"HOME": str(home)}, check=True, timeout=60
    )
    return [path for path in home.rglob("*") if path.is_file()]


def test_the_embedded_engine_sends_nothing(tmp_path: Path) -> None:
    assert (
        left_behind("from nuclei_segmentation.operators.filter.inference.embedded.engine import ort", tmp_path / "home")
        == []
    )


@pytest.mark.parametrize("package", ["training", "benchmarks"])
def test_the_tools_send_nothing(package: str, tmp_path: Path) -> None:
    assert left_behind(f"import {package}, onnxruntime as ort", tmp_path / "home") == []
