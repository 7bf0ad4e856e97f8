"""What a run does, before anything is done: the command of each operator, its folders and its environment.

`plan` touches no file, so the same pipeline in the same folders always gives the same plan.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipelines import cpost, local
from pipelines.boxes import Boxes
from pipelines.jobfolder import Folders
from pipelines.model import Operator, Pipeline
from pipelines.step import Service, Step
from shared.errors import UsageError

Engine = Literal["process", "podman", "docker"]
ENGINES: tuple[Engine, ...] = ("process", "podman", "docker")

TRITON_HTTP = ("NVIDIA_TRITON_HTTPURI", "CLARA_TRITON_URI", "NVIDIA_CLARA_TRTISURI")
"""Under which names an operator that lists `models` finds Triton's HTTP address."""
TRITON_GRPC = "NVIDIA_TRITON_GRPCURI"
TRITON = (*TRITON_HTTP, TRITON_GRPC)


@dataclass(frozen=True, slots=True)
class Options:
    """How a pipeline is to be run.

    Attributes
    ----------
    payload
        The folder that the pipeline is given.
    output
        Where the result goes; the job's folder lies in it.
    engine
        What runs the operators.
    compat
        The command lines of NVIDIA's sizing tool.
    config
        Folder with config.yaml for the operators, if any.
    models
        Folder with the models of Triton servers, if any.
    user
        Who the containers run as: user and group.
    environment
        Of the caller; servers' addresses are taken from it.
    """

    payload: Path
    output: Path
    engine: Engine = "process"
    compat: bool = False
    config: Path | None = None
    models: Path | None = None
    user: tuple[int, int] = (1000, 1000)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run.

    Attributes
    ----------
    name
        Of the pipeline.
    run
        Names this run: for `NUCLEI_RUN_ID` and the names of containers. The same for the same pipeline and folders.
    steps
        One for each operator, in the order in which they can run.
    results
        Folders that hold the result, and where their contents go.
    services
        That must answer before their operators start.
    remarks
        What the user should know, a line each.
    """

    name: str
    run: str
    steps: tuple[Step, ...]
    results: tuple[tuple[str, str], ...] = ()
    services: tuple[Service, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        """The command lines, quoted for a shell: services, then operators."""
        return (*(quoted(one.line) for one in self.services), *(quoted(one.line) for one in self.steps))

    @property
    def hash(self) -> str:
        """The same for the same plan."""
        return _digest(
            [self.run, self.results, [asdict(one) for one in self.services], [asdict(one) for one in self.steps]]
        )


def plan(pipeline: Pipeline, options: Options) -> Plan:
    """Return what a run of a pipeline does.

    Parameters
    ----------
    pipeline
        With every value in place.
    options
        How to run it.

    Raises
    ------
    UsageError
        The engine cannot run this pipeline; the message says why.
    """
    folders = Folders(options.payload, options.output)
    for path in (options.payload, options.output, options.config, options.models):
        if path is not None and not path.is_absolute():
            raise UsageError(f"{path} is not an absolute path")
    run = _digest([asdict(pipeline), str(options.payload), str(options.output)])[:12]
    results = folders.results(pipeline)
    if options.compat:
        if options.engine != "docker":
            raise UsageError("--compat cpost gives command lines of docker: add --engine docker")
        steps = tuple(cpost.step(one, folders) for one in pipeline.operators)
        return Plan(pipeline.name, run, steps, results, cpost.services(pipeline, options.models))
    remarks: list[str] = []
    if options.engine == "process":
        steps = _processes(pipeline, options, folders, run, remarks)
        return Plan(pipeline.name, run, steps, results, (), tuple(remarks))
    boxes = Boxes(options.engine, run, options.user, folders, options.config, options.models)
    steps = _containers(pipeline, options, boxes, remarks)
    return Plan(pipeline.name, run, steps, results, boxes.services(pipeline), tuple(remarks))


def _processes(
    pipeline: Pipeline, options: Options, folders: Folders, run: str, remarks: list[str]
) -> tuple[Step, ...]:
    steps = []
    for one in pipeline.operators:
        servers, wanted = _given(one, options.environment)
        if wanted and not servers:
            remarks.append(f"{one.name}: infers by itself, since {wanted} (host:port of a Triton server) is not set")
        values = {**_always(run), **servers, **one.variables}
        absent = [name for name in TRITON if name not in values]
        steps.append(local.step(one, folders, options.config or folders.config, values, absent))
    return tuple(steps)


def _containers(pipeline: Pipeline, options: Options, boxes: Boxes, remarks: list[str]) -> tuple[Step, ...]:
    steps = []
    for one in pipeline.operators:
        servers: dict[str, str] = {}
        network = "none"
        if one.services:
            network = boxes.network(pipeline)
            servers = {it.name: f"localhost:{it.port}" for at in one.services for it in at.connections if it.port}
        elif one.models:
            servers, wanted = _given(one, options.environment)
            network = "" if servers else "none"
            if not servers:
                remarks.append(f"{one.name}: is given no Triton server, since {wanted} is not set in the environment")
        steps.append(boxes.step(one, {**_always(boxes.run), **servers, **one.variables}, network))
    return tuple(steps)


def _always(run: str) -> dict[str, str]:
    return {"NVIDIA_CLARA_NOSYNCLOCK": "TRUE", "NUCLEI_RUN_ID": run}


def _given(operator: Operator, environment: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """Return the addresses of an operator's servers that the caller's environment has, and the name it looked for."""
    found: dict[str, str] = {}
    wanted = ""
    for service in operator.services:
        for one in service.connections:
            if one.kind != "http":
                continue
            wanted = wanted or one.name
            if environment.get(one.name, "").strip():
                found[one.name] = environment[one.name].strip()
    if operator.models:
        wanted = wanted or TRITON_HTTP[-1]
        address = next((environment[name].strip() for name in TRITON_HTTP if environment.get(name, "").strip()), "")
        if address:
            found.update(dict.fromkeys(TRITON_HTTP, address))
            if environment.get(TRITON_GRPC, "").strip():
                found[TRITON_GRPC] = environment[TRITON_GRPC].strip()
    return found, wanted


def quoted(line: Sequence[str]) -> str:
    """Return a command as one line for bash."""
    return " ".join(shlex.quote(word) if word.isprintable() else _escaped(word) for word in line)


def _escaped(word: str) -> str:
    text = word.encode("unicode_escape").decode("ascii").replace("'", "\\'")
    return f"$'{text}'"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:  # noqa: ANN401 - anything that dataclasses are made of
    """Return a value as JSON has it, without places: where a text stands in its file does not count."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items() if key != "places"}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value
