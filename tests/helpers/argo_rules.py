"""What must be true of a Workflow of Argo beyond its schema: names lead somewhere, expressions stand for something."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import Any

Object = Mapping[str, Any]
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
PARAMETER = re.compile(r"[A-Za-z0-9_-]+")
QUANTITY = re.compile(r"[0-9]+(m|Ki|Mi|Gi)?")
RETRY = re.compile(r"lastRetry\.status == 'Error'( \|\| asInt\(lastRetry\.exitCode\) in \[\d+(, \d+)*\])?")
KINDS = ("dag", "container", "containerSet")


def problems(document: Object) -> Iterator[str]:
    """Yield what is wrong, a line each."""
    if (document["apiVersion"], document["kind"]) != ("argoproj.io/v1alpha1", "Workflow"):
        yield "no Workflow"
    if not LABEL.fullmatch(document["metadata"]["generateName"] + "x"):
        yield "generateName"
    spec = document["spec"]
    declared = [one["name"] for one in spec.get("arguments", {}).get("parameters", [])]
    yield from twice("parameter", declared)
    yield from (f"parameter {name}: its name" for name in declared if not PARAMETER.fullmatch(name))
    seen = {"workflow.name", *(f"workflow.parameters.{name}" for name in declared)}
    yield from unknown("volumes", spec.get("volumes", []), set())
    yield from unknown("arguments", spec.get("arguments", {}), set())
    names = [one["name"] for one in spec["templates"]]
    yield from twice("template", names)
    templates = {one["name"]: one for one in spec["templates"]}
    if spec["entrypoint"] not in templates:
        yield "entrypoint: no such template"
    reached, mounted = {spec["entrypoint"]}, set()
    for name, template in templates.items():
        if not LABEL.fullmatch(name):
            yield f"{name}: no label"
        if sum(kind in template for kind in KINDS) != 1:
            yield f"{name}: of no kind, or of several"
        elif "dag" in template:
            yield from dag(name, template, templates, seen)
            reached |= {task["template"] for task in template["dag"]["tasks"]}
        else:
            inputs = {f"inputs.parameters.{one['name']}" for one in template.get("inputs", {}).get("parameters", [])}
            yield from unknown(name, template, seen | inputs)
            yield from pod(name, template, spec)
            mounted |= {mount["name"] for one in containers(template) for mount in one.get("volumeMounts", [])}
    yield from (f"{name}: nothing leads there" for name in set(templates) - reached)
    yield from (f"volume {one['name']}: not used" for one in spec.get("volumes", []) if one["name"] not in mounted)


def dag(name: str, template: Object, templates: Mapping[str, Object], seen: set[str]) -> Iterator[str]:
    tasks = {task["name"]: task for task in template["dag"]["tasks"]}
    yield from twice("task", [task["name"] for task in template["dag"]["tasks"]])
    try:
        list(TopologicalSorter({one: task.get("dependencies", []) for one, task in tasks.items()}).static_order())
    except CycleError:
        yield f"{name}: a cycle"
    for one, task in tasks.items():
        before = task.get("dependencies", [])
        yield from twice(f"{one}: dependency", before)
        yield from (f"{one}: depends on {other}, which there is not" for other in before if other not in tasks)
        target = templates.get(task["template"])
        if target is None:
            yield f"{one}: no template {task['template']}"
            continue
        given = [argument["name"] for argument in task.get("arguments", {}).get("parameters", [])]
        wanted = [argument["name"] for argument in target.get("inputs", {}).get("parameters", [])]
        yield from twice(f"{one}: argument", given)
        if sorted(given) != sorted(wanted):
            yield f"{one}: gives {given}, where {wanted} are wanted"
        daemons = {
            other for other in before if templates.get(tasks.get(other, {}).get("template", ""), {}).get("daemon")
        }
        here = seen | {f"tasks.{other}.ip" for other in daemons} | ({"item"} if "withSequence" in task else set())
        yield from unknown(one, task, here)


def pod(name: str, template: Object, spec: Object) -> Iterator[str]:
    volumes = [one["name"] for one in (*spec.get("volumes", []), *template.get("volumes", []))]
    yield from twice(f"{name}: volume", volumes)
    if template.get("daemon") and "readinessProbe" not in template["container"]:
        yield f"{name}: a daemon that is never ready"
    retry = template.get("retryStrategy")
    if retry is not None and not RETRY.fullmatch(retry["expression"]):
        yield f"{name}: retries {retry['expression']}"
    members = [one["name"] for one in containers(template) if "name" in one]
    yield from twice(f"{name}: container", members)
    graph = {one["name"]: one.get("dependencies", []) for one in containers(template) if "name" in one}
    yield from (f"{name}: no container {other}" for before in graph.values() for other in before if other not in graph)
    for one in containers(template):
        where = f"{name}: {one.get('name', 'main')}"
        mounts = one.get("volumeMounts", [])
        yield from (f"{where}: no volume {mount['name']}" for mount in mounts if mount["name"] not in volumes)
        yield from twice(f"{where}: mount at", [mount["mountPath"] for mount in mounts])
        for mount in mounts:
            inside = mount.get("subPath", "")
            if not mount["mountPath"].startswith("/") or inside.startswith("/") or ".." in inside.split("/"):
                yield f"{where}: mount {mount}"
        yield from twice(f"{where}: variable", [variable["name"] for variable in one.get("env", [])])
        for amounts in one["resources"].values():
            yield from (f"{where}: {amount}" for amount in amounts.values() if not QUANTITY.fullmatch(amount))
        limits = one["resources"].get("limits", {})
        yield from (
            f"{where}: less than it asks for" for key in limits if one["resources"]["requests"][key] != limits[key]
        )
        if one["securityContext"]["allowPrivilegeEscalation"]:
            yield f"{where}: privileges"


def containers(template: Object) -> list[Object]:
    return (
        [template["container"]] if "container" in template else template.get("containerSet", {}).get("containers", [])
    )


def pods(document: Object) -> Iterator[Object]:
    """Yield the pods that a workflow makes, without what only Argo knows."""
    spec = document["spec"]
    for template in spec["templates"]:
        if made := containers(template):
            yield {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": template["name"]},
                "spec": {
                    "containers": [
                        {"name": "main", **{key: value for key, value in one.items() if key != "dependencies"}}
                        for one in made
                    ],
                    "volumes": [*spec.get("volumes", []), *template.get("volumes", [])],
                    "securityContext": template.get("securityContext", spec["securityContext"]),
                    "imagePullSecrets": spec.get("imagePullSecrets", []),
                },
            }  # fmt: skip


def unknown(where: str, value: object, seen: set[str]) -> Iterator[str]:
    text = json.dumps(value)
    for found in re.findall(r"\{\{(.*?)\}\}", text):
        if found not in seen:
            yield f"{where}: {{{{{found}}}}} stands for nothing"
    if "{{" in re.sub(r"\{\{[^{}]*\}\}", "", text):
        yield f"{where}: an expression without end"


def twice(what: str, names: Iterable[str]) -> Iterator[str]:
    yield from (f"{what} {name}: twice" for name, count in Counter(names).items() if count > 1)


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Return Argo's published schema for Workflows without its leniency: no object has names that it does not know."""
    known = schema["definitions"]
    known["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"type": ["string", "integer"]}
    for one in known.values():
        if one.get("type") == "object" and "properties" in one:
            one.setdefault("additionalProperties", False)
    return schema
