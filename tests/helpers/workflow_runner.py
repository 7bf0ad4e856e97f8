"""Runs a Workflow of Argo without Argo: each step a real Pod under ``podman play kube``.

It knows the part of a Workflow that `pipelines.argo` writes, as Argo's documentation describes it, and refuses all else
rather than run it wrongly. Where Podman is not what Kubernetes is:

- claims are folders of this machine; a `subPath` is made as kubelet makes it, for the group that `fsGroup` names;
- an `emptyDir` is a folder for everybody, one in memory a folder in this machine's /dev/shm, without its size limit;
- readiness is asked for from here; and what Argo's executor does inside of pods with several containers, a script does.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.helpers.container_engine import USER, Engine

READY_SECONDS = 120
EXECUTOR = """\
# what Argo's executor does: wait for other containers of the pod, then run; tell how it ended
name=$1 others=$2; shift 2
end() { echo "$1" > "/var/run/argo/$name.new"; mv "/var/run/argo/$name.new" "/var/run/argo/$name"; exit "$1"; }
for other in $others; do
    until [ -e "/var/run/argo/$other" ]; do sleep 0.1; done
    [ "$(cat "/var/run/argo/$other")" = 0 ] || end 64
done
"$@"
end $?
"""
_RETRY = re.compile(r"lastRetry\.status == 'Error'(?: \|\| asInt\(lastRetry\.exitCode\) in (\[[0-9, ]+\]))?")


class Unsupported(Exception):
    """The workflow has something that this runner does not know."""


class Failed(Exception):
    """A step failed, and was not tried again."""


@dataclass(frozen=True)
class Attempt:
    """One pod that ended: the containers' exit codes and what they wrote."""

    task: str
    codes: Mapping[str, int]
    logs: Mapping[str, str]
    facts: Mapping[str, Any]

    @property
    def code(self) -> int:
        return next((code for code in self.codes.values() if code), 0)

    @property
    def known(self) -> int:
        """What Argo calls the exit code of a pod: that of its container ``main``."""
        return self.codes.get("main", -1)


