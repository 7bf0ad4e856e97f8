"""Engine `process`: an operator of this project as a process of this installation, instead of a container."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language.findings import shown
from nuclei_segmentation.pipelines.language.model import Operator
from nuclei_segmentation.pipelines.project import MAIN, project_operator
from nuclei_segmentation.pipelines.runner.step import Step
from nuclei_segmentation.shared.errors import UsageError

_SHELLS = ("/bin/bash", "/bin/sh", "bash", "sh")
_PYTHONS = ("python", "python3")
_FOLDERS = ("--input-path", "--output-path", "--config-path")
_DEFAULTS = dict(zip(_FOLDERS, ("/input", "/output", "/config"), strict=True))
_NEEDS_SHELL = re.compile(r"[$`;&|<>(){}*?\[\]~\n#!\\]")
_USE_CONTAINERS = "use --engine podman or docker"


def process_step(
    operator: Operator,
    folders: Folders,
    config: Path,
    variables: Mapping[str, str],
    unset: Sequence[str],
) -> Step:
    """Return the step that runs an operator as a process.

    Parameters
    ----------
    operator : Operator
        An operator of this project.
    folders : Folders
        The folders of the run.
    config : pathlib.Path
        Used in place of /config.
    variables : Mapping of str to str
        Added to the caller's environment.
    unset : Sequence of str
        Variables of the caller that are removed from it.

    Raises
    ------
    UsageError
        The operator is not this project's, or its command or its folders need a container.
    """
    words, paths = _command(operator)
    read, links = _input(operator, folders, PurePosixPath(paths["--input-path"]))
    output = paths["--output-path"]
    written = next((folder for folder, item in folders.writes(operator) if _same(item.path, output)), None)
    if written is None:
        raise _error(operator, f"it writes to {output}, but no output has that path")
    line = ["env", *(word for name in unset for word in ("-u", name))]
    line += [f"{name}={value}" for name, value in variables.items()]
    line += [sys.executable, "-u", str(MAIN), *words]
    for option, folder in zip(_FOLDERS, (read, written, config), strict=True):
        line += [option, str(folder)]
    makes = [str(folder) for folder, _ in folders.writes(operator)]
    makes += [str(read)] if links else []
    makes += [str(config)] if config == folders.config else []
    return Step(operator.name, operator.upstream, tuple(line), tuple(makes), links)


def _input(operator: Operator, folders: Folders, root: PurePosixPath) -> tuple[Path, tuple[tuple[str, str], ...]]:
    """Return the folder to use in place of /input, and the links that it must contain."""
    reads = [(folder, PurePosixPath(item.path or "")) for folder, item in folders.reads(operator)]
    if len(reads) == 1 and reads[0][1] == root:
        return reads[0][0], ()
    parent = folders.job / "inputs" / operator.name
    links = []
    for folder, path in reads:
        if path.parent != root:
            raise _error(operator, f"its input {shown(str(path))} is not directly inside {root}")
        links.append((str(parent / path.name), str(folder)))
    return parent, tuple(links)


def _command(operator: Operator) -> tuple[list[str], dict[str, str]]:
    """Return the command and options that follow main.py, without the folders; and the folders by their options."""
    name = project_operator(operator)
    if not name:
        raise UsageError(
            f"{operator.name}: image {shown(operator.container.reference)} is not from this project and cannot run as "
            f"a process; {_USE_CONTAINERS}"
        )
    words = list(operator.container.command)
    if len(words) == 3 and words[0] in _SHELLS and words[1] == "-c":
        if _NEEDS_SHELL.search(words[2]):
            raise _error(operator, f"its command needs a shell: {shown(words[2])}")
        try:
            words = shlex.split(words[2])
        except ValueError as error:
            raise _error(operator, f"its command cannot be read ({error}): {shown(words[2])}") from None
    if not words:
        return [name], dict(_DEFAULTS)
    python, *rest = words
    if rest[:1] == ["-u"]:
        rest = rest[1:]
    if python not in _PYTHONS or rest[:1] != ["/app/main.py"]:
        raise _error(operator, f"its command is not `python -u /app/main.py ...`: {shown(shlex.join(words))}")
    return _without_folders(rest[1:])


def _without_folders(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    others: list[str] = []
    folders = dict(_DEFAULTS)
    rest = iter(words)
    for word in rest:
        option, equals, value = word.partition("=")
        if option in folders:
            folders[option] = value if equals else next(rest, "")
        else:
            others.append(word)
    return others, folders


def _same(path: str | None, other: str) -> bool:
    return path is not None and PurePosixPath(path) == PurePosixPath(other)


def _error(operator: Operator, reason: str) -> UsageError:
    return UsageError(f"{operator.name}: cannot run as a process: {reason}; {_USE_CONTAINERS}")
