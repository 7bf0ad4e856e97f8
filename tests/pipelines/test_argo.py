"""Exported workflows: right by the schemas and rules of Argo and Kubernetes, and saying what the definition says."""

from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipelines.__main__ import main
from shared.errors import retryable
from tests.pipelines import argo_rules
from tests.pipelines.argo_rules import containers, problems
from tests.pipelines.test_published import CHAIN, DICOM, GENOME, LUNG, PATHOLOGY, SERVICE, SPLIT

ROOT = Path(__file__).parents[2]
SHIPPED = {path.stem: path.read_text() for path in sorted((ROOT / "pipelines").glob("*.yaml"))}
PUBLISHED = {
    "chain": CHAIN, "service": SERVICE, "dicom": DICOM, "split": SPLIT, "genome": GENOME, "pathology": PATHOLOGY,
    "lung": LUNG,
}  # fmt: skip
SCHEMAS = sorted((ROOT.parent / "shared" / "reference").glob("argo-workflows-*.schema.json"))

Export = Callable[..., Any]
Object = dict[str, Any]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def argo(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*arguments: str | Path) -> Done:
        code = main(["argo", *map(str, arguments)])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture
def export(tmp_path: Path, argo: Callable[..., Done]) -> Export:
    """Exports a text and returns the document."""

    def run(text: str, *options: str) -> Object:
        (tmp_path / "pipeline.yaml").write_text(text)
        done = argo(tmp_path / "pipeline.yaml", "--lenient", *options)
        assert done.code == 0, done.err
        return yaml.safe_load(done.out)

    return run


def template(document: Object, name: str) -> Object:
    (found,) = (one for one in document["spec"]["templates"] if one["name"] == name)
    return found


def task(document: Object, name: str) -> Object:
    (found,) = (one for one in template(document, "pipeline")["dag"]["tasks"] if one["name"] == name)
    return found


def env(container: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


def mounts(container: Object) -> dict[str, tuple[str, str, bool]]:
    return {
        one["mountPath"]: (one["name"], one.get("subPath", ""), one.get("readOnly", False))
        for one in container["volumeMounts"]
    }


ALL = {**SHIPPED, **PUBLISHED}


@pytest.mark.parametrize("name", ALL)
def test_rules_of_argo_and_schemas_of_kubernetes(name: str, export: Export) -> None:
    document = export(ALL[name])
    assert list(problems(document)) == []
    made = list(argo_rules.pods(document))
    assert made
    for pod in made:
        kubernetes_validate.validate(pod, "1.34", strict=True)


@pytest.mark.skipif(not SCHEMAS, reason="Argo's schema is not part of the project, and not beside it")
@pytest.mark.parametrize("name", ALL)
def test_schema_of_argo(name: str, export: Export) -> None:
    schema = argo_rules.strict(json.loads(SCHEMAS[-1].read_text()))
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


def test_the_dag(export: Export) -> None:
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


def container_of(document: Object, name: str) -> Object:
    (found,) = containers(template(document, name))
    return found


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


HEAD = "api-version: 0.4.0\nname: x\n"
ONE = "operators:\n- name: o\n  container: {image: a, command: [%s]}\n  output: [{path: /output}]\n"


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
        "payload": {"persistentVolumeClaim": {"claimName": "slides"}},
        "work": {"persistentVolumeClaim": {"claimName": "scratch"}},
        "models": {"persistentVolumeClaim": {"claimName": "zoo"}},
        "config": {"configMap": {"name": "settings"}},
        "tmp": {"emptyDir": {}},
    }
    assert mounts(container_of(document, "load"))["/config"] == ("config", "", True)
    assert document["spec"]["securityContext"]["runAsUser"] == 4711


def test_pull_secrets(export: Export) -> None:
    assert export(CHAIN)["spec"]["imagePullSecrets"] == [{"name": "ngc-clara"}]


def test_unrestricted(export: Export) -> None:
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


@pytest.mark.parametrize(
    "text", ["1e3", "0x10", "010", "1_000", "yes", "null", "~", "1:30", "-", "2026-01-01", "ü", "a: b #c"]
)
def test_values_stay_texts_for_every_reader(text: str, tmp_path: Path, argo: Callable[..., Done]) -> None:
    (tmp_path / "p.yaml").write_text(HEAD + "parameters: {A: x}\n" + ONE % '"${{A}}"')
    done = argo(tmp_path / "p.yaml", "-p", f"A={text}")
    (line,) = (line for line in done.out.splitlines() if line.startswith("      value:"))
    assert line.split(": ", 1)[1][0] in "\"'"
    assert yaml.safe_load(done.out)["spec"]["arguments"]["parameters"] == [{"name": "A", "value": text}]