@dataclass
class Run:
    """Runs one workflow.

    `claims` are folders, by the names of claims; `pause` waits before a step is tried again.
    """

    engine: Engine
    network: str
    claims: Mapping[str, Path]
    document: Mapping[str, Any]
    given: Mapping[str, str] = field(default_factory=dict)
    name: str = ""
    pause: Callable[[float], None] = time.sleep
    attempts: list[Attempt] = field(default_factory=list)

    def __post_init__(self) -> None:
        only(self.document, "apiVersion", "kind", "metadata", "spec")
        only(self.document["metadata"], "generateName")
        self.spec = spec = self.document["spec"]
        only(spec, "entrypoint", "arguments", "imagePullSecrets", "securityContext", "volumes", "templates")
        self.name = self.name or self.document["metadata"]["generateName"] + uuid.uuid4().hex[:5]
        self.templates = {one["name"]: one for one in spec["templates"]}
        self.known = {"workflow.name": self.name}
        for one in spec.get("arguments", {}).get("parameters", []):
            self.known[f"workflow.parameters.{one['name']}"] = self.given.get(one["name"], one.get("value"))
        self.pods: list[str] = []
        self.folders: list[Path] = []

    def __call__(self) -> None:
        """Run it to its end; raises `Failed` where a step does."""
        try:
            self.dag(self.templates[self.spec["entrypoint"]])
        finally:
            for pod in self.pods:
                self.engine.call("pod", "rm", "-f", "-t", "1", pod, check=False)
            for folder in self.folders:
                shutil.rmtree(folder, ignore_errors=True)

    def dag(self, template: Mapping[str, Any]) -> None:
        only(template, "name", "dag")
        only(template["dag"], "tasks")
        waiting = {one["name"]: one for one in template["dag"]["tasks"]}
        running: dict[Future[str], str] = {}
        left: dict[str, int] = {}
        done: set[str] = set()
        values = dict(self.known)
        with ThreadPoolExecutor(16) as pool:
            while waiting or running:
                for name, task in list(waiting.items()):
                    if done.issuperset(task.get("dependencies", ())):
                        del waiting[name]
                        items = self.items(task, values)
                        left[name] = len(items)
                        for item in items:
                            running[pool.submit(self.task, task, {**values, **item})] = name
                if not running:
                    raise Unsupported(f"tasks that wait for ever: {', '.join(waiting)}")
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(ended)
                    values[f"tasks.{name}.ip"] = ended.result()
                    left[name] -= 1
                    if not left[name]:
                        done.add(name)

    @staticmethod
    def items(task: Mapping[str, Any], values: Mapping[str, str]) -> list[dict[str, str]]:
        if "withSequence" not in task:
            return [{}]
        only(task["withSequence"], "count")
        return [{"item": str(number)} for number in range(int(filled(task["withSequence"]["count"], values)))]

    def task(self, task: Mapping[str, Any], values: Mapping[str, str]) -> str:
        """Run a task, or one of its sequence; return the address of a daemon."""
        only(task, "name", "template", "dependencies", "arguments", "withSequence")
        template = self.templates[task["template"]]
        given = {one["name"]: filled(one["value"], values) for one in task.get("arguments", {}).get("parameters", [])}
        wanted = {one["name"] for one in template.get("inputs", {}).get("parameters", [])}
        if wanted != set(given):
            raise Unsupported(f"{task['name']}: wants {wanted}, is given {set(given)}")
        seen = {**self.known, **{f"inputs.parameters.{name}": value for name, value in given.items()}}
        step = filled(template, seen)
        only(step, "name", "inputs", "securityContext", "volumes", "daemon", "retryStrategy", "container",
             "containerSet")  # fmt: skip
        label = task["name"] + (f"-{values['item']}" if "withSequence" in task else "")
        strategy = step.get("retryStrategy", {"limit": "0", "retryPolicy": "Always", "expression": NEVER})
        only(strategy, "limit", "retryPolicy", "expression", "backoff")
        seconds = float(strategy.get("backoff", {}).get("duration", 0))
        for number in range(int(strategy["limit"]) + 1):
            pod = f"{self.name}-{label}-{number}"
            if step.get("daemon"):
                return self.daemon(step, pod)
            ended = self.pod(step, pod, label)
            self.attempts.append(ended)
            if not ended.code:
                return ""
            if not again(strategy, ended):
                break
            self.pause(seconds)
            seconds *= float(strategy["backoff"]["factor"])
        raise Failed(f"{label}: exit codes {ended.codes}\n" + "\n".join(ended.logs.values()))

    def pod(self, step: Mapping[str, Any], pod: str, label: str) -> Attempt:
        names = self.start(step, pod)
        codes = {name: int(self.engine.call("wait", f"{pod}-{name}").out) for name in names}
        facts = {name: json.loads(self.engine.call("inspect", f"{pod}-{name}").out)[0] for name in names}
        told = {name: self.engine.call("logs", f"{pod}-{name}") for name in names}
        self.engine.call("pod", "rm", "-f", "-t", "1", pod)
        return Attempt(label, codes, {name: one.out + one.err for name, one in told.items()}, facts)

    def daemon(self, step: Mapping[str, Any], pod: str) -> str:
        (name,) = self.start(step, pod)
        infra = json.loads(self.engine.call("pod", "inspect", pod).out)["InfraContainerID"]
        networks = json.loads(self.engine.call("inspect", infra).out)[0]["NetworkSettings"]["Networks"]
        address: str = networks[self.network]["IPAddress"]
        until = time.monotonic() + READY_SECONDS
        while not ready(step["container"].get("readinessProbe", {}), address):
            runs = self.engine.call("inspect", "--format", "{{.State.Running}}", f"{pod}-{name}").out.strip()
            if runs != "true" or time.monotonic() > until:
                raise Failed(f"{pod} is not ready:\n" + self.engine.call("logs", f"{pod}-{name}").err)
            time.sleep(0.3)
        return address

    def start(self, step: Mapping[str, Any], pod: str) -> list[str]:
        """Start a pod and return the names of its containers."""
        if "containerSet" in step:
            only(step["containerSet"], "containers")
            containers = [self.executed(one) for one in step["containerSet"]["containers"]]
            extra = [{"name": "argo", "emptyDir": {}}]
        else:
            containers, extra = [{"name": "main", **step["container"]}], []
        sources = {one["name"]: one for one in (*self.spec.get("volumes", ()), *step.get("volumes", ()), *extra)}
        used: dict[tuple[str, str], str] = {}
        made = [self.container(one, sources, used) for one in containers]
        folders = {key: self.folder(sources[key[0]], key[1]) for key in used}
        for (name, _), folder in folders.items():
            if name == "argo":
                (folder / "executor").write_text(EXECUTOR)
        manifest = {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
            "spec": {
                "restartPolicy": "Never",
                "securityContext": step.get("securityContext", self.spec["securityContext"]),
                "containers": made,
                "volumes": [
                    {"name": name, "hostPath": {"path": str(folders[key]), "type": "Directory"}}
                    for key, name in used.items()
                ],
            },
        }  # fmt: skip
        self.pods.append(pod)
        self.engine.call("play", "kube", "--network", self.network, "-", stdin=yaml.safe_dump(manifest))
        return [one["name"] for one in made]

    @staticmethod
    def executed(container: Mapping[str, Any]) -> dict[str, Any]:
        """Return a container of several in a pod as Argo starts it."""
        others = " ".join(container.get("dependencies", ()))
        return {
            **{key: value for key, value in container.items() if key != "dependencies"},
            "command": ["/bin/sh", "/var/run/argo/executor", container["name"], others, *container["command"]],
            "volumeMounts": [*container["volumeMounts"], {"name": "argo", "mountPath": "/var/run/argo"}],
        }

    @staticmethod
    def container(
        one: Mapping[str, Any], sources: Mapping[str, Any], used: dict[tuple[str, str], str]
    ) -> dict[str, Any]:
        """Return a container for Podman: each folder of a volume is a volume of its own."""
        only(one, "name", "image", "imagePullPolicy", "command", "env", "resources", "securityContext", "volumeMounts",
             "readinessProbe")  # fmt: skip
        only(one["resources"], "requests", "limits")
        for amounts in one["resources"].values():
            only(amounts, "cpu", "memory")
        mounts = []
        for mount in one.get("volumeMounts", ()):
            only(mount, "name", "mountPath", "subPath", "readOnly")
            if mount["name"] not in sources:
                raise Unsupported(f"{one['name']}: there is no volume {mount['name']}")
            name = used.setdefault((mount["name"], mount.get("subPath", "")), f"volume-{len(used)}")
            claim = sources[mount["name"]].get("persistentVolumeClaim", {})
            only_read = mount.get("readOnly", False) or claim.get("readOnly", False)
            mounts.append({"name": name, "mountPath": mount["mountPath"], "readOnly": only_read})
        made = {key: value for key, value in one.items() if key != "readinessProbe"}
        return {**made, "imagePullPolicy": "Never", "volumeMounts": mounts}

    def folder(self, source: Mapping[str, Any], inside: str) -> Path:
        """Return the folder of this machine that stands for one of a volume."""
        only(source, "name", "persistentVolumeClaim", "emptyDir", "hostPath")
        if "emptyDir" in source:
            only(source["emptyDir"], "medium", "sizeLimit")
            memory = source["emptyDir"].get("medium") == "Memory"
            made = Path(tempfile.mkdtemp(prefix="nuclei-test-", dir="/dev/shm" if memory else None))
            made.chmod(0o1777)
            self.folders.append(made)
            return made
        if "hostPath" in source:
            only(source["hostPath"], "path", "type")
            path = Path(source["hostPath"]["path"])
            if source["hostPath"]["type"] != "Directory" or not path.is_dir():
                raise Unsupported(f"hostPath {path}")
        else:
            only(source["persistentVolumeClaim"], "claimName", "readOnly")
            path = self.claims[source["persistentVolumeClaim"]["claimName"]]
        for part in inside.split("/") if inside else ():
            if part in ("", ".", ".."):
                raise Unsupported(f"subPath {inside}")
            path /= part
            if not path.exists():
                path.mkdir(exist_ok=True)
                os.chown(path, *USER)
        return path


