"""Exported workflows: right by the schemas and rules of Argo and Kubernetes, and saying what the definition says."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest

from nuclei_segmentation.shared.errors import retryable
from tests.helpers import argo_rules
from tests.helpers.argo_rules import containers, problems
from tests.helpers.definitions import Export
from tests.helpers.published import CHAIN, DICOM, GENOME, LUNG, PATHOLOGY, SERVICE, SPLIT
from tests.helpers.workflows import HEAD, ONE, Object, container_of, env, mounts, task, template

ROOT = Path(__file__).parents[2]
SHIPPED = {path.stem: path.read_text() for path in sorted((ROOT / "pipelines").glob("*.yaml"))}
PUBLISHED = {
    "chain": CHAIN, "service": SERVICE, "dicom": DICOM, "split": SPLIT, "genome": GENOME, "pathology": PATHOLOGY,
    "lung": LUNG,
}  # fmt: skip
SCHEMA = Path(__file__).with_name("argo") / "workflow.schema.json"


ALL = {**SHIPPED, **PUBLISHED}


@pytest.mark.parametrize("name", ALL)
def test_rules_of_argo_and_schemas_of_kubernetes(name: str, export: Export) -> None:
    document = export(ALL[name])
    assert list(problems(document)) == []
    made = list(argo_rules.pods(document))
    assert made
    for pod in made:
        kubernetes_validate.validate(pod, "1.34", strict=True)


@pytest.mark.parametrize("name", ALL)
def test_schema_of_argo(name: str, export: Export) -> None:
    schema = argo_rules.strict(json.loads(SCHEMA.read_text()))
    found = [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(export(ALL[name]))]
    assert found == []


def wrong(document: Object) -> dict[str, Callable[[], object]]:
    spec = document["spec"]
    load, stitch = template(document, "load"), template(document, "stitch")
    return {
        "entrypoint": lambda: spec.update(entrypoint="nothing"),
        "template twice": lambda: spec["templates"].append(copy.deepcopy(load)),
        "template nobody uses": lambda: spec["templates"].append({**copy.deepcopy(load), "name": "other"}),
        "no such template": lambda: task(document, "load").update(template="lode"),
        "no such dependency": lambda: task(document, "stitch")["dependencies"].append("filtre"),
        "cycle": lambda: task(document, "load").update(dependencies=["stitch"]),
        "address of who is not waited for": lambda: task(document, "filter")["dependencies"].remove("triton"),
        "item without sequence": lambda: task(document, "filter").pop("withSequence"),
        "missing argument": lambda: task(document, "filter")["arguments"]["parameters"].pop(),
        "undeclared input": lambda: template(document, "filter")["inputs"]["parameters"].pop(),
        "undeclared parameter": lambda: spec["arguments"]["parameters"].pop(0),
        "no such volume": lambda: spec["volumes"].pop(0),
        "volume nobody mounts": lambda: spec["volumes"].append({"name": "more", "emptyDir": {}}),
        "mount twice": lambda: load["container"]["volumeMounts"].append(load["container"]["volumeMounts"][0]),
        "path that leads out": lambda: load["container"]["volumeMounts"][0].update(subPath="../x"),
        "variable twice": lambda: load["container"]["env"].append(load["container"]["env"][0]),
        "limit that is no request": lambda: stitch["container"]["resources"]["limits"].update(memory="1Mi"),
        "quantity": lambda: stitch["container"]["resources"]["limits"].update(memory="1 MB"),
        "probe": lambda: template(document, "triton")["container"].pop("readinessProbe"),
        "expression without end": lambda: load["container"]["command"].append("{{workflow.name"),
    }


def test_the_rules_notice(export: Export) -> None:
    whole = export(SHIPPED["nuclei-segmentation"])
    for name in wrong(whole):
        document = copy.deepcopy(whole)
        wrong(document)[name]()
        assert list(problems(document)), name


def test_the_dependencies_of_the_dag(export: Export) -> None:
    document = export(SHIPPED["nuclei-segmentation"])
    tasks = template(document, "pipeline")["dag"]["tasks"]
    assert {one["name"]: one.get("dependencies", []) for one in tasks} == {
        "triton": [], "load": [], "filter": ["triton", "load"], "stitch": ["load", "filter"],
    }  # fmt: skip
    assert task(document, "filter")["withSequence"] == {"count": "{{workflow.parameters.shards}}"}
    assert task(document, "filter")["arguments"]["parameters"] == [
        {"name": "triton-ip", "value": "{{tasks.triton.ip}}"}, {"name": "shard", "value": "{{item}}"},
    ]  # fmt: skip
    assert {name: container_of(document, name)["command"] for name in ("load", "triton")} == {
        "load": ["/bin/bash", "-c", "python -u /app/main.py load -w {{workflow.parameters.WORKERS}} "
                 "-t {{workflow.parameters.TILE_SIZE}} -o {{workflow.parameters.OVERLAP}}"],
        "triton": ["tritonserver", "--model-repository=/models"],
    }  # fmt: skip
    assert env(container_of(document, "filter")) == {
        "NVIDIA_CLARA_NOSYNCLOCK": "TRUE",
        "NUCLEI_RUN_ID": "{{workflow.name}}",
        "NUCLEI_SHARD": "{{inputs.parameters.shard}}/{{workflow.parameters.shards}}",
        "NVIDIA_CLARA_TRTISURI": "{{inputs.parameters.triton-ip}}:8000",
    }
    assert mounts(container_of(document, "stitch")) == {
        "/input/slide": ("payload", "{{workflow.parameters.payload}}", True),
        "/input/tiles": ("work", "{{workflow.name}}/data/load", True),
        "/input/masks": ("work", "{{workflow.name}}/data/filter", True),
        "/output": ("work", "{{workflow.name}}/result", False),
        "/tmp": ("tmp", "", False),
    }
    assert container_of(document, "stitch")["resources"] == {
        "requests": {"cpu": "2", "memory": "768Mi"}, "limits": {"cpu": "2", "memory": "768Mi"},
    }  # fmt: skip
    triton = template(document, "triton")
    assert triton["daemon"] is True
    assert triton["container"]["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": 8000}
    assert triton["container"]["resources"]["limits"]["nvidia.com/gpu"] == "1"


@pytest.mark.parametrize("name", ALL)
def test_everything_is_restricted(name: str, export: Export) -> None:
    document = export(ALL[name])
    assert document["spec"]["securityContext"] == {
        "runAsNonRoot": True, "runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000,
        "fsGroupChangePolicy": "OnRootMismatch", "seccompProfile": {"type": "RuntimeDefault"},
    }  # fmt: skip
    for one in document["spec"]["templates"]:
        assert "securityContext" not in one
        for container in containers(one):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }  # fmt: skip
            assert "/tmp" in mounts(container)


@pytest.mark.parametrize("name", ALL)
def test_retries_are_of_lost_pods_and_of_exit_codes_that_are_worth_it(name: str, export: Export) -> None:
    for one in export(ALL[name])["spec"]["templates"]:
        if one.get("daemon") or "dag" in one:
            assert "retryStrategy" not in one
            continue
        ours = any("nuclei/" in container["image"] for container in containers(one))
        codes = f" || asInt(lastRetry.exitCode) in {list(retryable())}" if ours else ""
        assert one["retryStrategy"]["expression"] == f"lastRetry.status == 'Error'{codes}"


def test_typed_is_one_pod(export: Export) -> None:
    document = export(SHIPPED["nuclei-segmentation-fastio"], "--triton", "gpu.example:8000")
    (one,) = (one for one in document["spec"]["templates"] if "containerSet" in one)
    assert one["volumes"] == [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "13312Mi"}}]
    inside = {container["name"]: container for container in containers(one)}
    assert {name: container.get("dependencies", []) for name, container in inside.items()} == {
        "load": [], "filter": ["load"], "stitch": ["load", "filter"],
    }  # fmt: skip
    for container in inside.values():
        assert mounts(container)["/dev/shm"] == ("shm", "", False)
        assert env(container)["NUCLEI_STORE_SHM"] == "TRUE"
    assert {"name": "triton", "value": "gpu.example:8000"} in document["spec"]["arguments"]["parameters"]
    assert env(inside["filter"])["NVIDIA_TRITON_HTTPURI"] == "{{workflow.parameters.triton}}"
    assert "NVIDIA_TRITON_HTTPURI" not in env(inside["load"])


def test_typed_with_a_triton_of_its_own(export: Export) -> None:
    document = export(SHIPPED["nuclei-segmentation-fastio"], "--triton-image", "registry.example/inference:7")
    triton = template(document, "triton")
    assert triton["daemon"] is True
    assert triton["container"]["command"][-1] == "--load-model={{workflow.parameters.MODEL_NAME}}"
    assert triton["container"]["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
    assert task(document, "operators")["dependencies"] == ["triton"]
    (one,) = (one for one in document["spec"]["templates"] if "containerSet" in one)
    assert env(containers(one)[1])["NVIDIA_TRITON_GRPCURI"] == "{{inputs.parameters.triton-ip}}:8001"
    assert "triton" not in [one["name"] for one in document["spec"]["arguments"]["parameters"]]
    assert list(problems(document)) == []


def test_many_outputs_and_results(export: Export) -> None:
    document = export(SPLIT)
    split = mounts(container_of(document, "split"))
    assert split["/app/out/lung"] == ("work", "{{workflow.name}}/data/split/lung", False)
    assert mounts(container_of(document, "merge"))["/app/config"] == (
        "work", "{{workflow.name}}/result/split/config", True,
    )  # fmt: skip


def test_services_as_they_were_published(export: Export) -> None:
    document = export(LUNG)
    service, user = template(document, "trtis"), container_of(document, "third")
    assert service["container"]["command"] == ["trtserver", "--model-store=/models"]
    assert service["container"]["readinessProbe"]["httpGet"]["path"] == "/api/health/ready"
    assert mounts(service["container"])["/clara/common/models"] == ("models", "", True)
    assert env(user)["VOLUME_PATH"] == "/clara/common/models"
    assert mounts(user)["/clara/common/models"] == ("models", "", True)
    assert env(user)["NVIDIA_CLARA_TRTISURI"] == "{{inputs.parameters.trtis-ip}}:8000"


def test_a_service_of_two_operators_is_one_daemon(export: Export) -> None:
    service = "\n".join(SERVICE.splitlines()[SERVICE.splitlines().index("  services:") :])
    document = export(SERVICE.replace("- name: second", f"{service}\n- name: second"))
    assert [one["name"] for one in document["spec"]["templates"] if one.get("daemon")] == ["trtis"]
    assert "trtis" in task(document, "first")["dependencies"]


def test_parameters_that_shape_the_pipeline_get_their_values(export: Export) -> None:
    document = export(GENOME, "-p", "DOCKER_TAG=7", "-p", "THREADS=3")
    assert document["spec"]["arguments"]["parameters"] == [
        {"name": "payload", "value": ""}, {"name": "JOB_ID", "value": "1"}, {"name": "THREADS", "value": "3"},
    ]  # fmt: skip
    assert container_of(document, "mapper")["image"] == "genome/mapper:7"
    assert container_of(document, "mapper")["command"][2] == (
        "map.sh -i /input -d /mapped/{{workflow.parameters.JOB_ID}} -t {{workflow.parameters.THREADS}}"
    )


def test_a_parameter_without_default_is_left_to_who_runs_it(export: Export) -> None:
    document = export(HEAD + "parameters: {A: }\n" + ONE % '"-${{A}}"')
    assert document["spec"]["arguments"]["parameters"] == [{"name": "A"}]
    assert container_of(document, "o")["command"] == ["-{{workflow.parameters.A}}"]


def test_names_of_ours_give_way(export: Export) -> None:
    text = SHIPPED["nuclei-segmentation"].replace("parameters:\n", "parameters:\n  shards: a\n  payload: b\n")
    document = export(text, "--shards", "5")
    values = {one["name"]: one["value"] for one in document["spec"]["arguments"]["parameters"]}
    assert (values["workflow-shards"], values["workflow-payload"], values["shards"]) == ("5", "", "a")
    assert task(document, "filter")["withSequence"] == {"count": "{{workflow.parameters.workflow-shards}}"}
    assert list(problems(document)) == []


def test_names_that_kubernetes_does_not_take(export: Export) -> None:
    named = "\n".join(
        f"- name: {name}\n  container: {{image: a, command: [x]}}"
        for name in ("Pipeline", "A_b", "a-b", "_", "x" * 200)
    )
    document = export(f"{HEAD.replace('x', 'My_Pipeline_')}operators:\n{named}\n")
    assert document["metadata"]["generateName"] == "my-pipeline-"
    names = [one["name"] for one in template(document, "pipeline")["dag"]["tasks"]]
    assert names == ["pipeline-2", "a-b", "a-b-2", "x", "x" * 40]
    assert list(problems(document)) == []


def test_the_clusters_own(export: Export) -> None:
    document = export(
        SHIPPED["nuclei-segmentation"], "--registry", "registry.example/team/", "--payload-claim", "slides",
        "--work-claim", "scratch", "--models-claim", "zoo", "--config-map", "settings", "--user", "4711",
    )  # fmt: skip
    assert container_of(document, "load")["image"] == "registry.example/team/nuclei/load:0.1.0"
    assert container_of(document, "triton")["image"] == "nvcr.io/nvidia/tritonserver:24.12-py3"
    volumes = {one.pop("name"): one for one in document["spec"]["volumes"]}
    assert volumes == {
        "payload": {"persistentVolumeClaim": {"claimName": "slides", "readOnly": True}},
        "work": {"persistentVolumeClaim": {"claimName": "scratch"}},
        "models": {"persistentVolumeClaim": {"claimName": "zoo", "readOnly": True}},
        "config": {"configMap": {"name": "settings"}},
        "tmp": {"emptyDir": {}},
    }
    assert mounts(container_of(document, "load"))["/config"] == ("config", "", True)
    assert document["spec"]["securityContext"]["runAsUser"] == 4711


def test_folders_of_the_only_node(export: Export) -> None:
    document = export(
        SHIPPED["nuclei-segmentation"], "--payload-claim", "/data/my slides", "--work-claim", "/scratch",
        "--models-claim", "/models",
    )  # fmt: skip
    volumes = {one["name"]: one.get("hostPath") for one in document["spec"]["volumes"]}
    assert volumes == {
        "payload": {"path": "/data/my slides", "type": "Directory"},
        "work": {"path": "/scratch", "type": "Directory"},
        "models": {"path": "/models", "type": "Directory"},
        "tmp": None,
    }
    assert mounts(container_of(document, "load"))["/input"][2] is True, "the payload is only read"
    assert mounts(container_of(document, "triton"))["/models"][2] is True


def test_pull_secrets(export: Export) -> None:
    assert export(CHAIN)["spec"]["imagePullSecrets"] == [{"name": "ngc-clara"}]


def test_unrestricted_lets_one_operator_run_as_root(export: Export) -> None:
    document = export(SHIPPED["nuclei-segmentation-render"], "--unrestricted", "Register-Images-for-rendering")
    one = template(document, "register-images-for-rendering")
    assert "runAsNonRoot" not in one["securityContext"]
    assert one["container"]["securityContext"] == {"allowPrivilegeEscalation": False}
    assert "securityContext" not in template(document, "segmentation")
    assert list(problems(document)) == []


def test_unrestricted_in_a_pod_with_others(export: Export) -> None:
    document = export(SHIPPED["nuclei-segmentation-fastio"], "--unrestricted", "filter")
    (one,) = (one for one in document["spec"]["templates"] if "containerSet" in one)
    users = [container["securityContext"].get("runAsUser") for container in containers(one)]
    assert users == [1000, None, 1000]


def test_our_images_know_their_command(export: Export) -> None:
    document = export(HEAD + "operators: [{name: o, container: {image: nuclei/load}}]")
    assert container_of(document, "o")["command"] == ["/bin/bash", "-c", "python -u /app/main.py load"]


def test_filter_is_whole_for_readers_that_know_no_shards(export: Export) -> None:
    text = SHIPPED["nuclei-segmentation-embedded"].replace("image: nuclei/stitch", "image: other/stitch")
    document = export(text)
    assert "withSequence" not in task(document, "filter")
    assert "NUCLEI_SHARD" not in env(container_of(document, "filter"))
