"""Engines `podman` and `docker`: each operator a container that may do no more than its definition asks for."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from nuclei_segmentation.pipelines.job_folder import Folders
from nuclei_segmentation.pipelines.language import model
from nuclei_segmentation.pipelines.language.findings import shown
from nuclei_segmentation.pipelines.language.model import Operator, Pipeline, Requests
from nuclei_segmentation.pipelines.runner.step import Service, Step
from nuclei_segmentation.pipelines.variables import DATA
from nuclei_segmentation.shared.errors import UsageError

_ALL = frozenset(("cpu", "memory"))
"""Operators have Clara's defaults where the definition states nothing; a server would hardly start with those."""


@dataclass(frozen=True, slots=True)
class ContainerCommands:
    """Makes the command lines of one run.

    Services have no network but their own loopback device. Who uses one is put into the same network, and finds it at
    ``localhost``; all services of a pipeline share one. They share memory with their users too, so that pixels need not
    pass through the network.

    Attributes
    ----------
    engine : str
        podman or docker.
    run : str
        Becomes part of containers' names.
    user : tuple of int
        And group that operators run as.
    folders : Folders
        Of the run.
    config : pathlib.Path or None
        Mounted at /config, if given.
    models : pathlib.Path or None
        Mounted at /models of services, if given.
    shared : str
        Takes the place of /dev/shm where containers share it; '' where they cannot.
    cores : int
        That this machine has: nobody is given more.
    gpus : bool
        Whether anybody is given some.
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

    def step(self, operator: Operator, variables: Mapping[str, str], network: str, *, shares: bool = False) -> Step:
        """Return the line of an operator.

        Parameters
        ----------
        operator : Operator
            What to run.
        variables : Mapping of str to str
            All of its environment.
        network : str
            What it is joined to; '' for the engine's own.
        shares : bool, optional
            Whether it shares memory with others.
        """
        line = [self.engine, "run", "--rm", "--name", self._name(operator.name)]
        line += ["--network", network] if network else []
        line += self._limits(operator.requests, _ALL)
        line += ["--user", "{}:{}".format(*self.user)]
        if self.engine == "podman" and self.user[0]:
            line += ["--userns", "keep-id"]  # else another user of this machine would own what it writes
        line += [word for name, value in variables.items() for word in ("--env", f"{name}={value}")]
        for at, read in self.folders.reads(operator):
            line += ["-v", self._mount(at, read.path, ":ro")]
        if self.config is not None:
            line += ["-v", self._mount(self.config, "/config", ":ro")]
        makes = []
        for at, written in self.folders.writes(operator):
            line += ["-v", self._mount(at, written.path, "")]
            makes.append(str(at))
        line += self._shares(shares)
        line += [operator.container.reference, *operator.container.command]
        name = self._name(operator.name)
        return Step(
            operator.name,
            operator.upstream,
            tuple(line),
            tuple(makes),
            container=name,
            volatile=writes_arrays(operator),
        )

    def services(self, pipeline: Pipeline) -> tuple[Service, ...]:
        """Return what starts the services of a pipeline.

        Raises
        ------
        UsageError
            Two of them listen at the same port.
        """
        taken: dict[int, str] = {}
        for one in pipeline.services:
            for port in _ports(one):
                if taken.setdefault(port, one.name) != one.name:
                    raise UsageError(f"services {taken[port]} and {one.name} both listen at port {port}")
        return tuple(self._service(pipeline, one) for one in pipeline.services)

    def _service(self, pipeline: Pipeline, one: model.Service) -> Service:
        name = self._name(one.name, "service")
        line = [self.engine, "run", "--rm", "--name", name]
        line += ["--network", self.network(pipeline, first=one is pipeline.services[0])]
        line += self._limits(one.requests, one.requests.given)
        line += [word for name, value in one.variables.items() for word in ("--env", f"{name}={value}")]
        if self.models is not None:
            line += ["-v", self._mount(self.models, "/models", ":ro")]
        elif any(DATA in word for word in one.container.command):
            raise UsageError(f"service {one.name} needs a folder with models: add --models DIR")
        line += self._shares(True)
        line += [one.container.reference, *(word.replace(DATA, "") for word in one.container.command)]
        users = [user.name for user in pipeline.operators if any(it.identity == one.identity for it in user.services)]
        return Service(one.name, tuple(line), tuple(users), _ports(one), name)

    def network(self, pipeline: Pipeline, *, first: bool = False) -> str:
        """Return the network of those that use services, or of the service that is started first."""
        return "none" if first else f"container:{self._name(pipeline.services[0].name, 'service')}"

    def _name(self, name: str, kind: str = "operator") -> str:
        return f"nuclei-{self.run}-{kind}-{name}"

    def _limits(self, requests: Requests, which: Container[str]) -> Iterator[str]:
        if "cpu" in which:
            yield from ("--cpus", f"{min(requests.cpu_millis / 1000, self.cores):g}")
        if "memory" in which:
            yield from ("--memory", str(requests.memory_bytes))
        if requests.gpu and self.gpus:
            yield from ("--gpus", str(requests.gpu)) if self.engine == "docker" else ("--device", "nvidia.com/gpu=all")

    def _shares(self, shares: bool) -> tuple[str, ...]:
        return ("-v", f"{self.shared}:/dev/shm") if shares and self.shared else ()

    def _mount(self, at: Path, path: str | None, mode: str) -> str:
        if ":" in str(at):
            raise UsageError(f"{shown(str(at))}: a folder with ':' in its path cannot be mounted into a container")
        return f"{at}:{path}{mode}"


def writes_arrays(operator: Operator) -> bool:
    """Return whether something that an operator makes passes through shared memory."""
    return any(one.path is None for one in operator.outputs)


def uses_arrays(operator: Operator) -> bool:
    """Return whether something that an operator makes or reads passes through shared memory."""
    return writes_arrays(operator) or any(one.path is None for one in operator.inputs)


def _ports(service: model.Service) -> tuple[int, ...]:
    return tuple(sorted({one.port for one in service.connections if one.port is not None}))