NEVER = "lastRetry.status == 'Error'"


def again(strategy: Mapping[str, Any], ended: Attempt) -> bool:
    """Say whether Argo tries a step that failed again."""
    found = _RETRY.fullmatch(strategy["expression"])
    if found is None or strategy["retryPolicy"] != "Always":
        raise Unsupported(f"retryStrategy {strategy}")
    return ended.known in json.loads(found[1] or "[]")


def ready(probe: Mapping[str, Any], address: str) -> bool:
    """Ask once whether a daemon is ready."""
    only(probe, "httpGet", "tcpSocket", "periodSeconds", "timeoutSeconds", "failureThreshold")
    seconds = probe.get("timeoutSeconds", 1)
    try:
        if "httpGet" in probe:
            only(probe["httpGet"], "path", "port")
            url = f"http://{address}:{probe['httpGet']['port']}{probe['httpGet']['path']}"
            with urllib.request.urlopen(url, timeout=seconds) as answer:
                return 200 <= answer.status < 400
        if "tcpSocket" in probe:
            socket.create_connection((address, probe["tcpSocket"]["port"]), seconds).close()
    except OSError:
        return False
    return True


def filled(value: Any, known: Mapping[str, str | None]) -> Any:
    """Return a part of a document with what its ``{{...}}`` stand for."""

    def one(match: re.Match[str]) -> str:
        text = known.get(match[1])
        if text is None:
            raise Unsupported(f"{match[0]} stands for nothing")
        return json.dumps(text)[1:-1]

    return json.loads(re.sub(r"\{\{([^{}]*)\}\}", one, json.dumps(value)))


def only(found: Mapping[str, Any], *known: str) -> None:
    """Refuse what is not known."""
    if more := set(found) - set(known):
        raise Unsupported(f"{', '.join(sorted(more))} in {sorted(found)}")


def task_names(attempts: Iterable[Attempt]) -> list[str]:
    return [one.task for one in attempts]
