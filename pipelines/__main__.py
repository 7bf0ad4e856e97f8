"""``python -m pipelines``: what can be done with definitions."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from pipelines.check import check


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m pipelines",
        description="Checks pipeline definitions in the language of NVIDIA Clara Deploy.",
        allow_abbrev=False,
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    one = commands.add_parser(
        "check",
        help="say everything that is wrong with definitions, with its place and what would be right",
        description="Says everything that is wrong with definitions. "
        "Exit code 0: nothing, or warnings only; 1: errors; 2: the command line is wrong, or a FILE cannot be read.",
        allow_abbrev=False,
    )
    one.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a definition; imports are followed")
    one.add_argument("--json", action="store_true", help="print one JSON object for each FILE, on a line of its own")
    one.add_argument("--lenient", action="store_true", help="names that the language does not know are warnings")
    return result


def main(arguments: Sequence[str]) -> int:
    """Run the command line and return the exit code."""
    given = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold anything
    try:
        code = check(given.files, as_json=given.json, lenient=given.lenient)
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
