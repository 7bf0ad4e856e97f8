"""Each rule of the language: a definition that keeps it, one that breaks it, and the place of the finding."""

from __future__ import annotations

import re
import textwrap

import pytest

from tests.helpers.definitions import HERE, Check, found, marked

UNTYPED = """\
api-version: 0.4.0
name: rule
operators:
- name: one
  container: {image: a/one}
  input:
  - path: /input
  output:
  - path: /output
"""
TYPED = """\
api-version: 0.7.0
name: rule
operators:
- name: one
  container: {image: a/one}
  output:
  - {name: out, type: array, element-type: uint8, shape: [-1, 3]}
"""


def root(text: str) -> str:
    """Return a pipeline with more keys at its top level, in place of its version."""
    return text + UNTYPED.split("\n", 1)[1]


def operator(text: str, base: str = UNTYPED) -> str:
    """Return a pipeline whose operator has more keys."""
    return base + textwrap.indent(textwrap.dedent(text), "  ")


def second(text: str, base: str = UNTYPED) -> str:
    """Return a pipeline with a second operator, `two`."""
    return f"{base}- name: two\n  container: {{image: a/two}}\n" + textwrap.indent(textwrap.dedent(text), "  ")


def container(text: str) -> str:
    """Return a pipeline whose operator has this container."""
    return UNTYPED.replace("{image: a/one}", text)


def service(text: str) -> str:
    """Return a pipeline whose operator has a service with more keys."""
    return operator(f"""\
    services:
    - name: triton
      container: {{image: a/triton}}
      {text}
    """)


def output(text: str) -> str:
    """Return a typed pipeline whose operator has this output."""
    return TYPED.replace("{name: out, type: array, element-type: uint8, shape: [-1, 3]}", text)


