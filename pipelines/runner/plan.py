"""What a run does, before anything is done: the command of each operator, its folders and its environment.

`plan` touches no file, so the same pipeline in the same folders always gives the same plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language.model import Operator, Pipeline
from nuclei_segmentation.pipelines.project import shipped_models
from nuclei_segmentation.pipelines.runner import sizing_tool_commands
from nuclei_segmentation.pipelines.runner.container_commands import ContainerCommands, uses_arrays, writes_arrays
from nuclei_segmentation.pipelines.runner.operator_environment import (
    PRIVATE,
    check_variables,
    run_variables,
    server_variables,
)
from nuclei_segmentation.pipelines.runner.options import Options
from nuclei_segmentation.pipelines.runner.process_commands import process_step
from nuclei_segmentation.pipelines.runner.shell import quoted
from nuclei_segmentation.pipelines.runner.step import PORT, Service, Step
from nuclei_segmentation.pipelines.triton_service import with_triton_service
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.settings.environment import TRITON


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run does.

    Attributes
    ----------
    name : str
        Name of the pipeline.
    run : str
        The run's id, for `NUCLEI_RUN_ID` and the names of containers. The same pipeline in the same folders has the
        same id.
    steps : tuple of Step
        One for each operator, in an order in which they can run.
    results : tuple of tuple of str
        Folders that hold the result, each with the folder to which its contents go.
    services : tuple of Service
        Servers that must answer before their operators start.
    remarks : tuple of str
        What the user should know, one line each.
    pod : bool
        Whether all steps start at once.
    shared : str
        The folder that all containers see as /dev/shm; '' for none.
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
        """The command lines, quoted for bash: services first, then operators."""
        lines = [*(service.line for service in self.services), *(step.line for step in self.steps)]
        return tuple(map(quoted, lines))

    @property
    def hash(self) -> str:
        """A hash that equal plans share."""
        services, steps = [asdict(service) for service in self.services], [asdict(step) for step in self.steps]
        return _digest([self.run, self.results, services, steps])


def plan(pipeline: Pipeline, options: Options) -> Plan:
    """Return what a run of a pipeline does.

    Parameters
    ----------
    pipeline : Pipeline
        The pipeline, with a value for each parameter.
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
        raise UsageError("--triton-image needs --engine podman or docker, without --compat")
    if options.user is not None and (options.engine == "process" or options.compat):
        raise UsageError("--user needs --engine podman or docker, without --compat")
    if options.compat:
        if options.engine != "docker":
            raise UsageError("--compat cpost gives command lines of docker: add --engine docker")
        steps = tuple(sizing_tool_commands.operator_step(operator, folders) for operator in pipeline.operators)
        services = sizing_tool_commands.triton_services(pipeline, options.models)
        return Plan(pipeline.name, run, steps, results, services)
    planned = _processes if options.engine == "process" else _containers
    return replace(planned(pipeline, options, folders, run), results=results)


def _processes(pipeline: Pipeline, options: Options, folders: Folders, run: str) -> Plan:
    remarks, steps, users = [], [], []
    repository = options.models or shipped_models()
    given: dict[str, dict[str, str]] = {}
    for operator in pipeline.operators:
        servers, wanted = server_variables(operator, options.environment)
        if wanted and not servers and options.tritonserver and repository:
            servers = dict.fromkeys((wanted, TRITON[0]), f"127.0.0.1:{PORT}")
            users.append(operator.name)
        elif wanted and not servers:
            remarks.append(
                f"{operator.name}: runs inference by itself: {wanted} (host:port of a Triton server) is not set, and "
                "tritonserver is not installed on this machine"
            )
        given[operator.name] = servers
    check_variables(pipeline, given, processes=True)
    for operator in pipeline.operators:
        shares = uses_arrays(operator) and options.memory is not None
        fixed = run_variables(run, pod=options.pod, shared_memory=shares)
        variables = {**fixed, **operator.variables, **given[operator.name]}
        unset = [name for name in PRIVATE if name not in variables]
        step = process_step(operator, folders, options.config or folders.config, variables, unset)
        steps.append(replace(step, volatile=shares and writes_arrays(operator)))
    services: tuple[Service, ...] = ()
    if users:
        remarks.append(f"{', '.join(users)}: served by {options.tritonserver}, with the models in {repository}")
        line = (options.tritonserver, f"--model-repository={repository}", "--http-address=127.0.0.1",
                f"--http-port={PORT}", "--allow-grpc=false", "--allow-metrics=false")  # fmt: skip
        services = (Service("tritonserver", line, tuple(users)),)
    return Plan(pipeline.name, run, tuple(steps), (), services, tuple(remarks), options.pod)


def _containers(pipeline: Pipeline, options: Options, folders: Folders, run: str) -> Plan:
    remarks: list[str] = []
    if options.triton_image:
        pipeline = with_triton_service(pipeline, options.triton_image)
    sharing = any(uses_arrays(operator) or operator.services for operator in pipeline.operators)
    shared = str(options.memory / f"nuclei-job-{run}" / "shm") if options.memory is not None and sharing else ""
    commands = ContainerCommands(
        options.engine, run, options.container_user, folders, options.config, options.models or shipped_models(),
        shared, options.cores, options.gpus, options.caller[0] == 0,
    )  # fmt: skip
    if not options.caller[0] and options.user is None:
        user = "{}:{}".format(*options.container_user)
        remarks.append(f"containers run as {user}, not as root; --user names another user")
    given: dict[str, dict[str, str]] = {}
    networks: dict[str, str] = {}
    for operator in pipeline.operators:
        servers: dict[str, str] = {}
        network = "none"
        if operator.services:
            network = commands.network(pipeline)
            servers = {
                connection.name: f"localhost:{connection.port}"
                for service in operator.services
                for connection in service.connections
                if connection.port
            }
        elif operator.models:
            servers, wanted = server_variables(operator, options.environment)
            network = "" if servers else "none"
            if not servers:
                remarks.append(
                    f"{operator.name}: gets no Triton server: add --triton-image, or set {wanted} (host:port)"
                )
            else:
                remarks.append(f"{operator.name}: gets a network, for the server at {servers[TRITON[0]]}")
        given[operator.name], networks[operator.name] = servers, network
        remarks += _remarks(operator, options)
    check_variables(pipeline, given, processes=False)
    steps = []
    for operator in pipeline.operators:
        shares = bool(shared) and uses_arrays(operator)
        fixed = run_variables(run, pod=options.pod, shared_memory=shares)
        variables = {**fixed, **operator.variables, **given[operator.name]}
        network = networks[operator.name]
        steps.append(commands.step(operator, variables, network, shares=shares or bool(operator.services)))
    services = commands.services(pipeline)
    return Plan(pipeline.name, run, tuple(steps), (), services, tuple(remarks), options.pod, shared)


def _remarks(operator: Operator, options: Options) -> list[str]:
    """Return what a container does not get, although its operator asks for it."""
    remarks = [
        f"{operator.name}: gets no folder of service {service.name} as {connection.name}: its contents are not "
        "publicly documented"
        for service in operator.services
        for connection in service.connections
        if connection.kind == "volume"
    ]
    if operator.requests.cpu_millis > 1000 * options.cores and "cpu" in operator.requests.given:
        cores = f"{options.cores} core" + ("" if options.cores == 1 else "s")
        remarks.append(f"{operator.name}: requests more cores than this machine has; it gets {cores}")
    return remarks


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:  # noqa: ANN401 - anything that dataclasses consist of
    """Return a value for JSON, without `places`: where a text stands in its file makes no difference."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key != "places"}
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value
