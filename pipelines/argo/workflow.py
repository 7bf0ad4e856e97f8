"""A pipeline as a Workflow of Argo, version 4.

An untyped pipeline becomes a DAG: each operator a pod, each service a daemon pod that answers before its operators
start. A typed one becomes one pod with a container for each operator, since its arrays pass through memory that they
share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nuclei_segmentation.pipelines.argo import pods
from nuclei_segmentation.pipelines.argo.cluster import Cluster
from nuclei_segmentation.pipelines.argo.expressions import filled, refuse, tag
from nuclei_segmentation.pipelines.argo.keep import ExportedParameters, parts
from nuclei_segmentation.pipelines.argo.labels import Labels, label
from nuclei_segmentation.pipelines.argo.pods import RUN, Object
from nuclei_segmentation.pipelines.language.model import Operator, Pipeline, Service
from nuclei_segmentation.pipelines.runner.local import own
from nuclei_segmentation.pipelines.variables import TRITON_HTTP
from nuclei_segmentation.shared.errors import UsageError, retryable
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK, RUN_ID, SHARD, STORE_SHM

ENTRY = "pipeline"
TRIES, PAUSE, FACTOR = "3", "10", "2"
"""How often a step is tried again, seconds before the first time, and how these grow."""
TRITON_MEMORY = "1Gi"
"""Shared memory of a Triton server: what NVIDIA's own examples give it."""


def workflow(kept: ExportedParameters, cluster: Cluster) -> Object:
    """Return the document.

    Parameters
    ----------
    kept : ExportedParameters
        The pipeline, and its parameters.
    cluster : Cluster
        That runs it.

    Raises
    ------
    DefinitionError
        A text of the definition would be an expression of Argo's.
    UsageError
        A value would be one, or an option names an operator that there is not.
    """
    refuse(kept)
    known = {one.name.lower() for one in parts(kept.pipeline)}
    for name in sorted(cluster.unrestricted - known):
        raise UsageError(f"--unrestricted {name}: there is no such operator or service")
    made: Object = filled(_Writer(kept, cluster).document(), kept.marks)
    return made


def remarks(pipeline: Pipeline, cluster: Cluster) -> Iterator[str]:
    """Yield what the user should know, a line each."""
    for one in parts(pipeline):
        if not pods.command(one):
            yield (
                f"{one.name}: has no command, so Argo asks the registry for that of {one.container.reference}, and "
                "must be able to reach it; better say it in the definition"
            )
        known = own(one) or (isinstance(one, Service) and pods.ready(one))
        if not known and cluster.restricts(one):
            yield (
                f"{one.name}: {one.container.reference} is not of this project; it runs as user {cluster.user}, its "
                f"root read-only; if it cannot, add --unrestricted {one.name}"
            )
    for operator in pipeline.operators:
        if operator.models and not operator.services and not cluster.triton:
            yield f"{operator.name}: is given no Triton server, since there is neither --triton nor --triton-image"


