"""A pipeline as a Workflow of Argo, version 4.

An untyped pipeline becomes a DAG: each operator is a pod, and each service is a daemon pod that must answer before its
operators start. A typed pipeline becomes one pod with a container for each operator, since its arrays pass through
memory that the containers share.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from nuclei_segmentation.pipelines.argo import pods
from nuclei_segmentation.pipelines.argo.cluster import Cluster
from nuclei_segmentation.pipelines.argo.exported_parameters import ExportedParameters, operators_and_services
from nuclei_segmentation.pipelines.argo.expressions import (
    expression,
    parameter_expression,
    refuse_expressions,
    with_expressions,
)
from nuclei_segmentation.pipelines.argo.labels import Labels, label
from nuclei_segmentation.pipelines.argo.pods import RUN, Object
from nuclei_segmentation.pipelines.language.model import Operator, Pipeline, Service
from nuclei_segmentation.pipelines.project import project_operator
from nuclei_segmentation.shared.clara.sizing_tool import TRITON_HTTP_VARIABLES
from nuclei_segmentation.shared.errors import UsageError, retryable
from nuclei_segmentation.shared.settings.environment import NO_SYNC_LOCK, RUN_ID, SHARD, STORE_SHM

ENTRY = "pipeline"
RETRIES, PAUSE, FACTOR = "3", "10", "2"
"""How often a step is tried again, seconds before the first retry, and the factor by which they grow."""
TRITON_MEMORY = "1Gi"
"""Shared memory of a Triton server, as in NVIDIA's own examples."""


def workflow(exported: ExportedParameters, cluster: Cluster) -> Object:
    """Return the Workflow.

    Parameters
    ----------
    exported : ExportedParameters
        The pipeline and its parameters.
    cluster : Cluster
        The cluster that the workflow is for.

    Raises
    ------
    DefinitionError
        Argo would take a text of the definition for an expression.
    UsageError
        Argo would take a parameter's value for one, or an option names an operator that does not exist.
    """
    refuse_expressions(exported)
    known = {item.name.lower() for item in operators_and_services(exported.pipeline)}
    for name in sorted(cluster.unrestricted - known):
        raise UsageError(f"--unrestricted {name}: there is no such operator or service")
    document: Object = with_expressions(_Writer(exported, cluster).document(), exported.markers)
    return document


def remarks(pipeline: Pipeline, cluster: Cluster) -> Iterator[str]:
    """Yield what the user should know.

    Parameters
    ----------
    pipeline : Pipeline
        The pipeline.
    cluster : Cluster
        The cluster that the workflow is for.

    Yields
    ------
    str
        A line.
    """
    for item in operators_and_services(pipeline):
        if not pods.command(item):
            yield (
                f"{item.name}: has no command, so Argo must be able to ask the registry for that of "
                f"{item.container.reference}; better state it in the definition"
            )
        known = project_operator(item) or (isinstance(item, Service) and pods.health_path(item))
        if not known and cluster.restricts(item):
            yield (
                f"{item.name}: {item.container.reference} is not from this project; it runs as user {cluster.user} "
                f"with a read-only root; if it cannot, add --unrestricted {item.name}"
            )
    for operator in pipeline.operators:
        if operator.models and not operator.services and not cluster.triton:
            yield f"{operator.name}: gets no Triton server: add --triton or --triton-image"


