"""Operators and services in files of their own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nuclei_segmentation.pipelines import Definition
from tests.helpers.definitions import HERE, Check, found, marked

ROOT = """\
api-version: 0.2.0
name: sample
operators:
  - name: producer
    import:
      path: producer.yaml
  - name: consumer
    import:
      path: parts/consumer.yaml
      args:
        input-from: producer
"""
PRODUCER = """\
api-version: 0.2.0
name: any
container: {image: a/producer, tag: 1}
output:
- path: /output
"""
CONSUMER = """\
api-version: 0.2.0
name: any
parameters:
  input-from:
  level: low
container: {image: a/consumer, command: ["go ${{level}}"]}
input:
- from: ${{input-from}}
  path: /input
services:
- name: helper
  import: {path: service.yaml}
"""
SERVICE = """\
api-version: 0.2.0
name: any
container: {image: a/service}
connections: {http: [{name: URI, port: 8000}]}
"""
FILES = {"producer.yaml": PRODUCER, "parts/consumer.yaml": CONSUMER, "parts/service.yaml": SERVICE}


def test_files_with_arguments(check: Check) -> None:
    report = check(ROOT, FILES)
    assert report.findings == ()
    assert report.pipeline is not None
    producer, consumer = report.pipeline.operators
    assert (producer.name, producer.container.reference) == ("producer", "a/producer:1")
    assert consumer.upstream == ("producer",)
    assert consumer.container.command == ("go low",)
    assert consumer.services[0].name == "helper"
    assert consumer.services[0].connections[0].name == "URI"
    assert consumer.imported is not None
    assert consumer.imported.arguments == {"input-from": "producer"}
    assert consumer.imported.file.endswith("parts/consumer.yaml")


def test_keys_next_to_an_import_replace_those_of_the_file(check: Check) -> None:
    text = ROOT.replace("path: producer.yaml", "path: producer.yaml\n    variables: {A: 1}\n    requests: {gpu: 1}")
    pipeline = check(text, {**FILES, "producer.yaml": PRODUCER + "variables: {A: 2, B: 3}\n"}).pipeline
    assert pipeline is not None
    assert pipeline.operator("producer").variables == {"A": "1"}
    assert pipeline.operator("producer").requests.gpu == 1


def test_the_same_file_twice_with_other_arguments(check: Check) -> None:
    text = ROOT + "  - name: more\n    import: {path: parts/consumer.yaml, args: {input-from: consumer, level: high}}\n"
    files = {**FILES, "parts/consumer.yaml": CONSUMER + "output: [{path: /output}]\n"}
    pipeline = check(text, files).pipeline
    assert pipeline is not None
    assert [one.container.command for one in pipeline.operators] == [(), ("go low",), ("go high",)]


def test_arguments_may_use_the_importers_parameters(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    text = ROOT.replace("operators:", "parameters: {LEVEL: mid}\noperators:")
    (tmp_path / "p.yaml").write_text(text + '        level: "${{LEVEL}}"\n')
    assert Definition(tmp_path / "p.yaml").resolve({"LEVEL": "x"}).operator("consumer").container.command == ("go x",)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (ROOT.replace("path: producer.yaml", f"path: {HERE}nowhere.yaml"), "file"),
        (ROOT.replace("path: producer.yaml", f"path: {HERE}../producer.yaml"), "import"),
        (ROOT.replace("path: producer.yaml", f"path: {HERE}/etc/passwd"), "import"),
        (ROOT.replace("path: producer.yaml", f"path: {HERE}link.yaml"), "import"),
        (ROOT.replace("path: producer.yaml", f"path: {HERE}parts"), "file"),
        (ROOT.replace("path: producer.yaml", f'path: {HERE}"a\\0b"'), "import"),
        (ROOT.replace("path: producer.yaml", f'path: {HERE}"\\ud800"'), "import"),
        (ROOT.replace("path: producer.yaml", f"path: {HERE}'${{{{A}}}}'").replace(
            "name: sample", "name: sample\nparameters: {A: producer.yaml}"), "import"),
        (ROOT.replace("path: producer.yaml", f"path: {HERE}pipe"), "file"),
        (ROOT.replace("path: producer.yaml", f"path: {HERE}pipeline.yaml"), "import-cycle"),
        (ROOT.replace("import:\n      path: producer.yaml", f"import: {HERE}producer.yaml"), "wrong-kind"),
        (ROOT.replace("path: producer.yaml", f"{HERE}file: producer.yaml"), "missing"),
        (ROOT.replace("input-from: producer", f"input-from: producer\n        {HERE}levl: x"), "undeclared"),
        (ROOT.replace("      args:\n        input-from: producer\n", "").replace(
            "path: parts", f"{HERE}path: parts"), "no-value"),
    ],
)  # fmt: skip
def test_a_wrong_import(check: Check, tmp_path: Path, text: str, code: str) -> None:
    (tmp_path / "link.yaml").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    plain, line, column = marked(text)
    report = check(plain, FILES)
    findings = [one for one in found(report) if one[0] != "unknown-key"]
    assert findings == [(code, line, column)]
    assert not report.unreadable, "the definition itself can be read"


@pytest.mark.parametrize(
    ("file", "text", "code"),
    [
        ("producer.yaml", HERE + PRODUCER.replace("api-version: 0.2.0\n", ""), "missing"),
        ("producer.yaml", PRODUCER.replace("0.2.0", f"{HERE}0.5.0"), "api-version"),
        ("producer.yaml", PRODUCER.replace("container: {image: a/producer, tag: 1}\n", "").replace("api", f"{HERE}api"),
         "missing"),
        ("producer.yaml", PRODUCER + f"{HERE}operators: []\n", "unknown-key"),
        ("producer.yaml", PRODUCER + f'variables: {{A: "{HERE}${{{{LEVEL}}}}"}}\n', "undeclared"),
        ("parts/service.yaml", SERVICE.replace("8000", f"{HERE}80"), "bad-value"),
        ("parts/service.yaml", SERVICE + f"{HERE}input: []\n", "unknown-key"),
        ("parts/consumer.yaml", CONSUMER + f"models: {HERE}[\n", "yaml"),
    ],
)  # fmt: skip
def test_mistakes_in_an_imported_file_are_found_there(check: Check, file: str, text: str, code: str) -> None:
    plain, line, column = marked(text)
    root = ROOT.replace("operators:", "parameters: {LEVEL: x}\noperators:")
    report = check(root, {**FILES, file: plain})
    (finding,) = report.findings
    assert finding.place.file.endswith(file)
    if code == "yaml":  # the parser sees an open bracket at the end only
        line, column = line + 1, 1
    assert (finding.code, finding.place.line, finding.place.column) == (code, line, column)


def test_a_chain_of_imports_and_a_cycle_in_one(check: Check) -> None:
    chain = {"b.yaml": "api-version: 0.2.0\nimport: {path: c.yaml}\nvariables: {A: 1}\n", "c.yaml": PRODUCER}
    text = "api-version: 0.2.0\nname: s\noperators:\n- name: x\n  import: {path: b.yaml}\n"
    pipeline = check(text, chain).pipeline
    assert pipeline is not None
    assert pipeline.operators[0].container.image == "a/producer"
    assert pipeline.operators[0].variables == {"A": "1"}
    report = check(text, {**chain, "c.yaml": "api-version: 0.2.0\nimport: {path: b.yaml}\n"})
    assert [one.code for one in report.findings] == ["import-cycle"]


def test_a_mistake_in_a_file_that_is_imported_twice_is_reported_once(check: Check) -> None:
    text = ROOT + "  - name: again\n    import: {path: producer.yaml}\n"
    report = check(text, {**FILES, "producer.yaml": PRODUCER + "nothing: 1\n"})
    assert [one.code for one in report.findings] == ["unknown-key"]


def test_the_same_service_twice_in_one_operator(check: Check) -> None:
    consumer = CONSUMER + "- import: {path: service.yaml}\n" * 2
    assert [one.code for one in check(ROOT, {**FILES, "parts/consumer.yaml": consumer}).findings] == ["duplicate"]


def test_too_many_imports(check: Check) -> None:
    many = "".join(f"- name: x{number}\n  import: {{path: producer.yaml}}\n" for number in range(300))
    report = check("api-version: 0.2.0\nname: s\noperators:\n" + many, FILES)
    assert {one.code for one in report.findings} == {"import"}
    files = {f"f{number}.yaml": PRODUCER for number in range(80)}
    many = "".join(f"- name: x{number}\n  import: {{path: f{number}.yaml}}\n" for number in range(80))
    report = check("api-version: 0.2.0\nname: s\noperators:\n" + many, files)
    assert {one.code for one in report.findings} == {"import"}