def test_a_file_is_replaced_whole(tmp_path: Path, argo: Callable[..., Done]) -> None:
    definition, made = ROOT / "pipelines" / "nuclei-segmentation.yaml", tmp_path / "workflow.yaml"
    made.write_text("before")
    done = argo(definition, "-o", made)
    assert (done.code, done.out, done.err) == (0, "", "")
    assert made.read_text() == argo(definition).out == argo(definition, "-o", "-").out
    assert [one.name for one in tmp_path.iterdir()] == ["workflow.yaml"]
    assert made.read_text().startswith("# nuclei-segmentation as a Workflow")


def test_a_file_stays_where_nothing_can_be_written(tmp_path: Path, argo: Callable[..., Done]) -> None:
    (tmp_path / "bad.yaml").write_text("api-version: 0.4.0\n")
    (tmp_path / "made.yaml").write_text("before")
    done = argo(tmp_path / "bad.yaml", "-o", tmp_path / "made.yaml")
    assert done.code == 1
    assert "bad.yaml:1:1: error" in done.err
    assert (tmp_path / "made.yaml").read_text() == "before"


@pytest.mark.parametrize("target", ["", "nowhere/made.yaml", "/dev/null"])
def test_places_that_take_no_file(target: str, tmp_path: Path, argo: Callable[..., Done]) -> None:
    done = argo(ROOT / "pipelines" / "nuclei-segmentation.yaml", "-o", tmp_path / target)
    assert done.code == 13, done.err
    assert list(tmp_path.iterdir()) == []
    assert len(done.err.splitlines()) == 1


REFUSED = {
    "expression in a command": (ONE % '"{{workflow.name}}"', [], 1, "p.yaml:5:14: error: operators[0].container: '{{'"),
    "expression in a variable": (
        ONE % "x" + "  variables: {V: '{{=1}}'}\n", [], 1, "error: operators[0].variables: '{{' begins",
    ),
    "expression in a value": ("parameters: {A: '{{x}}'}\n" + ONE % '"${{A}}"', [], 2, "parameter A: '{{' in '{{x}}'"),
    "undeclared": (ONE % "x", ["-p", "B=1"], 1, "no parameter 'B' is declared"),
    "value that does not fit": (
        "parameters: {A: o}\n" + (ONE % "x").replace("name: o", "name: ${{A}}"), ["-p", "A=a b"], 1, "'a b' is not",
    ),
    "missing value": (
        "parameters: {A: }\n" + (ONE % "x").replace("image: a", "image: '${{A}}'"), [], 1, "A has neither value nor",
    ),
    "missing port": (
        "parameters: {A: }\n" + ONE % "x" + "  requests: {cpu: '${{A}}'}\n", [], 1, "neither value nor default",
    ),
    "nobody of that name": (ONE % "x", ["--unrestricted", "p"], 2, "--unrestricted p: there is no such operator"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path, argo: Callable[..., Done]) -> None:
    text, options, code, message = REFUSED[name]
    (tmp_path / "p.yaml").write_text(HEAD + text)
    done = argo(tmp_path / "p.yaml", "-o", tmp_path / "made.yaml", *options)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert not (tmp_path / "made.yaml").exists()


def test_braces_that_would_join_an_expression(export: Export) -> None:
    document = export(HEAD + "parameters: {A: '1'}\n" + ONE % '"{${{A}}}"')
    assert container_of(document, "o")["command"] == ["{1}"]
    assert "arguments" not in document["spec"]


@pytest.mark.parametrize(
    "options",
    ["--shards 0", "--shards x", "--work-claim A_b", "--registry a:b:c", "--triton gpu", "--user 0", "-p A", "-o ''"],
)
def test_a_wrong_command_line(options: str, argo: Callable[..., Done]) -> None:
    with pytest.raises(SystemExit) as ended:
        argo("x.yaml", *shlex.split(options))
    assert ended.value.code == 2


def test_a_file_that_cannot_be_read(tmp_path: Path, argo: Callable[..., Done]) -> None:
    done = argo(tmp_path / "nowhere.yaml")
    assert (done.code, done.out) == (2, "")
    assert "nowhere.yaml:1:1: error: document: the file cannot be read" in done.err


def test_what_the_user_is_told(tmp_path: Path, argo: Callable[..., Done]) -> None:
    (tmp_path / "p.yaml").write_text(HEAD + "operators: [{name: o, container: {image: a}, models: [{name: m}]}]\n")
    done = argo(tmp_path / "p.yaml")
    assert done.code == 0
    assert [line.partition(",")[0] for line in done.err.splitlines()] == [
        "o: has no command", "o: a:latest is not of this project; it runs as user 1000", "o: is given no Triton server",
    ]  # fmt: skip