RULES = {
    # the pipeline itself
    "api-version": ("missing", UNTYPED, HERE + UNTYPED.split("\n", 1)[1]),
    "api-version-form": ("api-version", root("api-version: 0.3.0\n"), root(f"api-version: {HERE}0.4\n")),
    "api-version-old": ("api-version", root("api-version: 0.2.0\n"), root(f"api-version: {HERE}0.1.0\n")),
    "api-version-new": ("api-version", TYPED, root(f"api-version: {HERE}0.8.0\n")),
    "name": ("missing", UNTYPED, HERE + UNTYPED.replace("name: rule\n", "")),
    "name-empty": ("missing", UNTYPED, HERE + UNTYPED.replace("name: rule\n", "name:\n")),
    "name-form": ("bad-value", UNTYPED.replace("rule", "A_b-9"), UNTYPED.replace("rule", f"{HERE}a.b")),
    "name-length": ("bad-value", UNTYPED.replace("rule", "a" * 255), UNTYPED.replace("rule", HERE + "a" * 256)),
    "operators": ("missing", UNTYPED, f"{HERE}api-version: 0.4.0\nname: rule\n"),
    "operators-some": ("missing", UNTYPED, f"api-version: 0.4.0\nname: rule\noperators: {HERE}[]\n"),
    "operators-list": ("wrong-kind", UNTYPED, f"api-version: 0.4.0\nname: rule\noperators:\n  {HERE}one: 1\n"),
    "orchestrator": (
        "orchestrator",
        root("api-version: 0.4.0\norchestrator: Argo\n"),
        root(f"api-version: 0.4.0\norchestrator: {HERE}clara\n"),
    ),
    "orchestrator-typed": (
        "orchestrator",
        f"orchestrator: Clara\n{TYPED}",
        f"orchestrator: {HERE}Argo\n{TYPED}",
    ),
    "pull-secrets": (
        "wrong-kind",
        root("api-version: 0.4.0\npull-secrets: [ngc-clara]\n"),
        root(f"api-version: 0.4.0\npull-secrets: {HERE}ngc-clara\n"),
    ),
    "description": (
        "wrong-kind",
        root("api-version: 0.4.0\ndescription: text\n"),
        root(f"api-version: 0.4.0\ndescription: {HERE}[text]\n"),
    ),
    "unknown-root": ("unknown-key", UNTYPED, root(f"api-version: 0.4.0\n{HERE}operatos: 1\n")),
    # operators
    "operator-name": ("missing", UNTYPED, f"{UNTYPED}- {HERE}container: {{image: a/b}}\n"),
    "operator-name-form": ("bad-name", UNTYPED, UNTYPED.replace("name: one", f"name: {HERE}'o ne'")),
    "operator-unique": (
        "duplicate",
        second("input: [{path: /input}]\n"),
        f"{UNTYPED}- name: {HERE}ONE\n  container: {{image: a/two}}\n",
    ),
    "operator-version": (
        "api-version",
        operator("api-version: 0.4.0\n"),
        operator(f"api-version: {HERE}0.3.0\n"),
    ),
    "unknown-operator-key": ("unknown-key", operator("input-x:\n").replace("input-x", "models"),
                             operator(f"{HERE}inputs: 1\n")),
    # containers
    "container": ("missing", UNTYPED, f"{UNTYPED}- {HERE}name: two\n"),
    "container-kind": ("wrong-kind", UNTYPED, container(f"{HERE}a/one")),
    "image": ("missing", UNTYPED, container(f"{HERE}{{tag: '1'}}")),
    "image-form": ("bad-value", container("{image: nvcr.io/nvidia/x_y-z}"), container(f"{{image: {HERE}Nuclei/load}}")),
    "image-tag": ("bad-value", container("{image: 'host:5000/load'}"), container(f"{{image: {HERE}'load:1'}}")),
    "image-digest": ("bad-value", UNTYPED, container(f"{{image: {HERE}'load@sha256:00'}}")),
    "tag": ("bad-value", container("{image: a, tag: 18.04}"), container(f"{{image: a, tag: {HERE}'a b'}}")),
    "command": ("wrong-kind", container("{image: a, command: [x, 1, '']}"),
                container(f"{{image: a, command: {HERE}x y}}")),
    "command-word": ("wrong-kind", UNTYPED, container(f"{{image: a, command: [x, {HERE}[y]]}}")),
    "command-null": ("missing", UNTYPED, container(f"{{image: a, command: [x, {HERE}~]}}")),
    "unknown-container-key": ("unknown-key", UNTYPED, container(f"{{image: a, {HERE}hostVolumePath: /x}}")),
    # requests
    "cpu": ("bad-value", operator("requests: {cpu: 1}\n"), operator(f"requests: {{cpu: {HERE}0}}\n")),
    "cpu-whole": ("bad-value", operator("requests: {cpu: 16}\n"), operator(f"requests: {{cpu: {HERE}1.5}}\n")),
    "gpu": ("bad-value", operator("requests: {gpu: 0}\n"), operator(f"requests: {{gpu: {HERE}-1}}\n")),
    "memory": ("bad-value", operator("requests: {memory: 512}\n"), operator(f"requests: {{memory: {HERE}512Mi}}\n")),
    "memory-large": ("bad-value", operator("requests: {memory: 67108864}\n"),
                     operator(f"requests: {{memory: {HERE}67108865}}\n")),
    "requests-text": ("bad-value", operator("requests: {cpu: 2}\n"), operator(f"requests: {{cpu: {HERE}'2'}}\n")),
    "requests-octal": ("bad-value", operator("requests: {cpu: 10}\n"), operator(f"requests: {{cpu: {HERE}010}}\n")),
    "requests-shared": ("unknown-key", UNTYPED, operator(f"requests: {{{HERE}shared-memory: 1}}\n")),
    # variables
    "variables": ("wrong-kind", operator("variables: {A: 2, b.c-d: x, E: , F: true}\n"),
                  operator(f"variables: {HERE}[A]\n")),
    "variable-name": ("bad-name", operator("variables: {_A9: x}\n"), operator(f"variables: {{{HERE}9A: x}}\n")),
    "variable-equals": ("bad-name", UNTYPED, operator(f"variables: {{{HERE}A=B: x}}\n")),
    "variable-value": ("wrong-kind", UNTYPED, operator(f"variables: {{A: {HERE}[x]}}\n")),
    # models
    "models": ("wrong-kind", operator("models: [{name: m}]\n", TYPED), operator(f"models: [{HERE}m]\n", TYPED)),
    "model-name": ("bad-value", operator("models: [{name: m_1}]\n", TYPED),
                   operator(f"models: [{{name: {HERE}../m}}]\n", TYPED)),
    "model-twice": ("duplicate", operator("models: [{name: m}, {name: n}]\n", TYPED),
                    operator(f"models: [{{name: m}}, {{name: {HERE}M}}]\n", TYPED)),
    # services
    "service-port": ("bad-value", service("connections: {http: [{name: A, port: 1024}]}"),
                     service(f"connections: {{http: [{{name: A, port: {HERE}1023}}]}}")),
    "service-port-high": ("bad-value", service("connections: {http: [{name: A, port: 65535}]}"),
                          service(f"connections: {{http: [{{name: A, port: {HERE}65536}}]}}")),
    "service-port-text": ("bad-value", UNTYPED, service(f"connections: {{http: [{{name: A, port: {HERE}'8000'}}]}}")),
    "connection-name": ("bad-value", service("connections: {http: [{name: _A1, port: 8000}]}"),
                        service(f"connections: {{http: [{{name: {HERE}A-1, port: 8000}}]}}")),
    "connection-named": ("missing", UNTYPED, service(f"connections: {{http: [{HERE}{{port: 8000}}]}}")),
    "connection-twice": (
        "duplicate",
        service("connections: {http: [{name: A, port: 8000}, {name: B, port: 8001}]}"),
        service(f"connections: {{http: [{{name: A, port: 8000}}], volume: [{{name: {HERE}A, path: /m}}]}}"),
    ),
    "connection-kind": ("unknown-key", service("connections: {volume: [{name: M, path: /m}]}"),
                        service(f"connections: {{{HERE}grpc: []}}")),
    "connection-path": ("bad-value", service("connections: {volume: [{name: M, path: /m}]}"),
                        service(f"connections: {{volume: [{{name: M, path: {HERE}m}}]}}")),
    "service-container": ("missing", service("connections: {http: [{name: A, port: 8000}]}"),
                          operator(f"services: [{HERE}{{name: s, connections: {{}}}}]\n")),
    "service-unique": (
        "duplicate",
        operator("services: [{name: s, container: {image: a}, connections: {}}]\n"),
        operator(f"services: [{{name: s, container: {{image: a}}, connections: {{}}}},"
                 f" {{name: {HERE}S, container: {{image: b}}, connections: {{}}}}]\n"),
    ),
    # untyped inputs and outputs
    "input-path": ("missing", UNTYPED, second(f"input: [{HERE}{{from: one}}]\n")),
    "path-rooted": ("bad-value", UNTYPED, UNTYPED.replace("path: /input", f"path: {HERE}input")),
    "path-root": ("bad-value", UNTYPED, UNTYPED.replace("path: /input", f"path: {HERE}/")),
    "path-up": ("bad-value", UNTYPED, UNTYPED.replace("path: /input", f"path: {HERE}/a/../etc")),
    "path-colon": ("bad-value", UNTYPED, UNTYPED.replace("path: /input", f"path: {HERE}/a:ro")),
    "path-twice": ("duplicate", UNTYPED, UNTYPED.replace("path: /output", f"path: {HERE}/input/")),
    "output-path": ("missing", UNTYPED, UNTYPED.replace("path: /output", f"{HERE}name: x")),
    "output-names": (
        "missing",
        UNTYPED.replace("- path: /output", "- {name: a, path: /a}\n  - {name: b, path: /b}"),
        UNTYPED.replace("- path: /output", f"- {{name: a, path: /a}}\n  - {HERE}{{path: /b}}"),
    ),
    "output-unique": (
        "duplicate",
        UNTYPED.replace("- path: /output", "- {name: a, path: /a}\n  - {name: b, path: /b}"),
        UNTYPED.replace("- path: /output", f"- {{name: a, path: /a}}\n  - {{name: {HERE}A, path: /b}}"),
    ),
    "output-name": ("bad-name", UNTYPED, UNTYPED.replace("path: /output", f"{{name: {HERE}a b, path: /output}}")),
    "input-kind": ("wrong-kind", UNTYPED, UNTYPED.replace("path: /input", f"{HERE}/input")),
    "output-kind": ("wrong-kind", UNTYPED, UNTYPED.replace("path: /output", f"{HERE}/output")),
    "service-kind": ("wrong-kind", UNTYPED, operator(f"services: [{HERE}triton]\n")),
    "service-version": (
        "api-version",
        operator("services: [{name: s, api-version: 0.4.0, container: {image: a}, connections: {}}]\n"),
        operator(f"services: [{{name: s, api-version: {HERE}1, container: {{image: a}}, connections: {{}}}}]\n"),
    ),
    "untyped-type": ("type", UNTYPED, UNTYPED.replace("path: /output", f"path: /output\n    {HERE}type: stream")),
    # from
    "from": ("unknown-operator", second("input: [{from: One, path: /i}]\n"),
             second(f"input: [{{from: {HERE}ome, path: /i}}]\n")),
    "from-empty": ("bad-value", UNTYPED, second(f"input: [{{from: {HERE}'', path: /i}}]\n")),
    "from-no-output": (
        "unknown-output",
        UNTYPED,
        second(f"input: [{{from: {HERE}one, path: /i}}]\n", UNTYPED.replace("  output:\n  - path: /output\n", "")),
    ),
    "from-unnamed": ("unknown-output", second("input: [{from: one, path: /i}]\n"),
                     second(f"input: [{{from: one, name: {HERE}x, path: /i}}]\n")),
    "from-named": (
        "unknown-output",
        second("input: [{from: one, name: A, path: /i}]\n", UNTYPED.replace("path: /output", "{path: /o, name: a}")),
        second(f"input: [{{from: {HERE}one, path: /i}}]\n", UNTYPED.replace("path: /output", "{path: /o, name: a}")),
    ),
    "from-name": (
        "unknown-output",
        second("input: [{from: one, name: A, path: /i}]\n", UNTYPED.replace("path: /output", "{path: /o, name: a}")),
        second(f"input: [{{from: one, name: {HERE}b, path: /i}}]\n",
               UNTYPED.replace("path: /output", "{path: /o, name: a}")),
    ),
    # typed inputs and outputs
    "type": ("missing", TYPED, output(f"{HERE}{{name: out, path: /o}}")),
    "type-known": ("type", output("{name: out, type: f16}"), output(f"{{name: out, type: {HERE}float8}}")),
    "type-name": ("missing", TYPED, output(f"{HERE}{{type: string}}")),
    "stream-path": ("missing", output("{name: out, type: stream, element-type: dicom, path: /o}"),
                    output(f"{HERE}{{name: out, type: stream, element-type: dicom}}")),
    "stream-element": ("missing", TYPED, output(f"{HERE}{{name: out, type: stream, path: /o}}")),
    "stream-shape": ("type", TYPED,
                     output(f"{{name: out, type: stream, element-type: d, path: /o, {HERE}shape: [1]}}")),
    "array-element": ("missing", TYPED, output(f"{HERE}{{name: out, type: array, shape: [1]}}")),
    "array-primitive": ("type", output("{name: out, type: array, element-type: i8, shape: [0, 2]}"),
                        output(f"{{name: out, type: array, element-type: {HERE}dicom, shape: [1]}}")),
    "array-shape": ("missing", TYPED, output(f"{HERE}{{name: out, type: array, element-type: u8}}")),
    "array-shape-list": ("wrong-kind", TYPED, output(f"{{name: out, type: array, element-type: u8, shape: {HERE}3}}")),
    "array-shape-some": ("type", TYPED, output(f"{{name: out, type: array, element-type: u8, shape: {HERE}[]}}")),
    "array-shape-number": ("bad-value", TYPED,
                           output(f"{{name: out, type: array, element-type: u8, shape: [1, {HERE}-2]}}")),
    "array-path": ("type", TYPED,
                   output(f"{{name: out, type: array, element-type: u8, shape: [1], {HERE}path: /o}}")),
    "string-bare": ("type", output("{name: out, type: string}"),
                    output(f"{{name: out, type: string, {HERE}element-type: u8}}")),
    "primitive-bare": ("type", output("{name: out, type: uint16}"),
                       output(f"{{name: out, type: uint16, {HERE}shape: [1]}}")),
    "typed-from-name": (
        "missing",
        second("input: [{from: one, name: out, type: array, element-type: u8, shape: [0, 3]}]\n", TYPED),
        second(f"input: [{HERE}{{from: one, type: array, element-type: u8, shape: [-1, 3]}}]\n", TYPED),
    ),
    "typed-match-element": (
        "type-mismatch",
        second("input: [{from: one, name: OUT, type: array, element-type: uint8, shape: [-1, 3]}]\n", TYPED),
        second(f"input: [{{from: one, name: out, type: {HERE}array, element-type: i8, shape: [-1, 3]}}]\n", TYPED),
    ),
    "typed-match-shape": (
        "type-mismatch",
        second("input: [{from: one, name: out, type: array, element-type: u8, shape: [-1]}]\n",
               output("{name: out, type: string}")),
        second(f"input: [{{from: one, name: out, type: {HERE}array, element-type: u8, shape: [1]}}]\n",
               output("{name: out, type: string}")),
    ),
    "typed-match-kind": (
        "type-mismatch",
        second("input: [{from: one, name: out, type: array, element-type: f64, shape: [1]}]\n",
               output("{name: out, type: float64}")),
        second(f"input: [{{from: one, name: out, type: {HERE}stream, element-type: uint8, path: /i}}]\n",
               output("{name: out, type: u8}")),
    ),
    "typed-payload-unnamed": (
        "missing",
        operator("input: [{type: stream, element-type: d, path: /i}]\n", TYPED),
        operator(f"input: [{HERE}{{type: stream, element-type: d}}]\n", TYPED),
    ),
    # parameters
    "parameters": ("wrong-kind", root("api-version: 0.4.0\nparameters: {A: 1, B: 0.01, C: x, D: }\n"),
                   root(f"api-version: 0.4.0\nparameters: {HERE}[A]\n")),
    "parameter-name": ("bad-name", UNTYPED, root(f"api-version: 0.4.0\nparameters: {{{HERE}a b: 1}}\n")),
    "parameter-value": ("wrong-kind", UNTYPED, root(f"api-version: 0.4.0\nparameters: {{A: {HERE}[1]}}\n")),
    "parameter-default": ("placeholder", UNTYPED,
                          root(f"api-version: 0.4.0\nparameters: {{A: 1, B: {HERE}'${{{{A}}}}'}}\n")),
}  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_a_definition_that_keeps_a_rule_has_no_findings(check: Check, rule: str) -> None:
    assert found(check(RULES[rule][1])) == []


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_is_one_error_in_its_place(check: Check, rule: str) -> None:
    code, _, broken = RULES[rule]
    text, line, column = marked(broken)
    report = check(text)
    assert found(report) == [(code, line, column)]
    assert report.pipeline is None
    (finding,) = report.findings
    assert finding.severity == "error"
    assert finding.message
    assert finding.expected


