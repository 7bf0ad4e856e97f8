"""The command lines of NVIDIA's sizing tool, word for word, so that what runs under it runs here.

Source: NVIDIA/clara-pipeline-operator-sizing-tool, `build_operator_cmd` and `start_triton`; a test compares them with
what the tool executes. The tool knows the address of a Triton server only once it runs; `TRITON_IP` stands for it. Two
things are not the tool's: the order of operators, where the pipeline leaves a choice, and that of several models, which
there changes from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language import model
from nuclei_segmentation.pipelines.language.model import Container, Operator, Pipeline
from nuclei_segmentation.pipelines.runner.step import Service, Step
from nuclei_segmentation.pipelines.variables import DATA, TRITON_GRPC, TRITON_HTTP
from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK

ADDRESS = "TRITON_IP"
TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:20.07-v1-py3"

_START = ("docker", "run", "--gpus=1", "--rm", "-d", "-p8000:8000", "-p8001:8001", "-p8002:8002")


def step(operator: Operator, folders: Folders, address: str = ADDRESS) -> Step:
    """Return the tool's line of an operator.

    Raises
    ------
    UsageError
        The tool would break off at it.
    """
    if None in {one.path for one in operator.inputs} | {one.path for one in operator.outputs}:
        raise UsageError(
            f"{operator.name}: NVIDIA's tool knows no shared memory; it takes inputs and outputs with paths"
        )
    values = dict(operator.variables)
    for one in operator.services:
        if _is_triton(one):
            values = {name: f"{address}:{port}" for name, port in _connections(one).items()} | values
    line = ["docker", "run", "-d", "--rm", "--env", f"{NO_SYNC_LOCK}=1"]
    if operator.models:
        for name in TRITON_HTTP:
            line += ["--env", f"{name}={address}:8000"]
        line += ["--env", f"{TRITON_GRPC}={address}:8001"]
    for name, value in values.items():
        line += ["--env", f"{name}={value}"]
    for at, read in folders.reads(operator):
        line += ["-v", f"{at}:{read.path}"]
    makes = [str(folders.written(operator.name, ""))]
    for at, written in folders.writes(operator):
        line += ["-v", f"{at}:{written.path}"]
        makes.append(str(at))
    line += [operator.container.reference, *operator.container.command]
    return Step(operator.name, operator.upstream, tuple(line), tuple(dict.fromkeys(makes)), detached=True)


def services(pipeline: Pipeline, models: Path | None) -> tuple[Service, ...]:
    """Return the tool's lines of Triton servers, in the order in which they are started.

    Raises
    ------
    UsageError
        The tool would refuse the pipeline or break off at it; or a server would find no models.
    """
    names = list(dict.fromkeys(one.name for operator in pipeline.operators for one in operator.models))
    if names and pipeline.services:
        raise UsageError("NVIDIA's tool takes no pipeline that has both models and services")
    started = tuple(_started(pipeline))
    if models is None and (names or started):
        raise UsageError("--models DIR is missing: the pipeline uses a Triton server")
    if names:
        command = ["tritonserver", "--model-repository=/models", "--model-control-mode=explicit"]
        loads = [f"--load-model={name}" for name in names]
        return (Service("triton", (*_START, "-v", f"{models}:/models", TRITON_IMAGE, *command, *loads)),)
    return tuple(
        Service(
            one.name,
            (
                *_START,
                "-v",
                f"{models}:/models",
                one.container.reference,
                *(word.replace(DATA, "") for word in one.container.command),
            ),
        )
        for one in started
    )


def _started(pipeline: Pipeline) -> Iterator[model.Service]:
    """Yield what the tool starts: one server at a time, which stays until another service is wanted."""
    running: Container | None = None
    for operator in pipeline.operators:
        for one in operator.services:
            _connections(one)
            if not one.container.command:
                raise UsageError(f"service {one.name}: NVIDIA's tool takes no service without a command")
            if one.identity == running:
                continue
            running = one.identity if _is_triton(one) else None
            if running is not None:
                yield one


def _connections(service: model.Service) -> dict[str, int]:
    """Return the ports of a service, by the names of its connections."""
    http = {one.name: one.port for one in service.connections if one.kind == "http"}
    ports = {name: port for name, port in http.items() if port is not None}
    if not http or len(ports) < len(http):
        raise UsageError(
            f"service {service.name}: NVIDIA's tool takes only services with http connections and their ports"
        )
    return ports


def _is_triton(service: model.Service) -> bool:
    return "trtis" in service.name or "triton" in service.name
