"""NVIDIA's sizing tool, and what it had Docker do."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from nuclei_segmentation.shared.clara.sizing_tool import TRITON_ADDRESS
from tests.helpers.command import ROOT
from tests.helpers.docker_daemon import CLIENT, VENV, Daemon

PROGRAMS = ROOT / "tests" / "containers" / "cpost"
DATA = "DATA"
"""Stands for the folder that the tool makes for what passes between operators."""


@dataclass(frozen=True)
class Told:
    """What the tool said and did.

    `lines` are those of ``docker run``, in order, with `DATA`; `made` is a copy of that folder.
    """

    code: int
    text: str
    lines: list[list[str]]
    made: Path

    def at(self, address: str) -> Told:
        """Return the same with our word for the address of a Triton server."""
        if not address:
            return self
        lines = [[word.replace(f"={address}:", f"={TRITON_ADDRESS}:") for word in line] for line in self.lines]
        return replace(self, lines=lines)

    @property
    def servers(self) -> list[list[str]]:
        return [line for line in self.lines if "--gpus=1" in line]

    @property
    def operators(self) -> list[list[str]]:
        return [line for line in self.lines if "--gpus=1" not in line]


def size(
    docker: Daemon, definition: Path, payload: Path, place: Path, models: Path | None = None, *, image: str = "",
    triton: str = "",
) -> Told:  # fmt: skip
    """Run the tool on a definition.

    Parameters
    ----------
    docker
        Has the images.
    definition, payload, models
        The tool's arguments.
    place
        A folder for what the tool does.
    image, triton
        If given, nothing of the definition is started, but containers of an image that do nothing; and a Triton server
        is said to answer at an address.
    """
    programs = place / "bin"
    programs.mkdir(parents=True)
    for name in ("clarac", "docker"):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {PROGRAMS / name}.py "$@"\n')
        (programs / name).chmod(0o755)
    lines, made = place / "lines", place / "made"
    made.mkdir()
    lines.touch()
    with tempfile.TemporaryDirectory(prefix="nuclei-") as work:  # sockets in there: a short path
        environment = docker.environment | {
            "PATH": f"{programs}:{docker.environment['PATH']}", "TMPDIR": work, "LINES": str(lines), "KEEP": str(made),
            "CLIENT": str(CLIENT), "IMAGE": image, "TRITON": triton,
        }  # fmt: skip
        more = ["--models_dir", str(models)] if models else []
        line = [VENV / "bin" / "cpost", "--force=stop", *more, definition, payload]
        with subprocess.Popen(
            line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, env=environment,
        ) as child:  # fmt: skip
            try:
                text, _ = child.communicate(timeout=150)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)  # it has processes of its own
                raise
        all_lines = re.sub(rf"{work}/tmp\w+", DATA, lines.read_text()).splitlines()
    told = [json.loads(line) for line in all_lines]
    data = next((one for one in made.iterdir() if one.is_dir()), made)
    return Told(child.returncode, text, [line for line in told if line[1] == "run"], data)
