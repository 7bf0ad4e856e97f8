"""Engines `podman` and `docker`: each operator is a container that may do no more than its definition asks for.

The images and the commands may be a stranger's. So no container, operator or service, has a capability, gains a
privilege, writes to anything but its outputs and a few folders in memory, or makes any number of processes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language import model
from nuclei_segmentation.pipelines.language.findings import shown
from nuclei_segmentation.pipelines.language.model import Operator, Pipeline, Requests
from nuclei_segmentation.pipelines.runner.step import Service, Step
from nuclei_segmentation.shared.clara.sizing_tool import SERVICE_DATA, without_service_data
from nuclei_segmentation.shared.errors import UsageError

_CONFINED = (
    "--cap-drop", "all",
    "--security-opt", "no-new-privileges",
    "--pids-limit", "2048",  # a worker is a thread, which counts, and a server has hundreds
    "--read-only",
    "--tmpfs", "/tmp:rw,nosuid,nodev,mode=1777,size=1g",  # noqa: S108 - in the container, where it is empty
    "--tmpfs", "/var/tmp:rw,nosuid,nodev,mode=1777,size=1g",  # noqa: S108 - the same
)  # fmt: skip
"""Podman makes some folders writable under ``--read-only``, Docker none; so those for all users are stated."""

_OPERATOR_LIMITS = ("cpu", "memory")
"""Operators have Clara's defaults where the definition states no limit. A server would hardly start with those."""


@dataclass(frozen=True, slots=True)
class ContainerCommands:
    """Makes the command lines of one run.

    Services have no network but their own loopback device. An operator that uses a service joins its network and finds
    it at ``localhost``; all services of a pipeline share one network. Services also share memory with their users, so
    that pixels need not pass through the network.

    Attributes
    ----------
    engine : str
        podman or docker.
    run : str
        The run's id, which becomes part of the names of containers.
    user : tuple of int
        User and group that all containers run as.
    folders : Folders
        The folders of the run.
    config : pathlib.Path or None
        Mounted at /config, if given.
    models : pathlib.Path or None
        Mounted at /models of services, if given.
    shared : str
        The folder that containers see as /dev/shm if they share memory; '' for none.
    cores : int
        Cores of this machine; no container gets more.
    gpus : bool
        Whether containers get the GPUs that they request.
    root : bool
        Whether the caller is root.
    """

    engine: str
    run: str
    user: tuple[int, int]
    folders: Folders
    config: Path | None = None
    models: Path | None = None
    shared: str = ""
    cores: int = 1024
    gpus: bool = True
    root: bool = False

    def step(self, operator: Operator, variables: Mapping[str, str], network: str, *, shares: bool = False) -> Step:
        """Return the step that runs an operator.

        Parameters
        ----------
        operator : Operator
            What to run.
        variables : Mapping of str to str
            Its whole environment.
        network : str
            The network that it joins; '' for the engine's default.
        shares : bool, optional
            Whether it shares memory with other containers.
        """
        name = self._name(operator.name)
        line = [self.engine, "run", "--rm", "--name", name]
        line += ["--network", network] if network else []
        line += self._limits(operator.requests, _OPERATOR_LIMITS)
        line += [*_CONFINED, *self._as_user()]
        line += _environment(variables)
        for folder, item in self.folders.reads(operator):
            line += ["-v", self._mount(folder, item.path, ":ro")]
        if self.config is not None:
            line += ["-v", self._mount(self.config, "/config", ":ro")]
        makes = []
        for folder, output in self.folders.writes(operator):
            line += ["-v", self._mount(folder, output.path, "")]
            makes.append(str(folder))
        line += self._shared_memory() if shares else ()
        line += [operator.container.reference, *operator.container.command]
        return Step(
            operator.name,
            operator.upstream,
            tuple(line),
            tuple(makes),
            container=name,
            owner=self.user,
            volatile=writes_arrays(operator),
        )

    def services(self, pipeline: Pipeline) -> tuple[Service, ...]:
        """Return the services of a pipeline.

        Raises
        ------
        UsageError
            Two of them listen at the same port, or one needs a folder with models and there is none.
        """
        taken: dict[int, str] = {}
        for service in pipeline.services:
            for port in _ports(service):
                if taken.setdefault(port, service.name) != service.name:
                    raise UsageError(f"services {taken[port]} and {service.name} both listen at port {port}")
        return tuple(self._service(pipeline, service) for service in pipeline.services)

    def _service(self, pipeline: Pipeline, service: model.Service) -> Service:
        name = self._name(service.name, "service")
        line = [self.engine, "run", "--rm", "--name", name]
        line += ["--network", self.network(pipeline, first=service is pipeline.services[0])]
        line += self._limits(service.requests, service.requests.given)
        line += [*_CONFINED, *self._as_user()]
        line += _environment(service.variables)
        if self.models is not None:
            line += ["-v", self._mount(self.models, "/models", ":ro")]
        elif any(SERVICE_DATA in word for word in service.container.command):
            raise UsageError(f"service {service.name} needs a folder with models: add --models DIR")
        line += self._shared_memory()
        line += [service.container.reference, *map(without_service_data, service.container.command)]
        users = [
            operator.name
            for operator in pipeline.operators
            if any(used.identity == service.identity for used in operator.services)
        ]
        return Service(service.name, tuple(line), tuple(users), _ports(service), name)

    def network(self, pipeline: Pipeline, *, first: bool = False) -> str:
        """Return the network of services and their users.

        Parameters
        ----------
        pipeline : Pipeline
            A pipeline with services.
        first : bool, optional
            Whether this is for the service that starts first, whose network the others join.
        """
        return "none" if first else f"container:{self._name(pipeline.services[0].name, 'service')}"

    def _name(self, name: str, kind: str = "operator") -> str:
        return f"nuclei-{self.run}-{kind}-{name}"

    def _as_user(self) -> Iterator[str]:
        yield from ("--user", "{}:{}".format(*self.user))
        if self.engine == "podman" and self.user[0] and not self.root:
            yield from ("--userns", "keep-id")  # else another user of this machine would own what it writes

    def _limits(self, requests: Requests, limited: Collection[str]) -> Iterator[str]:
        if "cpu" in limited:
            yield from ("--cpus", f"{min(requests.cpu_millis / 1000, self.cores):g}")
        if "memory" in limited:
            yield from ("--memory", str(requests.memory_bytes))
        if requests.gpu and self.gpus:
            yield from ("--gpus", str(requests.gpu)) if self.engine == "docker" else ("--device", "nvidia.com/gpu=all")

    def _shared_memory(self) -> tuple[str, ...]:
        return ("-v", f"{self.shared}:/dev/shm") if self.shared else ()

    def _mount(self, folder: Path, path: str | None, mode: str) -> str:
        if ":" in str(folder):
            raise UsageError(f"{shown(str(folder))}: a folder with ':' in its path cannot be mounted into a container")
        return f"{folder}:{path}{mode}"


def writes_arrays(operator: Operator) -> bool:
    """Return whether an operator writes to shared memory."""
    return any(item.path is None for item in operator.outputs)


def uses_arrays(operator: Operator) -> bool:
    """Return whether an operator writes to shared memory or reads from it."""
    return writes_arrays(operator) or any(item.path is None for item in operator.inputs)


def _environment(variables: Mapping[str, str]) -> list[str]:
    return [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]


def _ports(service: model.Service) -> tuple[int, ...]:
    return tuple(sorted({connection.port for connection in service.connections if connection.port is not None}))