class _Writer:
    """Writes the Workflow for an exported pipeline."""

    def __init__(self, exported: ExportedParameters, cluster: Cluster) -> None:
        self._exported, self._cluster, self._pipeline = exported, cluster, exported.pipeline
        labels = Labels(ENTRY)
        self._services = {service.identity: labels.new(service.name) for service in self._pipeline.services}
        self._operators = {operator.name: labels.new(operator.name) for operator in self._pipeline.operators}
        self._single_pod = labels.new("operators")
        self._parameters: dict[str, str] = {}
        """Parameters that the definition does not have, and their defaults."""
        operators = self._pipeline.operators
        if any(item.source is None and item.path for operator in operators for item in operator.inputs):
            self._parameters["payload"] = ""
        if any(operator.models and not operator.services for operator in operators):
            self._parameters["triton"] = cluster.triton
        self._sharded = {operator.name for operator in operators if _can_be_sharded(operator, self._pipeline)}
        if self._sharded:
            self._parameters["shards"] = str(cluster.shards)
        self._mounts = pods.Mounts(self._pipeline, self._parameter("payload"))

    def document(self) -> Object:
        """Return the whole document."""
        pipeline = self._pipeline
        own = {self._free_name(name): value for name, value in self._parameters.items()}
        parameters = [
            {"name": name} | ({} if value is None else {"value": value})
            for name, value in (own | dict(self._exported.values)).items()
        ]
        secrets = [{"name": name} for name in pipeline.pull_secrets]
        if pipeline.typed:
            steps = [self._single_pod_step()]
        else:
            steps = [self._step(operator) for operator in pipeline.operators]
        templates = [self._entry(), *(self._daemon(service) for service in pipeline.services), *steps]
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": f"{label(pipeline.name)}-"},
            "spec": {
                "entrypoint": ENTRY,
                **_non_empty({"arguments": _non_empty({"parameters": parameters})}),
                **_non_empty({"imagePullSecrets": secrets}),
                "securityContext": self._cluster.pod_context(),
                **_non_empty({"volumes": self._cluster.volumes(set(_mounted(templates)))}),
                "templates": templates,
            },
        }

    def _entry(self) -> Object:
        """Return the DAG."""
        tasks: list[Object] = [{"name": name, "template": name} for name in self._services.values()]
        if self._pipeline.typed:
            tasks.append(self._task(self._single_pod, self._services.values(), ()))
        for operator in self._pipeline.operators if not self._pipeline.typed else ():
            upstream = [self._operators[name] for name in operator.upstream]
            sharded = operator.name in self._sharded
            tasks.append(self._task(self._operators[operator.name], self._used(operator), upstream, sharded=sharded))
        return {"name": ENTRY, "dag": {"tasks": tasks}}

    def _task(self, name: str, services: Iterable[str], upstream: Iterable[str], *, sharded: bool = False) -> Object:
        values = {_address(service): expression(f"tasks.{service}.ip") for service in services}
        values |= {"shard": expression("item")} if sharded else {}
        arguments = [{"name": argument, "value": value} for argument, value in values.items()]
        return {
            "name": name,
            "template": name,
            **_non_empty({"dependencies": [*services, *upstream]}),
            **_non_empty({"arguments": _non_empty({"parameters": arguments})}),
            **({"withSequence": {"count": self._parameter("shards")}} if sharded else {}),
        }

    def _daemon(self, service: Service) -> Object:
        memory = [pods.SHARED_MOUNT] if pods.health_path(service) else []
        return {
            "name": self._services[service.identity],
            **self._pod_context([service]),
            **_non_empty({"volumes": [pods.shared_memory_volume(TRITON_MEMORY)] if memory else []}),
            "daemon": True,
            "container": {
                **self._image(service),
                **_non_empty({"env": pods.environment(service.variables)}),
                "resources": pods.resources(service.requests, service.requests.given),
                **pods.readiness_probe(service),
                "securityContext": self._cluster.container_context(service),
                **_non_empty({"volumeMounts": self._cluster.mounts(service, memory)}),
            },
        }

    def _step(self, operator: Operator) -> Object:
        shard = ["shard"] if operator.name in self._sharded else []
        return {
            "name": self._operators[operator.name],
            **_inputs([*map(_address, self._used(operator)), *shard]),
            **self._pod_context([operator]),
            "retryStrategy": _retry(by_exit_code=bool(project_operator(operator))),
            "container": self._container(operator, single_pod=False),
        }

    def _single_pod_step(self) -> Object:
        """Return the pod of a typed pipeline. Its containers run in turn, even if they could wait by themselves."""
        operators = self._pipeline.operators
        size = sum(
            operator.requests.memory_bytes
            for operator in operators
            if any(output.path is None for output in operator.outputs)
        )
        containers = []
        for operator in operators:
            container = self._container(operator, single_pod=True)
            upstream = [self._operators[name] for name in operator.upstream]
            name = self._operators[operator.name]
            containers.append({"name": name, **container, **_non_empty({"dependencies": upstream})})
        return {
            "name": self._single_pod,
            **_inputs(map(_address, self._services.values())),
            **self._pod_context(operators),
            "volumes": [pods.shared_memory_volume(pods.quantity(size))],
            "retryStrategy": _retry(by_exit_code=any(project_operator(operator) for operator in operators)),
            "containerSet": {"containers": containers},
        }

    def _container(self, operator: Operator, *, single_pod: bool) -> Object:
        variables = {NO_SYNC_LOCK: "TRUE", RUN_ID: RUN}
        if single_pod and project_operator(operator):
            variables[STORE_SHM] = "TRUE"
        if operator.name in self._sharded:
            variables[SHARD] = f"{expression('inputs.parameters.shard')}/{self._parameter('shards')}"
        if operator.models and not operator.services:
            variables |= dict.fromkeys(TRITON_HTTP_VARIABLES, self._parameter("triton"))
        for service in operator.services:
            host = expression(f"inputs.parameters.{_address(self._services[service.identity])}")
            connections = service.connections
            variables |= {item.name: f"{host}:{item.port}" for item in connections if item.port is not None}
            variables |= {item.name: item.path for item in connections if item.path is not None}
        mounts = [*self._mounts.of(operator), *([pods.SHARED_MOUNT] if single_pod else [])]
        restricted_pod = all(map(self._cluster.restricts, self._pipeline.operators)) or not single_pod
        return {
            **self._image(operator),
            "env": pods.environment({**variables, **operator.variables}),
            "resources": pods.resources(operator.requests),
            "securityContext": self._cluster.container_context(operator, in_restricted_pod=restricted_pod),
            "volumeMounts": self._cluster.mounts(operator, mounts),
        }

    def _image(self, container: Operator | Service) -> Object:
        return {
            "image": self._cluster.image(container.container),
            "imagePullPolicy": "IfNotPresent",
            **_non_empty({"command": pods.command(container)}),
        }

    def _pod_context(self, containers: Iterable[Operator | Service]) -> Object:
        """Return the security context of a pod, if it cannot have that of the workflow."""
        restricted = all(map(self._cluster.restricts, containers))
        return {} if restricted else {"securityContext": self._cluster.pod_context(restricted=False)}

    def _used(self, operator: Operator) -> list[str]:
        """Return the names of the services that an operator uses."""
        return list(dict.fromkeys(self._services[service.identity] for service in operator.services))

    def _parameter(self, name: str) -> str:
        return parameter_expression(self._free_name(name))

    def _free_name(self, name: str) -> str:
        """Return the name of an additional parameter; the definition's own parameters keep their names."""
        taken = {parameter.name for parameter in self._pipeline.parameters}
        while name in taken:
            name = f"workflow-{name}"
        return name