class _Writer:
    """Writes one document.

    Parameters
    ----------
    kept, cluster : ExportedParameters, Cluster
        See `workflow`.
    """

    def __init__(self, kept: ExportedParameters, cluster: Cluster) -> None:
        self._kept, self._cluster, self._pipeline = kept, cluster, kept.pipeline
        names = Labels(ENTRY)
        self._services = {one.identity: names.new(one.name) for one in self._pipeline.services}
        self._operators = {one.name: names.new(one.name) for one in self._pipeline.operators}
        self._pod = names.new("operators")
        self._ours: dict[str, str] = {}
        operators = self._pipeline.operators
        if any(item.source is None and item.path for one in operators for item in one.inputs):
            self._ours["payload"] = ""
        if any(one.models and not one.services for one in operators):
            self._ours["triton"] = cluster.triton
        self._sharded = {one.name for one in operators if _divisible(one, self._pipeline)}
        if self._sharded:
            self._ours["shards"] = str(cluster.shards)
        self._mounts = pods.Mounts(self._pipeline, self._parameter("payload"))

    def document(self) -> Object:
        """Return all of it."""
        pipeline = self._pipeline
        values = {self._free(name): value for name, value in self._ours.items()} | dict(self._kept.values)
        listed = [{"name": name} | ({} if value is None else {"value": value}) for name, value in values.items()]
        secrets = [{"name": name} for name in pipeline.pull_secrets]
        steps = [self._together()] if pipeline.typed else [self._step(one) for one in pipeline.operators]
        templates = [self._entry(), *(self._daemon(one) for one in pipeline.services), *steps]
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": f"{label(pipeline.name)}-"},
            "spec": {
                "entrypoint": ENTRY,
                **_if({"arguments": _if({"parameters": listed})}),
                **_if({"imagePullSecrets": secrets}),
                "securityContext": self._cluster.pod(),
                **_if({"volumes": self._cluster.volumes(set(_mounted(templates)))}),
                "templates": templates,
            },
        }

    def _entry(self) -> Object:
        tasks: list[Object] = [{"name": name, "template": name} for name in self._services.values()]
        if self._pipeline.typed:
            tasks.append(self._task(self._pod, self._services.values(), ()))
        for one in self._pipeline.operators if not self._pipeline.typed else ():
            upstream = [self._operators[name] for name in one.upstream]
            task = self._task(self._operators[one.name], self._used(one), upstream, sharded=one.name in self._sharded)
            tasks.append(task)
        return {"name": ENTRY, "dag": {"tasks": tasks}}

    def _task(self, name: str, services: Iterable[str], upstream: Iterable[str], *, sharded: bool = False) -> Object:
        given = {_address(one): tag(f"tasks.{one}.ip") for one in services}
        given |= {"shard": tag("item")} if sharded else {}
        arguments = [{"name": one, "value": value} for one, value in given.items()]
        return {
            "name": name,
            "template": name,
            **_if({"dependencies": [*services, *upstream]}),
            **_if({"arguments": _if({"parameters": arguments})}),
            **({"withSequence": {"count": self._parameter("shards")}} if sharded else {}),
        }

    def _daemon(self, one: Service) -> Object:
        memory = [pods.SHARED_MOUNT] if pods.ready(one) else []
        return {
            "name": self._services[one.identity],
            **self._context([one]),
            **_if({"volumes": [pods.shared(TRITON_MEMORY)] if memory else []}),
            "daemon": True,
            "container": {
                **self._image(one),
                **_if({"env": pods.environment(one.variables)}),
                "resources": pods.resources(one.requests, one.requests.given),
                **pods.probe(one),
                "securityContext": self._cluster.container(one),
                **_if({"volumeMounts": self._cluster.mounts(one, memory)}),
            },
        }

    def _step(self, one: Operator) -> Object:
        shard = ["shard"] if one.name in self._sharded else []
        return {
            "name": self._operators[one.name],
            **_inputs([*map(_address, self._used(one)), *shard]),
            **self._context([one]),
            "retryStrategy": _retry(bool(own(one))),
            "container": self._container(one, pooled=False),
        }

    def _together(self) -> Object:
        """Return the pod of a typed pipeline. Its containers run in turn, whether or not they could wait themselves."""
        operators = self._pipeline.operators
        size = sum(one.requests.memory_bytes for one in operators if any(out.path is None for out in one.outputs))
        containers = []
        for one in operators:
            made = self._container(one, pooled=True)
            upstream = [self._operators[name] for name in one.upstream]
            containers.append({"name": self._operators[one.name], **made, **_if({"dependencies": upstream})})
        return {
            "name": self._pod,
            **_inputs(map(_address, self._services.values())),
            **self._context(operators),
            "volumes": [pods.shared(pods.quantity(size))],
            "retryStrategy": _retry(any(own(one) for one in operators)),
            "containerSet": {"containers": containers},
        }

    def _container(self, one: Operator, *, pooled: bool) -> Object:
        given = {NO_SYNC_LOCK: "TRUE", RUN_ID: RUN}
        if pooled and own(one):
            given[STORE_SHM] = "TRUE"
        if one.name in self._sharded:
            given[SHARD] = f"{tag('inputs.parameters.shard')}/{self._parameter('shards')}"
        if one.models and not one.services:
            given |= dict.fromkeys(TRITON_HTTP, self._parameter("triton"))
        for service in one.services:
            host = tag(f"inputs.parameters.{_address(self._services[service.identity])}")
            given |= {at.name: f"{host}:{at.port}" for at in service.connections if at.port is not None}
            given |= {at.name: at.path for at in service.connections if at.path is not None}
        mounts = [*self._mounts.of(one), *([pods.SHARED_MOUNT] if pooled else [])]
        restricted = all(map(self._cluster.restricts, self._pipeline.operators)) or not pooled
        return {
            **self._image(one),
            "env": pods.environment({**given, **one.variables}),
            "resources": pods.resources(one.requests),
            "securityContext": self._cluster.container(one, in_restricted_pod=restricted),
            "volumeMounts": self._cluster.mounts(one, mounts),
        }

    def _image(self, one: Operator | Service) -> Object:
        return {
            "image": self._cluster.image(one.container),
            "imagePullPolicy": "IfNotPresent",
            **_if({"command": pods.command(one)}),
        }

    def _context(self, containers: Iterable[Operator | Service]) -> Object:
        """Return a pod's own security context, where it cannot have that of all."""
        restricted = all(map(self._cluster.restricts, containers))
        return {} if restricted else {"securityContext": self._cluster.pod(restricted=False)}

    def _used(self, one: Operator) -> list[str]:
        return list(dict.fromkeys(self._services[service.identity] for service in one.services))

    def _parameter(self, name: str) -> str:
        return tag(f"workflow.parameters.{self._free(name)}")

    def _free(self, name: str) -> str:
        """Return the name of a parameter of ours; the definition's own have theirs first."""
        taken = {one.name for one in self._pipeline.parameters}
        while name in taken:
            name = f"workflow-{name}"
        return name


def _divisible(one: Operator, pipeline: Pipeline) -> bool:
    """Whether an operator is our filter in a pod of its own, and all who read what it writes can read its shards."""
    readers = [at for at in pipeline.operators if one.name in at.upstream]
    return not pipeline.typed and own(one) == "filter" and all(own(at) == "stitch" for at in readers)


def _retry(ours: bool) -> Object:
    """Return when a step is tried again: if its pod was lost, or, of this project, if its exit code says so."""
    codes = f" || asInt(lastRetry.exitCode) in {list(retryable())}" if ours else ""
    return {
        "limit": TRIES,
        "retryPolicy": "Always",
        "expression": f"lastRetry.status == 'Error'{codes}",
        "backoff": {"duration": PAUSE, "factor": FACTOR},
    }


def _inputs(names: Iterable[str]) -> Object:
    return _if({"inputs": _if({"parameters": [{"name": name} for name in names]})})


def _address(service: str) -> str:
    return f"{service}-ip"


def _mounted(templates: Iterable[Object]) -> Iterator[str]:
    """Yield the volumes that templates mount."""
    for template in templates:
        for container in (template.get("container", {}), *template.get("containerSet", {}).get("containers", ())):
            yield from (mount["name"] for mount in container.get("volumeMounts", ()))


def _if(value: Object) -> Object:
    """Return what is not empty."""
    return {name: one for name, one in value.items() if one}
