"""Definitions like those that NVIDIA and others have published can be read, and their oddities are reported.

They are rebuilt with names of our own: three stages in a chain with a variable and a GPU; models at
0.4.0; a Triton service; a DICOM test whose file starts like a shell script; a lung pipeline with variables in the
container and a volume; a split with many named outputs; a genome assembly made of placeholders; the pathology sample.
"""

from __future__ import annotations

import pytest

from tests.helpers.definitions import Check
from tests.helpers.published import CHAIN, DICOM, GENOME, LUNG, PATHOLOGY, SERVICE, SPLIT


@pytest.mark.parametrize("text", [CHAIN, SERVICE, DICOM, SPLIT, GENOME, PATHOLOGY])
def test_published_shapes_have_no_findings(check: Check, text: str) -> None:
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
