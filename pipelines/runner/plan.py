"""What a run does, before anything is done: the command of each operator, its folders and its environment.

`plan` touches no file, so the same pipeline in the same folders always gives the same plan.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language import model
from nuclei_segmentation.pipelines.language.model import Connection, Container, Operator, Pipeline, Requests
from nuclei_segmentation.pipelines.language.names import bad_image, bad_tag
from nuclei_segmentation.pipelines.runner import cpost, local
from nuclei_segmentation.pipelines.runner.container_commands import ContainerCommands, uses_arrays, writes_arrays
from nuclei_segmentation.pipelines.runner.step import PORT, Service, Step
from nuclei_segmentation.pipelines.variables import DATA, OURS, TRITON, TRITON_GRPC, TRITON_HTTP
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK, RUN_ID, STORE_SHM
from nuclei_segmentation.shared.settings.environment import TRITON as TRITON_SERVERS

Engine = Literal["process", "podman", "docker"]
ENGINES: tuple[Engine, ...] = ("process", "podman", "docker")


@dataclass(frozen=True, slots=True)
class Options:
    """How a pipeline is to be run.

    Attributes
    ----------
    payload : pathlib.Path
        The folder that the pipeline is given.
    output : pathlib.Path
        Where the result goes; the job's folder lies in it.
    engine : Engine
        What runs the operators.
    compat : bool
        The command lines of NVIDIA's sizing tool.
    config : pathlib.Path or None
        Folder with config.yaml for the operators, if any.
    models : pathlib.Path or None
        Folder with the models of Triton servers, if any.
    user : tuple of int
        Who the containers run as: user and group.
    environment : Mapping of str to str
        Of the caller; servers' addresses are taken from it.
    pod : bool
        All operators start at once and wait for one another by themselves, as in Clara's pod.
    memory : pathlib.Path or None
        Folder of shared memory on this machine, if it has one.
    cores : int
        Of this machine.
    gpus : bool
        Whether containers get the GPUs that they ask for.
    tritonserver : str
        The program, if this machine has it.
    triton_image : str
        Image of a Triton server for operators that list `models`, if any.
    """

    payload: Path
    output: Path
    engine: Engine = "process"
    compat: bool = False
    config: Path | None = None
    models: Path | None = None
    user: tuple[int, int] = (1000, 1000)
    environment: Mapping[str, str] = field(default_factory=dict)
    pod: bool = False
    memory: Path | None = None
    cores: int = 1024
    gpus: bool = True
    tritonserver: str = ""
    triton_image: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole run.

    Attributes
    ----------
    name : str
        Of the pipeline.
    run : str
        Names this run: for `NUCLEI_RUN_ID` and the names of containers. The same for the same pipeline and folders.
    steps : tuple of Step
        One for each operator, in the order in which they can run.
    results : tuple of tuple of str
        Folders that hold the result, and where their contents go.
    services : tuple of Service
        That must answer before their operators start.
    remarks : tuple of str
        What the user should know, a line each.
    pod : bool
        Whether all steps start at once.
    shared : str
        Folder that containers have in common at /dev/shm; '' if there is none.
    """

    name: str
    run: str
    steps: tuple[Step, ...]
    results: tuple[tuple[str, str], ...] = ()
    services: tuple[Service, ...] = ()
    remarks: tuple[str, ...] = ()
    pod: bool = False
    shared: str = ""

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
    pipeline : Pipeline
        With every value in place.
    options : Options
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
    if options.triton_image and (options.engine == "process" or options.compat):
        raise UsageError("--triton-image is for --engine podman or docker, without --compat")
    if options.compat:
        if options.engine != "docker":
            raise UsageError("--compat cpost gives command lines of docker: add --engine docker")
        steps = tuple(cpost.step(one, folders) for one in pipeline.operators)
        return Plan(pipeline.name, run, steps, results, cpost.services(pipeline, options.models))
    if options.engine == "process":
        return replace(_processes(pipeline, options, folders, run), results=results)
    return replace(_containers(pipeline, options, folders, run), results=results)


