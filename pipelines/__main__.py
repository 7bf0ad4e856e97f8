"""``python -m pipelines``: what can be done with definitions."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from nuclei_segmentation.pipelines.argo import exportoptions
from nuclei_segmentation.pipelines.argo.export import export
from nuclei_segmentation.pipelines.language.check import check
from nuclei_segmentation.pipelines.runner.plan import ENGINES
from nuclei_segmentation.pipelines.runner.run import Request, run, say
from nuclei_segmentation.shared.errors import NoSpace, OutputError

RUN = """Runs a pipeline. Exit code 0: the result is there; that of the first operator that failed; 2: the command line
or the definition is wrong; 10: no input; 13: the output folder cannot be used; 16: a service does not answer; 124: the
time is up; 130 and 143: stopped by a signal."""

ARGO = """Writes a definition as a Workflow of Argo 4, for a Kubernetes cluster. Exit code 0: it is written; 1: the
definition has errors; 2: the command line is wrong, or FILE cannot be read; 13: the workflow cannot be written; 14: no
space is left."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog="python -m pipelines",
        description="Checks, runs and exports pipeline definitions in the language of NVIDIA Clara Deploy.",
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
    _add_run(commands.add_parser("run", help="run a pipeline", description=RUN, allow_abbrev=False))
    one = commands.add_parser("argo", help="write a Workflow of Argo", description=ARGO, allow_abbrev=False)
    _add_common(one)
    exportoptions.options(one)
    return result


def _add_common(one: argparse.ArgumentParser) -> None:
    add = one.add_argument
    add("file", type=Path, metavar="FILE", help="the definition")
    add("-p", action="append", default=[], type=_pair, dest="values", metavar="NAME=VALUE", help="a parameter's value")
    add("--lenient", action="store_true", help="names that the language does not know are warnings")


def _add_run(one: argparse.ArgumentParser) -> None:
    add = one.add_argument
    _add_common(one)
    add("--input", required=True, type=_folder, metavar="DIR", help="the payload: what operators without `from` read")
    add("--output", required=True, type=_folder, metavar="DIR", help="takes the result, and the job's folder .job")
    add("--engine", choices=ENGINES, default="process", help="what runs the operators (default: process)")
    add("--config", type=_folder, metavar="DIR", help="folder with config.yaml, in place of the operators' /config")
    add("--models", type=_folder, metavar="DIR", help="folder with the models of Triton servers that are started")
    add(
        "--triton-image",
        default="",
        metavar="NAME:TAG",
        help="for `models`: a Triton server of their own, and its image",
    )
    add("--no-gpu", action="store_true", help="give containers no GPU, whatever they ask for")
    add("--pod", action="store_true", help="start all operators at once, as Clara does: they wait for one another")
    add("--time-limit", type=_seconds, metavar="TIME", help="of the whole run: 90, 90s, 15m, 2h (default: none)")
    add("--operator-time-limit", type=_seconds, metavar="TIME", help="of each operator (default: none)")
    add("--service-wait", type=_seconds, default=300.0, metavar="TIME", help="for a service to answer (default: 5m)")
    add("--compat", choices=["cpost"], help="the command lines of NVIDIA's sizing tool, of docker")
    add("--dry-run", action="store_true", help="print the commands, one a line, and do nothing")


def _folder(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a path is missing; the current folder is '.'")
    return Path(os.path.abspath(text))  # noqa: PTH100 - links are kept as they are given


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90, 90s, 15m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _pair(text: str) -> tuple[str, str]:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Parameters
    ----------
    arguments : Sequence of str or None, optional
        The command line without the program's name; None takes that of this process.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: no other file may take its number, or what is printed would go there
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    given = parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold anything
    try:
        if given.command == "check":
            code = check(given.files, as_json=given.json, lenient=given.lenient)
        elif given.command == "argo":
            code = export(exportoptions.Export.of(given))
        else:
            code = run(Request.of(given))
        sys.stdout.flush()
    except BrokenPipeError:  # who reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is not None:  # only streams have none
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        stop = NoSpace if error.errno == errno.ENOSPC else OutputError
        with contextlib.suppress(OSError):
            say(f"cannot write the standard output: {error.strerror}")
        return stop.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code


if __name__ == "__main__":
    sys.exit(main())
