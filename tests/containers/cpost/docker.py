"""Stands before Docker's client on the PATH of NVIDIA's sizing tool, writes each command line down, and hands it on.

Its environment:

LINES   file that takes the lines, a JSON list each
CLIENT  Docker's client
KEEP    folder that takes a copy of what operators made, whenever one ended: the tool removes all in the end
TRITON  address; if set, no image is looked for, no server started, and in place of operators run containers of IMAGE
        that do nothing
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path


def pretended(line: list[str], address: str) -> str | None:
    """Return the answer to what is not handed on, or None."""
    if line[0] == "images":
        return line[1]
    if line[0] == "inspect":
        return f"'{address}'"
    if line[0] == "kill" or line[:2] == ["run", "--gpus=1"]:
        return "0" * 64
    return None


def main(line: list[str]) -> int:
    with Path(os.environ["LINES"]).open("a") as lines:
        lines.write(json.dumps(["docker", *line]) + "\n")
    address = os.environ.get("TRITON")
    if address:
        answer = pretended(line, address)
        if answer is not None:
            sys.stdout.write(answer + "\n")
            return 0
        if line[0] == "run":  # long enough for the tool to see it: it waits for ever for one that is gone
            line = ["run", "-d", "--rm", os.environ["IMAGE"], "sleep", "3"]
    code = subprocess.run([os.environ["CLIENT"], *line], check=False).returncode
    if line[0] == "wait":
        shutil.copytree(
            os.environ["TMPDIR"], os.environ["KEEP"], dirs_exist_ok=True, ignore=shutil.ignore_patterns("pymp-*")
        )
    return code


sys.exit(main(sys.argv[1:]))