WARNINGS = {
    "api-version-patch": ("api-version", root(f"api-version: {HERE}0.4.1\n")),
    "models-early": ("models", operator(f"{HERE}models: [{{name: m}}]\n")),
    "services-late": (
        "services",
        operator(f"{HERE}services: [{{name: s, container: {{image: a}}, connections: {{}}}}]\n", TYPED),
    ),
    "service-unreachable": ("connection", operator(f"services: [{HERE}{{name: s, container: {{image: a}}}}]\n")),
    "connection-port": ("connection", service(f"connections: {{http: [{HERE}{{name: A}}]}}")),
    "orchestrator-early": ("orchestrator", root(f"api-version: 0.3.0\norchestrator: {HERE}Clara\n")),
}


@pytest.mark.parametrize("rule", WARNINGS)
def test_what_is_doubtful_is_a_warning_in_its_place(check: Check, rule: str) -> None:
    code, text_with_mark = WARNINGS[rule]
    text, line, column = marked(text_with_mark)
    report = check(text)
    assert found(report) == [(code, line, column)]
    assert report.findings[0].severity == "warning"
    assert report.pipeline is not None


SUGGESTIONS = {
    "operatos": (root("api-version: 0.4.0\noperatos: 1\n"), "did you mean operators?"),
    "api_version": (root("api-version: 0.4.0\napi_version: 1\n"), "did you mean api-version?"),
    "env": (operator("env: {}\n"), "did you mean variables?"),
    "command": (operator("command: []\n"), "did you mean container.command?"),
    "format": (output("{name: out, type: string, format: dicom}"), "did you mean element-type?"),
    "hostVolumePath": (container("{image: a, hostVolumePath: x}"), "it may have image, tag, command"),
    "from": (second("input: [{from: ome, path: /i}]\n"), "did you mean one?"),
    "type": (output("{name: out, type: flaot32}"), "did you mean float32?"),
    "orchestrator": (root("api-version: 0.4.0\norchestrator: clara\n"), "did you mean Clara?"),
}


