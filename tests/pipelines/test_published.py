"""Definitions like those that NVIDIA and others have published can be read, and their oddities are reported.

They are rebuilt with names of our own: three stages in a chain with a variable and a GPU; models at
0.4.0; a Triton service; a DICOM test whose file starts like a shell script; a lung pipeline with variables in the
container and a volume; a split with many named outputs; a genome assembly made of placeholders; the pathology sample.
"""

from __future__ import annotations

import pytest

from tests.pipelines.conftest import Check

CHAIN = """\
api-version: 0.4.0
name: three-stages
orchestrator: Clara
pull-secrets:
  - ngc-clara
operators:
- name: first
  variables:
    CLARA_TRACE: 2
  container:
    image: three/operator
    tag: 0.8.1
  input:
  - path: /input
  output:
  - path: /output
- name: second
  container:
    image: three/operator
    tag: 0.8.1
  input:
  - from: first
    path: /input
  output:
  - path: /output
  requests:
    gpu: 1 # one
- name: third
  container:
    image: three/operator
    tag: 0.8.1
  input:
  - from: second
    path: /input
  output:
  - path: /output
"""
SERVICE = (
    CHAIN
    + """\
  services:
  - name: trtis
  # a comment less indented than what it is about
    container:
      image: nvcr.io/nvidia/tensorrtserver
      tag: 19.08-py3
      command: ["trtserver", "--model-store=$(NVIDIA_CLARA_SERVICE_DATA_PATH)/models"]
    requests:
      gpu: 1
    connections:
      http:
      - name: NVIDIA_CLARA_TRTISURI
        port: 8000
"""
)
DICOM = """\
#!/bin/bash
# a stray line of a script
api-version: 0.4.0
name: dicom
operators:
- name: dicom-check
  container:
    image: clara/dicom-check
    tag: latest
  input:
  - path: /input
  output:
  - path: /output
    name: dcmout
- name: register
  container:
      image: nvcr.io/nvidia/clara/register-results
      tag: 0.7.2-2010.1
      # command: ["python", "register.py", "--agent", "ClaraSCU", "--data", "[\\"MYPACS\\"]"]
      command: ["python", "register.py", "--agent", "ClaraSCU", "--data", "[\\"MYPACS\\"]"]
  input:
  - from: dicom-check
    name: dcmout
    path: /input
"""
SPLIT = """\
api-version: 0.4.0
name: multiAI-split
operators:
- name: split
  container: {image: clara/split}
  input: [{path: /app/in}]
  output:
  - {name: lung, path: /app/out/lung}
  - {name: liver, path: /app/out/liver}
  - {name: config, path: /app/out/config}
- name: lung-tumor
  container: {image: clara/lung}
  input: [{from: split, name: lung, path: /input}]
  output: [{path: /output, name: segmentationLung}]
- name: liver-tumor
  container: {image: clara/liver}
  input: [{from: split, name: liver, path: /input}]
  output: [{path: /output, name: segmentationLiver}]
- name: merge
  container: {image: clara/merge}
  input:
  - {from: lung-tumor, name: segmentationLung, path: /app/lung}
  - {from: liver-tumor, name: segmentationLiver, path: /app/liver}
  - {from: split, name: config, path: /app/config}
"""
GENOME = """\
api-version: 0.3.0
name: assembly
parameters:
  DOCKER_IMAGE: genome/mapper
  DOCKER_TAG: latest
  JOB_ID: 1
  THREADS: 8
operators:
- name: mapper
  container:
    image: ${{DOCKER_IMAGE}}
    tag: ${{DOCKER_TAG}}
    command: ["/bin/sh", "-c",
              "map.sh -i /input -d /mapped/${{JOB_ID}} -t ${{THREADS}}"]
  requests:
    gpu: 1
  input:
  - path: /input/
  output:
  - path: /mapped
- name: polish
  container:
    image: ${{DOCKER_IMAGE}}
    tag: ${{ DOCKER_TAG }}
  input:
  - path: /input/
  - from: mapper
    path: /mapped
  output:
  - path: /polished/
"""
PATHOLOGY = """\
api-version: 0.4.0
name: canny
parameters:
  FILTER_METHOD: canny.canny_itk
  VARIANCE: 10
  LOWER_THRESHOLD: 0.01
operators:
- name: process-image
  container:
    image: clara/dp-sample
    tag: latest
    command: ["/bin/bash", "-c", "python -u /app/main.py image_no --filter=${{FILTER_METHOD}} --variance ${{VARIANCE}}"]
  requests:
    gpu: 1
  input:
  - path: /input
  output:
  - path: /output
- name: register-images-for-rendering
  container:
    image: clara/register-results
    command: ["python", "register.py", "--agent", "renderserver"]
  input:
  - from: process-image
    path: /input
"""


@pytest.mark.parametrize("text", [CHAIN, SERVICE, DICOM, SPLIT, GENOME, PATHOLOGY])
def test_no_findings(check: Check, text: str) -> None:
    report = check(text)
    assert report.findings == ()
    assert report.pipeline is not None


def test_order_and_values(check: Check) -> None:
    split, genome = check(SPLIT).pipeline, check(GENOME).pipeline
    assert split is not None
    assert genome is not None
    assert [one.name for one in split.operators] == ["split", "lung-tumor", "liver-tumor", "merge"]
    assert genome.operators[0].container.command[2] == "map.sh -i /input -d /mapped/1 -t 8"


def test_models_before_their_version_are_a_warning(check: Check) -> None:
    """The documentation says 0.6.0; NVIDIA's own tool tests them at 0.4.0."""
    report = check(CHAIN + "  models:\n  # change this line\n  - name: segmentation_ct_spleen_v1\n")
    assert [(one.code, one.severity) for one in report.findings] == [("models", "warning")]
    assert report.pipeline is not None


LUNG = (
    SERVICE
    + """\
      volume:
      - name: VOLUME_PATH
        path: /clara/common/models
- name: dicom-seg-writer
  container:
    image: nvcr.io/nvidia/clara/dicom-seg-writer
    tag: 0.7.3-2011.5
    variables:
      LABELS: '[\\"Lung\\"]'
  input:
  - from: third
    path: /input
  - path: /dcm
"""
)


def test_unknown_keys_are_accepted_by_a_lenient_check(check: Check) -> None:
    text = LUNG.replace("tag: 19.08-py3", "tag: 19.08-py3\n      hostVolumePath: /clara/common/models/    ")
    assert [one.code for one in check(text).findings] == ["unknown-key", "unknown-key"]
    report = check(text, lenient=True)
    assert report.errors == 0
    assert report.pipeline is not None
    assert report.pipeline.operator("dicom-seg-writer").variables == {"LABELS": '[\\"Lung\\"]'}


def test_a_spelling_from_before_the_release(check: Check) -> None:
    text = "api-version: 0.5.0\nname: x\noperators:\n- name: a\n  container: {image: a}\n  output:\n"
    report = check(text + "  - {name: d, type: stream, format: dicom, path: /o}\n")
    assert {(one.code, one.expected) for one in report.findings} >= {("unknown-key", "did you mean element-type?")}


def test_broken_yaml(check: Check) -> None:
    (finding,) = check("api-version: 0.4.0\nname: three: stages\n").findings
    assert (finding.code, finding.place.line, finding.place.column) == ("yaml", 2, 12)
