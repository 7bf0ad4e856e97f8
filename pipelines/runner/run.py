"""The command ``run``: plans a run, and prints its commands or executes them."""

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
from nuclei_segmentation.pipelines.language.reader import Definition
from nuclei_segmentation.pipelines.messages import show_error
from nuclei_segmentation.pipelines.runner.execute import RunOptions, execute
from nuclei_segmentation.pipelines.runner.options import Options
from nuclei_segmentation.pipelines.runner.plan import Plan, plan
from nuclei_segmentation.pipelines.runner.schedule import Limits
from nuclei_segmentation.pipelines.runner.view import View
from nuclei_segmentation.shared.errors import NucleiError, UsageError

MEMORY = Path("/dev/shm")  # noqa: S108 - shared memory, not a temporary file


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for.

    Attributes
    ----------
    file : pathlib.Path
        The definition.
    lenient : bool
        Whether unknown names in the definition are warnings.
    values : Mapping of str to str
        Values of parameters.
    dry : bool
        Whether to print the commands only.
    options : Options
        What the plan depends on.
    run_options : RunOptions
        How the plan is executed.
    """

    file: Path
    lenient: bool
    values: Mapping[str, str]
    dry: bool
    options: Options
    run_options: RunOptions

    @classmethod
    def from_arguments(cls, parsed: argparse.Namespace) -> Self:
        """Return what a parsed command line asks for."""
        options = Options(
            payload=parsed.input,
            output=parsed.output,
            engine=parsed.engine,
            compat=parsed.compat == "cpost",
            config=parsed.config,
            models=parsed.models,
            user=parsed.user,
            caller=(os.getuid(), os.getgid()),
            environment=os.environ,
            pod=parsed.pod,
            memory=MEMORY if MEMORY.is_dir() else None,
            cores=os.cpu_count() or 1,
            gpus=not parsed.no_gpu,
            tritonserver=shutil.which("tritonserver") or "",
            triton_image=parsed.triton_image,
        )
        run_options = RunOptions(Limits(parsed.time_limit, parsed.operator_time_limit), parsed.service_wait)
        return cls(parsed.file, parsed.lenient, dict(parsed.values), parsed.dry_run, options, run_options)


def run(request: Request) -> int:
    """Run a pipeline, or print the commands, and return the exit code."""
    try:
        pipeline = Definition(request.file, request.lenient).resolve(request.values)
        planned = plan(pipeline, request.options)
        if request.dry:
            for line in planned.lines:
                print(line)  # noqa: T201 - the command's result
            return 0
        return _run(request, planned)
    except NucleiError as error:
        show_error(error)
        return error.exit_code


def _run(request: Request, planned: Plan) -> int:
    options = request.options
    if options.compat and planned.services:
        raise UsageError("--compat cpost can only print the command lines of a pipeline with a server: add --dry-run")
    if options.compat and (options.pod or options.config):
        raise UsageError("--compat cpost runs the commands of NVIDIA's tool unchanged: remove --pod and --config")
    for option, folder in (("--config", options.config), ("--models", options.models)):
        if folder is not None and not os.path.isdir(folder):  # noqa: PTH112 - `Path.is_dir` raises if a name is too long
            raise UsageError(f"{option} {folder} is not a folder")
    program = planned.steps[0].line[0]
    if shutil.which(program) is None:
        raise UsageError(f"--engine {options.engine}: {program} is not installed on this machine")
    view = View([step.name for step in planned.steps], sys.stderr)
    folders = Folders(options.payload, options.output)
    return execute(planned, folders, options.config, view, request.run_options)
