"""Parts of a pod: commands, limits, folders, variables and probes of its containers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language.model import MIB, Operator, Pipeline, Requests, Service
from nuclei_segmentation.pipelines.project import project_operator
from nuclei_segmentation.shared.clara.sizing_tool import without_service_data

Object = dict[str, Any]
"""A part of a YAML document."""

RUN = "{{workflow.name}}"
"""The run's id: its folder in the work volume has this name, and operators get it as `NUCLEI_RUN_ID`."""
PAYLOAD, WORK, MODELS, CONFIG, TEMPORARY, SHARED = "payload", "work", "models", "config", "tmp", "shm"
"""Names of volumes."""

SHARED_MOUNT: Object = {"name": SHARED, "mountPath": "/dev/shm"}  # noqa: S108 - in a pod of its own


def command(container: Operator | Service) -> list[str]:
    """Return the command of an operator or service; an image of this project has one even if none is stated."""
    if not container.container.command and (name := project_operator(container)):
        return ["/bin/bash", "-c", f"python -u /app/main.py {name}"]
    return [without_service_data(word) for word in container.container.command]


def resources(requests: Requests, limited: Collection[str] = ("cpu", "memory")) -> Object:
    """Return the requests and limits of a container.

    Parameters
    ----------
    requests : Requests
        The requests of the definition.
    limited : Collection of str, optional
        Which of ``cpu`` and ``memory`` are limits too. GPUs always are.
    """
    millis, memory = requests.cpu_millis, requests.memory_bytes
    requested = {"cpu": str(millis // 1000) if millis % 1000 == 0 else f"{millis}m", "memory": quantity(memory)}
    limits = {name: amount for name, amount in requested.items() if name in limited}
    if requests.gpu:
        requested["nvidia.com/gpu"] = limits["nvidia.com/gpu"] = str(requests.gpu)
    return {"requests": requested, **({"limits": limits} if limits else {})}


def quantity(size: int) -> str:
    """Return a number of bytes as Kubernetes writes it."""
    return f"{size // MIB}Mi" if size % MIB == 0 else str(size)


def shared_memory_volume(size: str) -> Object:
    """Return a volume in memory for the /dev/shm of a pod; `size` is a quantity of Kubernetes."""
    return {"name": SHARED, "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def environment(variables: Mapping[str, str]) -> list[Object]:
    """Return the variables of a container as Kubernetes lists them."""
    return [{"name": name, "value": without_service_data(value)} for name, value in variables.items()]


def readiness_probe(service: Service) -> Object:
    """Return the field that says how Kubernetes finds out that a service answers; empty if it states no port."""
    port = next((connection.port for connection in service.connections if connection.port is not None), None)
    if port is None:
        return {}
    path = health_path(service)
    probe = {"httpGet": {"path": path, "port": port}} if path else {"tcpSocket": {"port": port}}
    return {"readinessProbe": {**probe, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 3}}


def health_path(service: Service) -> str:
    """Return the URL path at which a Triton server of either protocol reports that it is ready; '' for others."""
    container = service.container
    name, program = container.image.rpartition("/")[2], (container.command or ("",))[0].rpartition("/")[2]
    if name == "tensorrtserver" or program == "trtserver" or ("triton" in name and "-v1" in container.tag):
        return "/api/health/ready"
    return "/v2/health/ready" if "triton" in name or program == "tritonserver" else ""


def mount_path(path: str) -> str:
    """Return a path in a container in the form that Kubernetes expects."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


class Mounts:
    """The folders of volumes that operators see.

    The work volume has a folder for each run. In it, ``data/OPERATOR[/OUTPUT]`` is for what passes between operators,
    and ``result`` is for the result; several results are in ``result/OPERATOR[/OUTPUT]``.

    Parameters
    ----------
    pipeline : Pipeline
        The pipeline.
    payload : str
        Folder of the payload in its volume.
    """

    def __init__(self, pipeline: Pipeline, payload: str) -> None:
        self._folders = Folders(Path("/payload"), Path("/result"))
        self._results = dict(self._folders.results(pipeline))
        self._payload = payload

    def of(self, operator: Operator) -> Iterator[Object]:
        """Yield the mounts for the inputs and outputs of an operator."""
        for folder, item in self._folders.reads(operator):
            yield self._mount(folder, item.path or "", readOnly=True)
        for folder, output in self._folders.writes(operator):
            yield self._mount(folder, output.path or "")

    def _mount(self, folder: Path, path: str, **options: bool) -> Object:
        if folder == self._folders.payload:
            return {"name": PAYLOAD, "mountPath": mount_path(path), "subPath": self._payload, **options}
        result = self._results.get(str(folder))
        inside = f"data/{folder.relative_to(self._folders.data)}" if result is None else result.lstrip("/")
        return {"name": WORK, "mountPath": mount_path(path), "subPath": f"{RUN}/{inside}", **options}
