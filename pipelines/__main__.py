"""The command line: ``nuclei-pipelines``, or in a clone ``python -m pipelines``."""

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

from nuclei_segmentation.pipelines.argo import export_options
from nuclei_segmentation.pipelines.argo.export import export
from nuclei_segmentation.pipelines.language.check import check
from nuclei_segmentation.pipelines.messages import show
from nuclei_segmentation.pipelines.runner.options import ENGINES
from nuclei_segmentation.pipelines.runner.run import Request, run
from nuclei_segmentation.shared.errors import NoSpace, OutputError

CHECK = """Reports everything that is wrong with definitions. Exit codes: 0, no errors (there may be warnings);
1, errors; 2, the command line is wrong or a FILE cannot be read."""

RUN = """Runs a pipeline. Exit codes: 0, the result is there; the exit code of the first operator that failed;
2, the command line or the definition is wrong; 10, there is no input; 13, the output folder cannot be used;
14, no space is left; 16, a service does not answer; 124, a time limit is reached; 130 or 143, stopped by a signal."""

ARGO = """Writes a definition as a Workflow of Argo 4, for a Kubernetes cluster. Exit codes: 0, the workflow is
written; 1, the definition has errors; 2, the command line is wrong or FILE cannot be read; 13, the workflow cannot be
written; 14, no space is left."""

_LENIENT = "report names that the language does not have as warnings"


def parser(program: str) -> argparse.ArgumentParser:
    """Return the parser of the command line; `program` is the program's name in the usage."""
    result = argparse.ArgumentParser(
        prog=program,
        description="Checks, runs and exports pipeline definitions in the language of NVIDIA Clara Deploy.",
        allow_abbrev=False,
    )
    commands = result.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "check",
        help="report everything that is wrong with definitions, where it is, and what would be right",
        description=CHECK,
        allow_abbrev=False,
    )
    command.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="a definition; its imports are checked too"
    )
    command.add_argument(
        "--json", action="store_true", help="print one JSON object for each FILE, on a line of its own"
    )
    command.add_argument("--lenient", action="store_true", help=_LENIENT)
    command = commands.add_parser("run", help="run a pipeline", description=RUN, allow_abbrev=False)
    _add_definition(command)
    _add_run_options(command)
    command = commands.add_parser(
        "argo", help="write a definition as a Workflow of Argo", description=ARGO, allow_abbrev=False
    )
    _add_definition(command)
    export_options.add_options(command)
    return result


def _add_definition(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("file", type=Path, metavar="FILE", help="the definition")
    add("-p", action="append", default=[], type=_pair, dest="values", metavar="NAME=VALUE", help="value of a parameter")
    add("--lenient", action="store_true", help=_LENIENT)


# fmt: off
def _add_run_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--input", required=True, type=_path, metavar="DIR", help="the payload, which inputs without `from` read")
    add("--output", required=True, type=_path, metavar="DIR", help="receives the result, and the job's folder .job")
    add("--engine", choices=ENGINES, default="process", help="what runs the operators (default: process)")
    add("--config", type=_path, metavar="DIR", help="folder with config.yaml, which operators see as /config")
    add("--models", type=_path, metavar="DIR", help="folder with the models of Triton servers that are started")
    add("--triton-image", default="", metavar="NAME:TAG",
        help="start a Triton server from this image for operators that list models")
    add("--user", type=_user, metavar="UID:GID",
        help="as whom containers run (default: who calls, but never root: only --user 0:0 is root)")
    add("--no-gpu", action="store_true", help="give containers no GPU, even if the definition requests one")
    add("--pod", action="store_true", help="start all operators at once, as Clara does: they wait for one another")
    add("--time-limit", type=_seconds, metavar="TIME", help="for the whole run: 90, 90s, 15m, 2h (default: none)")
    add("--operator-time-limit", type=_seconds, metavar="TIME", help="for each operator (default: none)")
    add("--service-wait", type=_seconds, default=300.0, metavar="TIME",
        help="how long a service may take to answer (default: 5m)")
    add("--compat", choices=["cpost"], help="use the docker command lines of NVIDIA's sizing tool")
    add("--dry-run", action="store_true", help="print the commands, one a line, and do nothing")
# fmt: on


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError("a path is missing; the current folder is '.'")
    return Path(os.path.abspath(text))  # noqa: PTH100 - `Path.resolve` would follow links


def _seconds(text: str) -> float:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh]?)", text)
    if match is None or not float(match[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90, 90s, 15m or 2h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def _user(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([0-9]{1,10}):([0-9]{1,10})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not UID:GID, two numbers such as 1000:1000")
    return int(match[1]), int(match[2])


def _pair(text: str) -> tuple[str, str]:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8") from None
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def main(arguments: Sequence[str] | None = None, program: str = "nuclei-pipelines") -> int:
    """Run the command line and return the exit code.

    Parameters
    ----------
    arguments : Sequence of str or None, optional
        The command line without the program's name; None takes that of this process.
    program : str, optional
        The program's name in the usage.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed: another file could get its number, and with it what is printed
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    parsed = parser(program).parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may contain any bytes
    try:
        if parsed.command == "check":
            code = check(parsed.files, as_json=parsed.json, lenient=parsed.lenient)
        elif parsed.command == "argo":
            code = export(export_options.ExportOptions.from_arguments(parsed))
        else:
            code = run(Request.from_arguments(parsed))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.filename is not None:  # errors of streams have none
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        kind = NoSpace if error.errno == errno.ENOSPC else OutputError
        with contextlib.suppress(OSError):
            show(f"cannot write to the standard output: {error.strerror}")
        return kind.exit_code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return code


if __name__ == "__main__":
    sys.exit(main(program=f"python -m {__package__ or 'pipelines'}"))
