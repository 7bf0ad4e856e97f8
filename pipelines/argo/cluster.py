"""The cluster that a workflow is for: its volumes and registry, and what containers may do there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from nuclei_segmentation.pipelines.argo.pods import CONFIG, MODELS, PAYLOAD, SHARED, TEMPORARY, WORK, Object, mount_path
from nuclei_segmentation.pipelines.language.model import Container, Operator, Service
from nuclei_segmentation.pipelines.project import project_operator
from nuclei_segmentation.shared.clara.sizing_tool import SERVICE_DATA

MODELS_CLAIM = "nuclei-models"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster that a workflow is for.

    Attributes
    ----------
    payload : str
        Volume with the slides: the name of a claim, or an absolute path on the only node.
    work : str
        Volume for what operators write, likewise.
    models : str
        Volume with a Triton model repository, for services; '' for `MODELS_CLAIM` if a service needs one.
    config : str
        ConfigMap with config.yaml; '' for none.
    registry : str
        Put in front of images that name no registry; '' for none.
    triton : str
        Address of a Triton server, for operators that list `models`; '' for none.
    shards : int
        Into how many shards filter is divided, unless another number is given when the workflow is submitted.
    user : int
        User and group that containers run as.
    unrestricted : frozenset of str
        Operators and services, in lower case, whose containers run as their images want.
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
        """Return the name by which the cluster pulls an image."""
        first, slash, _ = container.image.partition("/")
        has_registry = slash and (first == "localhost" or "." in first or ":" in first)
        return container.reference if has_registry or not self.registry else f"{self.registry}/{container.reference}"

    def restricts(self, container: Operator | Service) -> bool:
        """Return whether a container runs as `user`, with a read-only root."""
        return container.name.lower() not in self.unrestricted

    def pod_context(self, *, restricted: bool = True) -> Object:
        """Return the security context of a pod.

        Parameters
        ----------
        restricted : bool, optional
            Whether its containers run as `user`. The group is set in any case: volumes that support groups become
            writable for it.
        """
        return {
            **(self._user() if restricted else {}),
            "fsGroup": self.user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }

    def container_context(self, container: Operator | Service, *, in_restricted_pod: bool = True) -> Object:
        """Return the security context of a container.

        Parameters
        ----------
        container : Operator or Service
            What the container runs.
        in_restricted_pod : bool, optional
            Whether the context of the pod states the user already.
        """
        if not self.restricts(container):
            return {"allowPrivilegeEscalation": False}
        return {
            **({} if in_restricted_pod else self._user()),
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }

    def _user(self) -> Object:
        return {"runAsNonRoot": True, "runAsUser": self.user, "runAsGroup": self.user}

    def mounts(self, container: Operator | Service, known: Iterable[Object] = ()) -> list[Object]:
        """Return all mounts of a container.

        Parameters
        ----------
        container : Operator or Service
            What the container runs.
        known : Iterable of dict, optional
            Mounts that come from the definition and the pod. They win over the cluster's at the same path.
        """
        mounts = {mount["mountPath"]: mount for mount in known}
        for mount in self._cluster_mounts(container):
            mounts.setdefault(mount["mountPath"], mount)
        return list(mounts.values())

    def _cluster_mounts(self, container: Operator | Service) -> Iterator[Object]:
        if isinstance(container, Service):
            texts = (*container.container.command, *container.variables.values())
            if self.models or any(SERVICE_DATA in text for text in texts):
                yield {"name": MODELS, "mountPath": "/models", "readOnly": True}
        elif project_operator(container) and self.config:
            yield {"name": CONFIG, "mountPath": "/config", "readOnly": True}
        for service in [container] if isinstance(container, Service) else container.services:
            for connection in service.connections:
                if connection.path is not None:
                    yield {"name": MODELS, "mountPath": mount_path(connection.path), "readOnly": True}
        if self.restricts(container):
            yield {"name": TEMPORARY, "mountPath": "/tmp"}  # noqa: S108 - in a container of its own

    def volumes(self, used: set[str]) -> list[Object]:
        """Return the volumes of a workflow; `used` are the names of those that its containers mount."""
        volumes: Object = {
            PAYLOAD: _volume(self.payload, readOnly=True),
            WORK: _volume(self.work),
            MODELS: _volume(self.models or MODELS_CLAIM, readOnly=True),
            CONFIG: {"configMap": {"name": self.config}},
            TEMPORARY: {"emptyDir": {}},
        }
        return [{"name": name, **source} for name, source in volumes.items() if name in used - {SHARED}]


def _volume(name: str, **options: bool) -> Object:
    """Return the source of a volume: a claim, or a folder of the node, which must exist.

    Of a claim that is read-only, Kubernetes leaves groups and permissions as they are. Of a folder, only the mounts say
    that it is.
    """
    if name.startswith("/"):
        return {"hostPath": {"path": name, "type": "Directory"}}
    return {"persistentVolumeClaim": {"claimName": name, **options}}
