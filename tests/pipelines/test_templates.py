"""Parameters and their placeholders."""

from __future__ import annotations

from pathlib import Path

import pytest

from nuclei_segmentation.pipelines import Definition, DefinitionError, Pipeline
from nuclei_segmentation.pipelines.language.templates import MAX_INSERTED, Scope, expand
from tests.helpers.definitions import HERE, Check, found, marked

TEXT = """\
api-version: 0.4.0
name: template
parameters:
  IMAGE: a/one
  TAG: 18.04
  CORES: 3
  MUST:
operators:
- name: one
  container:
    image: ${{IMAGE}}
    tag: ${{ TAG }}
    command: [run, "x${{IMAGE}}y ${{ CORES }} $HOME ${HOME} $(HOME)"]
  requests: {cpu: "${{CORES}}"}
  variables: {MUST: "${{MUST}}"}
"""


@pytest.fixture
def definition(tmp_path: Path) -> Definition:
    (tmp_path / "p.yaml").write_text(TEXT)
    return Definition(tmp_path / "p.yaml")


def test_defaults_and_given_values(definition: Definition) -> None:
    pipeline = definition.resolve({"MUST": "yes", "CORES": "4"})
    (operator,) = pipeline.operators
    assert operator.container.reference == "a/one:18.04"
    assert operator.container.command == ("run", "xa/oney 4 $HOME ${HOME} $(HOME)")
    assert operator.requests.cpu_millis == 4000
    assert operator.variables == {"MUST": "yes"}
    assert pipeline.arguments == {"IMAGE": "a/one", "TAG": "18.04", "CORES": "4", "MUST": "yes"}


def test_a_check_needs_no_values(definition: Definition) -> None:
    report = definition.check()
    assert report.findings == ()
    assert {one.name: one.default for one in report.parameters}["MUST"] is None


def test_a_parameter_without_value_is_refused_where_it_is_used(definition: Definition) -> None:
    with pytest.raises(DefinitionError) as error:
        definition.resolve({})
    (finding,) = error.value.findings
    assert (finding.code, finding.place.line, finding.place.column) == ("no-value", 15, 22)


@pytest.mark.parametrize(
    ("name", "expected"), [("IMAGES", "did you mean IMAGE?"), ("X", "declared: IMAGE, TAG, CORES, MUST")]
)
def test_an_argument_that_is_not_declared_is_refused(definition: Definition, name: str, expected: str) -> None:
    with pytest.raises(DefinitionError) as error:
        definition.resolve({"MUST": "", name: "1"})
    (finding,) = error.value.findings
    assert finding.code == "undeclared"
    assert finding.expected == expected
    assert error.value.exit_code == 2


def test_a_value_that_is_not_valid_is_refused_where_it_is_used(definition: Definition) -> None:
    with pytest.raises(DefinitionError, match=r"operators\[0\].requests.cpu: 'many' is not valid as a number of cores"):
        definition.resolve({"MUST": "", "CORES": "many"})


def test_values_add_no_structure_and_are_not_expanded_again(definition: Definition) -> None:
    nasty = "x, y]\n  - {a: &b !!python/none ${{TAG}}"
    pipeline = definition.resolve({"MUST": nasty})
    assert pipeline.operators[0].variables == {"MUST": nasty}


def variable(text: str) -> str:
    head = "api-version: 0.4.0\nname: t\nparameters: {A: 1}\noperators:\n"
    return f"{head}- name: o\n  container: {{image: a}}\n  {text}\n"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"variables: {{B: 'a ${{{{A}}}} {HERE}${{{{B}}}}'}}", "undeclared"),
        (f"variables: {{B: 'a {HERE}${{{{ A'}}", "placeholder"),
        (f"variables: {{B: 'a {HERE}${{{{ A B }}}}'}}", "placeholder"),
        (f"variables: {{B: {HERE}${{{{}}}}".replace("{B: ", "\n    B: ") + "", "placeholder"),
        (f"variables:\n    B: |\n      x\n        {HERE}${{{{NO}}}} y", "undeclared"),
        (f"variables:\n    B: >-\n      ${{{{A}}}}\n      {HERE}${{{{NO}}}}", "undeclared"),
        (f'container: {{image: a, command: ["\\u00e4${{{{A}}}}\\t{HERE}${{{{NO}}}}"]}}', "undeclared"),
    ],
)
def test_a_wrong_placeholder_is_found_at_its_place(check: Check, text: str, code: str) -> None:
    definition = variable(text)
    if "container:" in text:
        definition = definition.replace("  container: {image: a}\n", "")
    plain, line, column = marked(definition)
    assert found(check(plain)) == [(code, line, column)]


def test_an_operators_own_parameters_hide_those_of_the_pipeline(tmp_path: Path) -> None:
    text = variable('parameters: {A: mine}\n  variables: {V: "${{A}}"}')
    text += '- name: p\n  container: {image: a}\n  variables: {V: "${{A}}"}\n'
    (tmp_path / "p.yaml").write_text(text)
    pipeline: Pipeline = Definition(tmp_path / "p.yaml").resolve({"A": "given"})
    assert [one.variables["V"] for one in pipeline.operators] == ["mine", "given"]


def test_values_cannot_grow_without_bound() -> None:
    scope = Scope({"A": "x" * (MAX_INSERTED // 10)})
    result = expand("${{A}}" * 100, scope, complete=True)
    assert result.text is None
    assert len(result.problems) == 1


def test_an_operator_whose_name_is_given_later_may_be_read_from(tmp_path: Path) -> None:
    text = """\
api-version: 0.4.0
name: later
parameters: {NAME: }
operators:
- {name: "${{NAME}}", container: {image: a}, output: [{path: /o}]}
- {name: b, container: {image: a}, input: [{from: first, path: /i}]}
"""
    (tmp_path / "p.yaml").write_text(text)
    definition = Definition(tmp_path / "p.yaml")
    report = definition.check()
    assert (report.findings, report.pipeline) == ((), None)
    assert definition.resolve({"NAME": "first"}).operator("b").upstream == ("first",)
    with pytest.raises(DefinitionError, match="there is no operator 'first'"):
        definition.resolve({"NAME": "other"})
