"""The command ``run``: plans a run, prints it or does it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language.findings import DefinitionError, harmless
from nuclei_segmentation.pipelines.language.reader import Definition
from nuclei_segmentation.pipelines.runner.execute import RunOptions, execute
from nuclei_segmentation.pipelines.runner.plan import Engine, Options, Plan, plan
from nuclei_segmentation.pipelines.runner.schedule import Limits
from nuclei_segmentation.pipelines.runner.view import View
from nuclei_segmentation.shared.errors import NucleiError, UsageError

MEMORY = Path("/dev/shm")  # noqa: S108 - this is what shm_open(3) means, not a temporary file


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for.

    Attributes
    ----------
    file : pathlib.Path
        The definition.
    payload, output, engine, compat, config, models : pathlib.Path, Engine, bool
        See `pipelines.runner.plan.Options`.
    values : Mapping of str to str
        Of parameters.
    dry : bool
        Only print the commands.
    lenient : bool
        Unknown names in the definition are warnings.
    pod, gpus, triton_image : bool, bool, str
        See `pipelines.runner.plan.Options`.
    limits, service_wait : Limits, float
        See `pipelines.runner.execute.RunOptions`.
    """

    file: Path
    payload: Path
    output: Path
    values: Mapping[str, str]
    engine: Engine
    compat: bool
    config: Path | None
    models: Path | None
    dry: bool
    lenient: bool
    pod: bool
    gpus: bool
    triton_image: str
    limits: Limits
    service_wait: float

    @classmethod
    def of(cls, given: argparse.Namespace) -> Self:
        """Return what a command line asks for."""
        return cls(
            given.file, given.input, given.output, dict(given.values), given.engine, given.compat == "cpost",
            given.config, given.models, given.dry_run, given.lenient, given.pod, not given.no_gpu, given.triton_image,
            Limits(given.time_limit, given.operator_time_limit), given.service_wait,
        )  # fmt: skip

    def options(self) -> Options:
        """Return what the plan needs."""
        return Options(
            self.payload, self.output, self.engine, self.compat, self.config, self.models,
            (os.getuid(), os.getgid()), os.environ, self.pod, MEMORY if MEMORY.is_dir() else None,
            os.cpu_count() or 1, self.gpus, shutil.which("tritonserver") or "", self.triton_image,
        )  # fmt: skip


def run(request: Request) -> int:
    """Run a pipeline, or print what that would be, and return the exit code."""
    try:
        pipeline = Definition(request.file, request.lenient).resolve(request.values)
        made = plan(pipeline, request.options())
        if request.dry:
            for line in made.lines:
                print(line)  # noqa: T201 - the command's result
            return 0
        return _run(request, made)
    except DefinitionError as error:
        for finding in error.findings:
            say(str(finding))
        return error.exit_code
    except NucleiError as error:
        say(str(error))
        return error.exit_code


def say(text: str) -> None:
    """Tell the user something, on the standard error."""
    print(harmless(text), file=sys.stderr, flush=True)  # noqa: T201 - the command's progress


def _run(request: Request, made: Plan) -> int:
    if request.compat and made.services:
        raise UsageError("--compat cpost only prints the command lines of a pipeline with a server: add --dry-run")
    if request.compat and (request.pod or request.config):
        raise UsageError("--compat cpost runs the lines of NVIDIA's tool as they are: no --pod, no --config")
    for option, folder in (("--config", request.config), ("--models", request.models)):
        if folder is not None and not os.path.isdir(folder):  # noqa: PTH112 - `Path.is_dir` raises if a name is too long
            raise UsageError(f"{option} {folder} is no folder")
    program = made.steps[0].line[0]
    if shutil.which(program) is None:
        raise UsageError(f"--engine {request.engine}: there is no {program} on this machine")
    view = View([one.name for one in made.steps], sys.stderr)
    ways = RunOptions(request.limits, request.service_wait)
    return execute(made, Folders(request.payload, request.output), request.config, view, ways)
