"""The command lines of NVIDIA's sizing tool, so that an operator that runs under it runs here.

shared/clara/sizing_tool.py has the commands themselves. Two things differ from the tool: the order of operators, where
the pipeline leaves a choice, and the order of several models, which the tool changes from run to run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language import model
from nuclei_segmentation.pipelines.language.model import Container, Operator, Pipeline
from nuclei_segmentation.pipelines.runner.step import Service, Step
from nuclei_segmentation.shared.clara.sizing_tool import (
    TRITON_ADDRESS,
    TRITON_IMAGE,
    is_triton,
    operator_command,
    serve_models,
    triton_command,
    triton_variables,
)
from nuclei_segmentation.shared.errors import UsageError


def operator_step(operator: Operator, folders: Folders, address: str = TRITON_ADDRESS) -> Step:
    """Return the step that runs an operator with the tool's command.

    Parameters
    ----------
    operator : Operator
        What to run.
    folders : Folders
        The folders of the run.
    address : str, optional
        The address of the Triton server, without a port.

    Raises
    ------
    UsageError
        The tool would fail on this operator.
    """
    paths = [*(item.path for item in operator.inputs), *(item.path for item in operator.outputs)]
    if None in paths:
        raise UsageError(
            f"{operator.name}: NVIDIA's tool does not support shared memory; give all inputs and outputs a `path`"
        )
    variables = dict(operator.variables)
    for service in operator.services:
        if is_triton(service.name):
            variables = {name: f"{address}:{port}" for name, port in _connections(service).items()} | variables
    models = triton_variables(address) if operator.models else {}
    mounts = [(folder, item.path or "") for folder, item in folders.reads(operator)]
    writes = list(folders.writes(operator))
    line = operator_command(
        operator.container.reference,
        operator.container.command,
        (*models.items(), *variables.items()),
        [*mounts, *((folder, item.path or "") for folder, item in writes)],
    )
    makes = dict.fromkeys([str(folders.written(operator.name, "")), *(str(folder) for folder, _ in writes)])
    return Step(operator.name, operator.upstream, line, tuple(makes), detached=True)


def triton_services(pipeline: Pipeline, models: Path | None) -> tuple[Service, ...]:
    """Return the Triton servers that the tool starts, in its order.

    Parameters
    ----------
    pipeline : Pipeline
        The pipeline.
    models : pathlib.Path or None
        The folder with the models, if there is one.

    Raises
    ------
    UsageError
        The tool would refuse the pipeline or fail on it, or a server needs a folder with models.
    """
    names = list(dict.fromkeys(one.name for operator in pipeline.operators for one in operator.models))
    if names and pipeline.services:
        raise UsageError("NVIDIA's tool refuses a pipeline that has both models and services")
    started = tuple(_started(pipeline))
    if not names and not started:
        return ()
    if models is None:
        raise UsageError("the pipeline uses a Triton server: add --models DIR")
    if names:
        return (Service("triton", triton_command(models, TRITON_IMAGE, serve_models(names))),)
    return tuple(
        Service(service.name, triton_command(models, service.container.reference, service.container.command))
        for service in started
    )


def _started(pipeline: Pipeline) -> Iterator[model.Service]:
    """Yield the servers that the tool starts: one at a time, which stays until an operator needs another service."""
    running: Container | None = None
    for operator in pipeline.operators:
        for service in operator.services:
            _connections(service)
            if not service.container.command:
                raise UsageError(f"service {service.name}: NVIDIA's tool requires a `command` for each service")
            if service.identity == running:
                continue
            running = service.identity if is_triton(service.name) else None
            if running is not None:
                yield service


def _connections(service: model.Service) -> dict[str, int]:
    """Return the ports of a service by the names of its connections."""
    http = {one.name: one.port for one in service.connections if one.kind == "http"}
    ports = {name: port for name, port in http.items() if port is not None}
    if not http or len(ports) < len(http):
        raise UsageError(f"service {service.name}: NVIDIA's tool requires http connections with ports for each service")
    return ports
