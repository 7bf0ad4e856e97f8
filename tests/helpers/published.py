"""Definitions of the shapes that NVIDIA and others have published, rebuilt from the facts, with names of our own."""

from __future__ import annotations

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
