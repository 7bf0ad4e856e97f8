"""The command lines of NVIDIA's sizing tool, word for word, so that what runs under it runs here.

Source: NVIDIA/clara-pipeline-operator-sizing-tool, `build_operator_cmd` and `start_triton`. The tool knows the address
of a Triton server only once it runs; `TRITON_IP` stands for it.
"""

from __future__ import annotations

from pathlib import Path

from pipelines.jobfolder import Folders
from pipelines.model import Operator, Pipeline
from pipelines.step import Service, Step
from shared.errors import UsageError

ADDRESS = "TRITON_IP"
TRITON_IMAGE = "nvcr.io/nvidia/tritonserver:20.07-v1-py3"

_START = ("docker", "run", "--gpus=1", "--rm", "-d", "-p8000:8000", "-p8001:8001", "-p8002:8002")
_HTTP = ("NVIDIA_TRITON_HTTPURI", "CLARA_TRITON_URI", "NVIDIA_CLARA_TRTISURI")
_DATA = "$(NVIDIA_CLARA_SERVICE_DATA_PATH)"


def step(operator: Operator, folders: Folders, address: str = ADDRESS) -> Step:
    """Return the tool's line of an operator."""
    values: dict[str, str] = {}
    for service in operator.services:
        if _known(service.name):
            http = [one for one in service.connections if one.kind == "http"]
            values |= {one.name: f"{address}:{one.port}" for one in http}
    values |= operator.variables
    line = ["docker", "run", "-d", "--rm", "--env", "NVIDIA_CLARA_NOSYNCLOCK=1"]
    if operator.models:
        for name in _HTTP:
            line += ["--env", f"{name}={address}:8000"]
        line += ["--env", f"NVIDIA_TRITON_GRPCURI={address}:8001"]
    for name, value in values.items():
        line += ["--env", f"{name}={value}"]
    for at, read in folders.reads(operator):
        line += ["-v", f"{at}:{read.path}"]
    makes = [str(folders.written(operator.name, ""))]
    for at, written in folders.writes(operator):
        line += ["-v", f"{at}:{written.path}"]
        makes.append(str(at))
    line += [operator.container.reference, *operator.container.command]
    return Step(operator.name, operator.upstream, tuple(line), tuple(dict.fromkeys(makes)))


def services(pipeline: Pipeline, models: Path | None) -> tuple[Service, ...]:
    """Return the tool's lines of Triton servers.

    Raises
    ------
    UsageError
        The tool would refuse the pipeline.
    """
    names = list(dict.fromkeys(model.name for one in pipeline.operators for model in one.models))
    if names and pipeline.services:
        raise UsageError("NVIDIA's tool takes no pipeline that has both models and services")
    if models is None and (names or pipeline.services):
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
                *(word.replace(_DATA, "") for word in one.container.command),
            ),
        )
        for one in pipeline.services
        if _known(one.name)
    )


def _known(name: str) -> bool:
    return "trtis" in name or "triton" in name