def _processes(pipeline: Pipeline, options: Options, folders: Folders, run: str) -> Plan:
    remarks, steps, users = [], [], []
    repository = options.models or local.models()
    for one in pipeline.operators:
        servers, wanted = _given(one, options.environment)
        if wanted and not servers and options.tritonserver and repository:
            servers = dict.fromkeys((wanted, TRITON_SERVERS[0]), f"127.0.0.1:{PORT}")
            users.append(one.name)
        elif wanted and not servers:
            remarks.append(
                f"{one.name}: infers by itself, since {wanted} (host:port of a Triton server) is not set, and there is "
                "no tritonserver on this machine"
            )
        shares = uses_arrays(one) and options.memory is not None
        values = {**_always(run, options, shares), **servers, **one.variables}
        absent = [name for name in (*TRITON, *OURS) if name not in values]
        made = local.step(one, folders, options.config or folders.config, values, absent)
        steps.append(replace(made, volatile=shares and writes_arrays(one)))
    services: tuple[Service, ...] = ()
    if users:
        remarks.append(f"{', '.join(users)}: served by {options.tritonserver}, with the models in {repository}")
        line = (options.tritonserver, f"--model-repository={repository}", "--http-address=127.0.0.1",
                f"--http-port={PORT}", "--allow-grpc=false", "--allow-metrics=false")  # fmt: skip
        services = (Service("tritonserver", line, tuple(users)),)
    return Plan(pipeline.name, run, tuple(steps), (), services, tuple(remarks), options.pod)


def _containers(pipeline: Pipeline, options: Options, folders: Folders, run: str) -> Plan:
    remarks = []
    if options.triton_image:
        pipeline = served(pipeline, options.triton_image)
    sharing = options.memory is not None and any(uses_arrays(one) or one.services for one in pipeline.operators)
    shared = str(options.memory / f"nuclei-job-{run}" / "shm") if options.memory is not None and sharing else ""
    boxes = ContainerCommands(
        options.engine, run, options.user, folders, options.config, options.models or local.models(), shared,
        options.cores, options.gpus,
    )  # fmt: skip
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
                remarks.append(
                    f"{one.name}: is given no Triton server, since neither --triton-image nor {wanted} is set"
                )
        remarks += [
            f"{one.name}: is given no folder of service {at.name} as {it.name}: what it would hold is not public"
            for at in one.services
            for it in at.connections
            if it.kind == "volume"
        ]
        if one.requests.cpu_millis > 1000 * options.cores and "cpu" in one.requests.given:
            remarks.append(f"{one.name}: asks for more cores than this machine has; it is given {options.cores}")
        shares = bool(shared) and uses_arrays(one)
        values = {**_always(run, options, shares), **servers, **one.variables}
        steps.append(boxes.step(one, values, network, shares=shares or bool(one.services)))
    services = boxes.services(pipeline)
    return Plan(pipeline.name, run, tuple(steps), (), services, tuple(remarks), options.pod, shared)


def served(pipeline: Pipeline, image: str) -> Pipeline:
    """Return a pipeline in which a Triton server of its own serves the operators that list `models`.

    Raises
    ------
    UsageError
        `image` is no name with a tag, or no operator lists models.
    """
    name, _, tag = image.rpartition(":")
    if bad_image(name) or bad_tag(tag):
        raise UsageError(f"--triton-image {image!r} is no image's NAME:TAG")
    names = list(dict.fromkeys(it.name for one in pipeline.operators for it in one.models))
    if not names:
        raise UsageError("--triton-image is for definitions whose operators list `models`; this one has none")
    command = ("tritonserver", f"--model-repository={DATA}/models", "--model-control-mode=explicit",
               *(f"--load-model={one}" for one in names))  # fmt: skip
    http = tuple(Connection("http", it, 8000) for it in TRITON_HTTP)
    grpc = Connection("http", TRITON_GRPC, 8001)
    triton = model.Service("triton", Container(name, tag, command), (*http, grpc), requests=Requests(gpu=1))
    operators = [replace(one, services=(*one.services, triton)) if one.models else one for one in pipeline.operators]
    return replace(pipeline, operators=tuple(operators))


def _always(run: str, options: Options, shares: bool) -> dict[str, str]:
    values = {} if options.pod else {NO_SYNC_LOCK: "TRUE"}
    values[RUN_ID] = run
    if shares:
        values[STORE_SHM] = "TRUE"
    return values


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
        wanted = wanted or TRITON_SERVERS[0]
        address = next((environment[name].strip() for name in TRITON_SERVERS if environment.get(name, "").strip()), "")
        if address:
            found.update(dict.fromkeys(TRITON_HTTP, address))
            if environment.get(TRITON_GRPC, "").strip():
                found[TRITON_GRPC] = environment[TRITON_GRPC].strip()
    return found, wanted


def quoted(line: Sequence[str]) -> str:
    """Return a command as one line for bash."""
    return " ".join(shlex.quote(word) if word.isprintable() else _escaped(word) for word in line)


def _escaped(word: str) -> str:
    """Return a word for bash. As bytes: in other forms of escapes, its letters would depend on the locale."""
    return "$'{}'".format("".join(
        f"\\x{one:02x}" if not 32 <= one < 127 or one in b"'\\" else chr(one) for one in os.fsencode(word)
    ))  # fmt: skip


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
