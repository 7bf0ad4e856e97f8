"""What Kubernetes is told of a container: image, limits, folders, variables, and what it may not do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language.model import MIB, Operator, Pipeline, Requests, Service
from nuclei_segmentation.pipelines.runner.local import own
from nuclei_segmentation.pipelines.variables import DATA

Object = dict[str, Any]
"""A part of a YAML document."""

RUN = "{{workflow.name}}"
"""Names a run: its folder in the work volume, and what operators are told."""
PAYLOAD, WORK, MODELS, CONFIG, TEMPORARY, SHARED = "payload", "work", "models", "config", "tmp", "shm"
"""Volumes."""

SHARED_MOUNT: Object = {"name": SHARED, "mountPath": "/dev/shm"}  # noqa: S108 - of a pod, where nobody else is


def command(one: Operator | Service) -> list[str]:
    """Return what a container runs; of an image of this project, what that runs by itself if nothing is said."""
    if not one.container.command and own(one):
        return ["/bin/bash", "-c", f"python -u /app/main.py {own(one)}"]
    return [word.replace(DATA, "") for word in one.container.command]


def resources(requests: Requests, limited: Iterable[str] = ("cpu", "memory", "gpu")) -> Object:
    """Return what a container is given, and what it may take at most.

    Parameters
    ----------
    requests : Requests
        Of the definition.
    limited : Iterable of str, optional
        What it may take no more of.
    """
    millis, memory = requests.cpu_millis, requests.memory_bytes
    wanted = {"cpu": str(millis // 1000) if millis % 1000 == 0 else f"{millis}m", "memory": quantity(memory)}
    most = {name: text for name, text in wanted.items() if name in limited}
    if requests.gpu:
        wanted["nvidia.com/gpu"] = most["nvidia.com/gpu"] = str(requests.gpu)
    return {"requests": wanted, **({"limits": most} if most else {})}


def quantity(size: int) -> str:
    """Return a number of bytes as Kubernetes writes it."""
    return f"{size // MIB}Mi" if size % MIB == 0 else str(size)


def shared(size: str) -> Object:
    """Return a volume in memory for a pod's /dev/shm."""
    return {"name": SHARED, "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def environment(given: Mapping[str, str]) -> list[Object]:
    """Return a container's variables."""
    return [{"name": name, "value": value.replace(DATA, "")} for name, value in given.items()]


def probe(service: Service) -> Object:
    """Return how to see that a service answers; nothing if it says no port."""
    port = next((one.port for one in service.connections if one.port is not None), None)
    if port is None:
        return {}
    path = ready(service)
    asks = {"httpGet": {"path": path, "port": port}} if path else {"tcpSocket": {"port": port}}
    return {"readinessProbe": {**asks, "periodSeconds": 2, "timeoutSeconds": 2, "failureThreshold": 3}}


def ready(service: Service) -> str:
    """Return the path at which a Triton server, of either protocol, says that it is ready; '' if it is none."""
    container = service.container
    name, program = container.image.rpartition("/")[2], (container.command or ("",))[0].rpartition("/")[2]
    if name == "tensorrtserver" or program == "trtserver" or ("triton" in name and "-v1" in container.tag):
        return "/api/health/ready"
    return "/v2/health/ready" if "triton" in name or program == "tritonserver" else ""


def place(path: str) -> str:
    """Return a folder of a container as Kubernetes wants it."""
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


class Mounts:
    """Which folder of which volume is where in which container.

    The work volume has a folder for each run. In it, ``data/OPERATOR[/OUTPUT]`` is what passes between operators, and
    ``result`` the result; of several, ``result/OPERATOR[/OUTPUT]``.

    Parameters
    ----------
    pipeline : Pipeline
        All of it.
    payload : str
        Where in its volume the payload lies.
    """

    def __init__(self, pipeline: Pipeline, payload: str) -> None:
        self._folders = Folders(Path("/payload"), Path("/result"))
        self._results = dict(self._folders.results(pipeline))
        self._payload = payload

    def of(self, operator: Operator) -> Iterator[Object]:
        """Yield the folders of an operator that the definition names."""
        for at, read in self._folders.reads(operator):
            yield self._mount(at, read.path or "", readOnly=True)
        for at, written in self._folders.writes(operator):
            yield self._mount(at, written.path or "")

    def _mount(self, at: Path, path: str, **more: bool) -> Object:
        if at == self._folders.payload:
            return {"name": PAYLOAD, "mountPath": place(path), "subPath": self._payload, **more}
        folder = self._results.get(str(at))
        inside = f"data/{at.relative_to(self._folders.data)}" if folder is None else folder.lstrip("/")
        return {"name": WORK, "mountPath": place(path), "subPath": f"{RUN}/{inside}", **more}
