"""What is known of the cluster that a workflow is for: its volumes and registry, and what containers may do there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nuclei_segmentation.pipelines.argo.pods import CONFIG, MODELS, PAYLOAD, SHARED, TEMPORARY, WORK, Object, place
from nuclei_segmentation.pipelines.language.model import Container, Operator, Service
from nuclei_segmentation.pipelines.runner.local import own
from nuclei_segmentation.pipelines.variables import DATA

MODELS_CLAIM = "nuclei-models"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is known of a cluster.

    Attributes
    ----------
    payload, work : str
        Volumes: the slides, and what operators write. The name of a claim, or an absolute path on the only node.
    models : str
        Volume with a Triton model repository, for services; '' for `MODELS_CLAIM` where one needs it.
    config : str
        ConfigMap with config.yaml; '' for none.
    registry : str
        Put before images that name none.
    triton : str
        Address of a Triton server, for operators that list `models`; '' for none.
    shards : int
        Into how many filter is divided, unless the workflow is told otherwise.
    user : int
        And group that containers run as.
    unrestricted : frozenset of str
        Operators and services, in lower case, that run as their images want.
    """

    payload: str = "nuclei-payload"
    work: str = "nuclei-work"
    models: str = ""
    config: str = ""
    registry: str = ""
    triton: str = ""
    shards: int = 2
    user: int = 1000
    unrestricted: frozenset[str] = field(default_factory=frozenset)

    def image(self, container: Container) -> str:
        """Return the name that the cluster pulls an image by."""
        first, slash, _ = container.image.partition("/")
        named = slash and (first == "localhost" or "." in first or ":" in first)
        return container.reference if named or not self.registry else f"{self.registry}/{container.reference}"

    def restricts(self, one: Operator | Service) -> bool:
        """Whether a container runs as somebody who may nothing."""
        return one.name.lower() not in self.unrestricted

    def pod(self, *, restricted: bool = True) -> Object:
        """Return a pod's security context. The group is for volumes that know of groups: it may write to them."""
        return {
            **(self._somebody() if restricted else {}),
            "fsGroup": self.user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }

    def container(self, one: Operator | Service, *, in_restricted_pod: bool = True) -> Object:
        """Return a container's security context.

        Parameters
        ----------
        one : Operator or Service
            What it runs.
        in_restricted_pod : bool, optional
            Whether the pod's own context says who it runs as.
        """
        if not self.restricts(one):
            return {"allowPrivilegeEscalation": False}
        return {
            **({} if in_restricted_pod else self._somebody()),
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }

    def _somebody(self) -> Object:
        return {"runAsNonRoot": True, "runAsUser": self.user, "runAsGroup": self.user}

    def mounts(self, one: Operator | Service, known: Iterable[Object] = ()) -> list[Object]:
        """Return all folders of a container.

        Parameters
        ----------
        one : Operator or Service
            What it runs.
        known : Iterable of Object, optional
            Those that the definition and the pod give it.
        """
        found = {mount["mountPath"]: mount for mount in known}
        for mount in self._more(one):
            found.setdefault(mount["mountPath"], mount)
        return list(found.values())

    def _more(self, one: Operator | Service) -> Iterator[Object]:
        if isinstance(one, Service):
            texts = (*one.container.command, *one.variables.values())
            if self.models or any(DATA in text for text in texts):
                yield {"name": MODELS, "mountPath": "/models", "readOnly": True}
        elif own(one) and self.config:
            yield {"name": CONFIG, "mountPath": "/config", "readOnly": True}
        for service in [one] if isinstance(one, Service) else one.services:
            for connection in service.connections:
                if connection.path is not None:
                    yield {"name": MODELS, "mountPath": place(connection.path), "readOnly": True}
        if self.restricts(one):
            yield {"name": TEMPORARY, "mountPath": "/tmp"}  # noqa: S108 - of a container, where nobody else is

    def volumes(self, used: set[str]) -> list[Object]:
        """Return the volumes of those names that pods do not bring themselves."""
        known: Object = {
            PAYLOAD: _volume(self.payload, readOnly=True),
            WORK: _volume(self.work),
            MODELS: _volume(self.models or MODELS_CLAIM, readOnly=True),
            CONFIG: {"configMap": {"name": self.config}},
            TEMPORARY: {"emptyDir": {}},
        }
        return [{"name": name, **source} for name, source in known.items() if name in used - {SHARED}]


def _volume(name: str, **more: bool) -> Object:
    """Return a claim. Of one that is only read, Kubernetes also leaves groups and permissions of files as they are.

    A path is a folder of the node that must be there; mounts say whether it is only read.
    """
    if name.startswith("/"):
        return {"hostPath": {"path": name, "type": "Directory"}}
    return {"persistentVolumeClaim": {"claimName": name, **more}}
