"""The package tritonclient is an extra: without it a server in the environment is one clear line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
sys.modules["tritonclient"] = None  # as if it were not installed
from nuclei_segmentation.operators.commands import run
sys.exit(run(sys.argv[1:]))
"""


def test_a_server_is_named_but_the_client_is_not_installed(sample_slide: Path, tmp_path: Path) -> None:
    line = [
        sys.executable,
        "-c",
        SCRIPT,
        "segmentation",
        "--input-path",
        sample_slide,
        "--output-path",
        tmp_path / "out",
    ]
    environment = os.environ | {"CLARA_TRITON_URI": "127.0.0.1:1"}
    done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment, timeout=120)
    assert done.returncode == 2, done.stderr
    assert "CLARA_TRITON_URI names a Triton server" in done.stderr
    assert "nuclei-segmentation-operators[triton]" in done.stderr
    assert "Traceback" not in done.stderr
