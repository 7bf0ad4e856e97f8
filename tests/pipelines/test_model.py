"""The objects that a definition becomes, for runners and exporters."""

from __future__ import annotations

import dataclasses

import pytest

from nuclei_segmentation.pipelines import (
    DYNAMIC,
    Connection,
    Container,
    DataType,
    Input,
    Model,
    Output,
    Pipeline,
    Requests,
)
from tests.helpers.definitions import Check

TEXT = """\
#!/bin/bash
api-version: 0.7.0
name: whole
description: everything at once
pull-secrets: [ngc-clara]
operators:
- name: reader
  description: reads
  container: {image: nvcr.io/nvidia/clara/reader, tag: 0.10, command: [python, -u, main.py, 1, ""]}
  requests: {cpu: 4, memory: 256, gpu: 1}
  variables: {CLARA_TRACE: 2, PATH_: "/x y", EMPTY: , YES: yes}
  input:
  - {name: dicom, type: stream, element-type: dicom, path: /input}
  output:
  - {name: volume, type: array, element-type: f32, shape: [0, -1, 3]}
  - {name: label, type: string}
  - {name: count, type: i64}
- name: writer
  container: {image: writer}
  input:
  - {from: reader, name: Volume, type: array, element-type: float32, shape: [-1, -1, 3]}
  - {from: reader, name: label, type: array, element-type: uint8, shape: [-1]}
  - {from: reader, name: count, type: array, element-type: int64, shape: [1]}
  models: [{name: segmentation_v1}]
  services:
  - name: triton
    container: {image: tritonserver, tag: 20.07-v1-py3, command: [tritonserver]}
    requests: {gpu: 1}
    connections:
      http: [{name: NVIDIA_CLARA_TRTISURI, port: 8000}]
      volume: [{name: MODELS, path: /models}]
"""


@pytest.fixture
def pipeline(check: Check) -> Pipeline:
    result = check(TEXT).pipeline
    assert result is not None
    return result


def test_what_is_said_of_the_pipeline_is_read(pipeline: Pipeline) -> None:
    assert (pipeline.name, pipeline.api_version, pipeline.orchestrator) == ("whole", "0.7.0", "Clara")
    assert pipeline.typed
    assert pipeline.pull_secrets == ("ngc-clara",)
    assert pipeline.description == "everything at once"


def test_what_is_said_of_an_operator_is_read(pipeline: Pipeline) -> None:
    reader = pipeline.operator("reader")
    assert reader.container == Container("nvcr.io/nvidia/clara/reader", "0.10", ("python", "-u", "main.py", "1", ""))
    assert reader.requests == Requests(4000, 256 * 2**20, 1, frozenset({"cpu", "memory", "gpu"}))
    assert reader.variables == {"CLARA_TRACE": "2", "PATH_": "/x y", "EMPTY": "", "YES": "yes"}
    assert reader.inputs == (Input(None, "dicom", "dicom", "/input", DataType("stream", "dicom")),)
    assert reader.outputs == (
        Output("volume", None, DataType("array", "float32", (DYNAMIC, DYNAMIC, 3))),
        Output("label", None, DataType("array", "uint8", (DYNAMIC,))),
        Output("count", None, DataType("array", "int64", (1,))),
    )
    assert reader.places["container"].line == 9


def test_requests_have_claras_defaults(pipeline: Pipeline) -> None:
    writer = pipeline.operator("writer")
    assert writer.container.reference == "writer:latest"
    assert writer.requests == Requests(2000, 1024 * 2**20, 0)
    assert not writer.requests.given
    assert writer.outputs == ()


def test_inputs_name_the_output_that_they_read(pipeline: Pipeline) -> None:
    assert [(one.source, one.output) for one in pipeline.operator("writer").inputs] == [
        ("reader", "volume"), ("reader", "label"), ("reader", "count"),
    ]  # fmt: skip


def test_models_and_services(pipeline: Pipeline) -> None:
    writer = pipeline.operator("writer")
    assert writer.models == (Model("segmentation_v1"),)
    (service,) = writer.services
    assert service.container.command == ("tritonserver",)
    assert service.requests.gpu == 1
    assert service.connections == (
        Connection("http", "NVIDIA_CLARA_TRTISURI", 8000),
        Connection("volume", "MODELS", None, "/models"),
    )


def test_equal_services_of_several_operators_are_one_service(check: Check) -> None:
    def operator(name: str, service: str) -> str:
        return (
            f"- name: {name}\n  container: {{image: a}}\n  services:\n  - name: {service}\n"
            f"    container: {{image: t, command: [{service[0]}]}}\n"
            "    connections: {http: [{name: U, port: 8000}]}\n"
        )

    text = (
        "api-version: 0.4.0\nname: x\noperators:\n" + operator("a", "tone") + operator("b", "two") + operator("c", "s")
    )
    pipeline = check(text).pipeline
    assert pipeline is not None
    assert [one.name for one in pipeline.services] == ["tone", "s"]


def test_a_pipeline_cannot_be_changed(pipeline: Pipeline) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        pipeline.name = "other"  # type: ignore[misc]
    with pytest.raises(KeyError):
        pipeline.operator("nobody")


@pytest.mark.parametrize(("version", "orchestrator", "typed"), [
    ("0.2.0", "Argo", False), ("0.3.0", "Argo", False), ("0.4.0", "Clara", False),
])  # fmt: skip
def test_the_version_decides(check: Check, version: str, orchestrator: str, typed: bool) -> None:
    text = f"api-version: {version}\nname: x\noperators: [{{name: a, container: {{image: a}}}}]\n"
    pipeline = check(text).pipeline
    assert pipeline is not None
    assert (pipeline.orchestrator, pipeline.typed) == (orchestrator, typed)
