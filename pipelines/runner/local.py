"""Engine `process`: an operator of this project as a process of this installation, in place of its container."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language.findings import shown
from nuclei_segmentation.pipelines.language.model import Operator, Service
from nuclei_segmentation.pipelines.runner.step import Step
from nuclei_segmentation.shared.errors import UsageError

MAIN = Path(__file__).resolve().parents[2] / "operators" / "main.py"
COMMANDS = ("load", "filter", "stitch", "segmentation")
"""Images of this project, named ``nuclei/COMMAND``, with or without a registry before it."""

_SHELLS = ("/bin/bash", "/bin/sh", "bash", "sh")
_PYTHONS = ("python", "python3")
_FOLDERS = ("--input-path", "--output-path", "--config-path")
_DEFAULTS = dict(zip(_FOLDERS, ("/input", "/output", "/config"), strict=True))
_NEEDS_SHELL = re.compile(r"[$`;&|<>(){}*?\[\]~\n#!\\]")
_STEERS = re.compile(r"(?:LD_|DYLD_|PYTHON|GCONV_|OPENSSL_).*|PATH|BASH_ENV|ENV|HOME")
"""Variables by which a definition, which may be a stranger's, could have a process run any code."""
_OTHER = "use --engine podman or docker"


def own(one: Operator | Service) -> str:
    """Return which operator of this project an image is; '' if none."""
    image = one.container.image.split("/")
    return image[-1] if image[-2:-1] == ["nuclei"] and image[-1] in COMMANDS else ""


def models() -> Path | None:
    """Return the folder of models that comes with this installation, if it has one."""
    folder = MAIN.parents[1] / "models"
    return folder if folder.is_dir() else None


def step(
    operator: Operator,
    folders: Folders,
    config: Path,
    variables: Mapping[str, str],
    absent: Sequence[str],
) -> Step:
    """Return how an operator is run as a process.

    Parameters
    ----------
    operator : Operator
        Of this project.
    folders : Folders
        Of the run.
    config : pathlib.Path
        Takes the place of /config.
    variables : Mapping of str to str
        Of its environment, beside the caller's.
    absent : Sequence of str
        Variables of the caller that it must not see.

    Raises
    ------
    UsageError
        It is none of this project, or its command or folders cannot be had without a container.
    """
    words, given = _command(operator)
    for name in operator.variables:
        if _STEERS.fullmatch(name):
            raise _cannot(operator, f"its variable {name} could have any code run on this machine")
    into, links = _input(operator, folders, PurePosixPath(given["--input-path"]))
    out = next((at for at, one in folders.writes(operator) if _same(one.path, given["--output-path"])), None)
    if out is None:
        raise _cannot(operator, f"nothing takes what it writes to {given['--output-path']}: no output has that path")
    paths = dict(zip(_FOLDERS, (into, out, config), strict=True))
    line = ["env", *(word for name in absent for word in ("-u", name))]
    line += [f"{name}={value}" for name, value in variables.items()]
    line += [sys.executable, "-u", str(MAIN), *words]
    line += [word for name, path in paths.items() for word in (name, str(path))]
    makes = [str(at) for at, _ in folders.writes(operator)]
    makes += [str(into)] if links else []
    makes += [str(config)] if config == folders.config else []
    return Step(operator.name, operator.upstream, tuple(line), tuple(makes), links)


def _input(operator: Operator, folders: Folders, root: PurePosixPath) -> tuple[Path, tuple[tuple[str, str], ...]]:
    """Return the folder that takes the place of /input, and what must be linked into it."""
    reads = [(at, PurePosixPath(one.path or "")) for at, one in folders.reads(operator)]
    if len(reads) == 1 and reads[0][1] == root:
        return reads[0][0], ()
    into = folders.job / "inputs" / operator.name
    links = []
    for at, path in reads:
        if path.parent != root:
            raise _cannot(operator, f"its input {shown(str(path))} is not a folder right in {root}")
        links.append((str(into / path.name), str(at)))
    return into, tuple(links)


def _command(operator: Operator) -> tuple[list[str], dict[str, str]]:
    """Return what follows main.py, without the folders, and the folders."""
    ours = own(operator)
    if not ours:
        raise UsageError(
            f"{operator.name}: image {shown(operator.container.reference)} is not of this project, and cannot be run "
            f"as a process; {_OTHER}"
        )
    words = list(operator.container.command)
    if len(words) == 3 and words[0] in _SHELLS and words[1] == "-c":
        if _NEEDS_SHELL.search(words[2]):
            raise _cannot(operator, f"its command needs a shell: {shown(words[2])}")
        try:
            words = shlex.split(words[2])
        except ValueError as error:
            raise _cannot(operator, f"its command cannot be read ({error}): {shown(words[2])}") from None
    if not words:
        return [ours], dict(_DEFAULTS)
    python, *rest = words
    if rest[:1] == ["-u"]:
        rest = rest[1:]
    if python not in _PYTHONS or rest[:1] != ["/app/main.py"]:
        raise _cannot(operator, f"its command is not `python -u /app/main.py ...`: {shown(shlex.join(words))}")
    return _without_folders(rest[1:])


def _without_folders(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    kept: list[str] = []
    given = dict(_DEFAULTS)
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name in given:
            given[name] = value if equals else next(rest, "")
        else:
            kept.append(word)
    return kept, given


def _same(path: str | None, other: str) -> bool:
    return path is not None and PurePosixPath(path) == PurePosixPath(other)


def _cannot(operator: Operator, why: str) -> UsageError:
    return UsageError(f"{operator.name}: cannot be run as a process: {why}; {_OTHER}")