@pytest.mark.parametrize("word", SUGGESTIONS)
def test_an_unknown_word_gets_a_suggestion(check: Check, word: str) -> None:
    text, expected = SUGGESTIONS[word]
    (finding,) = check(text).findings
    assert finding.expected == expected


def test_unknown_keys_are_warnings_if_the_check_is_lenient(check: Check) -> None:
    text = container("{image: a, hostVolumePath: x, variables: {A: 1}}")
    assert [one.severity for one in check(text).findings] == ["error", "error"]
    report = check(text, lenient=True)
    assert [one.severity for one in report.findings] == ["warning", "warning"]
    assert report.pipeline is not None
    assert report.pipeline.operators[0].variables == {"A": "1"}, "published files have variables here"


def test_every_error_in_one_pass(check: Check) -> None:
    text = """\
api-version: 0.9.0
orchestrator: Kubernetes
operators:
- name: a b
  container: {image: Upper, command: go}
  requests: {cpu: many}
  input: [{path: x}, {from: nobody, path: /x}]
- container: {}
  services: [{name: s, container: {image: a}, connections: {http: [{name: 1, port: 80}]}}]
"""
    codes = [code for code, _, _ in found(check(text))]
    assert codes == [
        "missing", "api-version", "orchestrator", "bad-name", "bad-value", "wrong-kind", "bad-value", "bad-value",
        "unknown-operator", "missing", "missing", "bad-value", "bad-value",
    ]  # fmt: skip


@pytest.mark.parametrize("version", ["api-version: 0.8.0", "api-version: x", "api-version:", "name: rule"])
def test_without_a_version_types_decide_how_the_rest_is_checked(check: Check, version: str) -> None:
    for text in (UNTYPED, TYPED):
        text = text.replace(text.split("\n", 1)[0], version).replace("name: rule\nname: rule", "name: rule")
        assert len(found(check(text))) == 1


def test_one_mistake_is_one_finding(check: Check) -> None:
    """Consequences of a mistake are not reported."""
    text = UNTYPED.replace("- path: /output", "- {path: output, name: [x]}") + second(
        "input: [{from: one, path: /i}]\n", ""
    )
    assert [code for code, _, _ in found(check(text))] == ["bad-value", "wrong-kind"]


def test_a_finding_is_one_line(check: Check) -> None:
    report = check(UNTYPED.replace("path: /input", "path: input"))
    line = str(report.findings[0])
    assert re.fullmatch(
        r".*pipeline\.yaml:7:11: error: operators\[0\]\.input\[0\]\.path: 'input' is not valid as a path in "
        r"the container; use an absolute path: it must start with '/'",
        line,
    )
