"""Engines `podman` and `docker`: each operator a container that may do no more than its definition asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipelines import model
from pipelines.findings import shown
from pipelines.jobfolder import Folders
from pipelines.model import Operator, Pipeline, Requests
from pipelines.step import Service, Step
from shared.errors import UsageError

_DATA = "$(NVIDIA_CLARA_SERVICE_DATA_PATH)"


@dataclass(frozen=True, slots=True)
class Boxes:
    """Makes the command lines of one run.

    Services have no network but their own loopback device. Who uses one is put into the same network, and finds it at
    ``localhost``; all services of a pipeline share one.

    Attributes
    ----------
    engine
        podman or docker.
    run
        Becomes part of containers' names.
    user
        And group that operators run as.
    folders
        Of the run.
    config
        Mounted at /config, if given.
    models
        Mounted at /models of services, if given.
    """

    engine: str
    run: str
    user: tuple[int, int]
    folders: Folders
    config: Path | None = None
    models: Path | None = None

    def step(self, operator: Operator, variables: Mapping[str, str], network: str) -> Step:
        """Return the line of an operator.

        Parameters
        ----------
        operator
            What to run.
        variables
            All of its environment.
        network
            What it is joined to; '' for the engine's own.
        """
        line = [self.engine, "run", "--rm", "--name", self._name(operator.name)]
        line += ["--network", network] if network else []
        line += self._limits(operator.requests)
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
        line += [operator.container.reference, *operator.container.command]
        name = self._name(operator.name)
        return Step(operator.name, operator.upstream, tuple(line), tuple(makes), container=name)

    def services(self, pipeline: Pipeline) -> tuple[Service, ...]:
        """Return the lines that start the services of a pipeline.

        Raises
        ------
        UsageError
            Two of them listen at the same port.
        """
        taken: dict[int, str] = {}
        for one in pipeline.services:
            for port in {it.port for it in one.connections if it.port is not None}:
                if taken.setdefault(port, one.name) != one.name:
                    raise UsageError(f"services {taken[port]} and {one.name} both listen at port {port}")
        return tuple(self._service(pipeline, one) for one in pipeline.services)

    def _service(self, pipeline: Pipeline, one: model.Service) -> Service:
        line = [self.engine, "run", "-d", "--rm", "--name", self._name(one.name, "service")]
        line += ["--network", self.network(pipeline, first=one is pipeline.services[0])]
        line += self._limits(one.requests)
        line += [word for name, value in one.variables.items() for word in ("--env", f"{name}={value}")]
        if self.models is not None:
            line += ["-v", self._mount(self.models, "/models", ":ro")]
        line += [one.container.reference, *(word.replace(_DATA, "") for word in one.container.command)]
        return Service(one.name, tuple(line))

    def network(self, pipeline: Pipeline, *, first: bool = False) -> str:
        """Return the network of those that use services, or of the service that is started first."""
        return "none" if first else f"container:{self._name(pipeline.services[0].name, 'service')}"

    def _name(self, name: str, kind: str = "operator") -> str:
        return f"nuclei-{self.run}-{kind}-{name}"

    def _limits(self, requests: Requests) -> Iterator[str]:
        cores = f"{requests.cpu_millis / 1000:g}"
        yield from ("--cpus", cores, "--memory", str(requests.memory_bytes))
        if requests.gpu:
            yield from ("--gpus", str(requests.gpu)) if self.engine == "docker" else ("--device", "nvidia.com/gpu=all")

    def _mount(self, at: Path, path: str | None, mode: str) -> str:
        if ":" in str(at):
            raise UsageError(f"{shown(str(at))}: a folder with ':' in its path cannot be mounted into a container")
        return f"{at}:{path}{mode}"