def _can_be_sharded(operator: Operator, pipeline: Pipeline) -> bool:
    """Return whether an operator is this project's filter, in a pod of its own, and its readers can read shards."""
    readers = [reader for reader in pipeline.operators if operator.name in reader.upstream]
    is_filter = project_operator(operator) == "filter"
    return not pipeline.typed and is_filter and all(project_operator(reader) == "stitch" for reader in readers)


def _retry(*, by_exit_code: bool) -> Object:
    """Return when a step is tried again: if its pod was lost, and perhaps after some exit codes of this project."""
    codes = f" || asInt(lastRetry.exitCode) in {list(retryable())}" if by_exit_code else ""
    return {
        "limit": RETRIES,
        "retryPolicy": "Always",
        "expression": f"lastRetry.status == 'Error'{codes}",
        "backoff": {"duration": PAUSE, "factor": FACTOR},
    }


def _inputs(names: Iterable[str]) -> Object:
    return _non_empty({"inputs": _non_empty({"parameters": [{"name": name} for name in names]})})


def _address(service: str) -> str:
    """Return the name of the parameter that holds the address of a service."""
    return f"{service}-ip"


def _mounted(templates: Iterable[Object]) -> Iterator[str]:
    """Yield the names of the volumes that templates mount."""
    for template in templates:
        for container in (template.get("container", {}), *template.get("containerSet", {}).get("containers", ())):
            yield from (mount["name"] for mount in container.get("volumeMounts", ()))


def _non_empty(fields: Object) -> Object:
    """Return the fields that are not empty."""
    return {name: value for name, value in fields.items() if value}
