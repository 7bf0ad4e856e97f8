"""The order of operators, cycles, and which operator reads from which."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.pipelines.language.findings import Findings, Place
from nuclei_segmentation.pipelines.language.graph import join
from nuclei_segmentation.pipelines.language.interface import Interface
from nuclei_segmentation.pipelines.language.model import Container, Input, Operator, Output
from nuclei_segmentation.pipelines.language.operators import Draft
from tests.helpers.definitions import HERE, Check, found, marked

HEAD = "api-version: 0.4.0\nname: graph\noperators:\n"


def node(name: str, *sources: str) -> str:
    inputs = (
        "".join(f"  - {{from: {source}, path: /{source.strip(HERE)}}}\n" for source in sources) or "  - path: /input\n"
    )
    return f"- name: {name}\n  container: {{image: a}}\n  input:\n{inputs}  output:\n  - path: /output\n"


def test_a_diamond_in_every_order_of_the_file(check: Check) -> None:
    parts = {"top": (), "left": ("top",), "right": ("top",), "bottom": ("left", "right")}
    for names in permutations(parts):
        pipeline = check(HEAD + "".join(node(name, *parts[name]) for name in names)).pipeline
        assert pipeline is not None
        order = [one.name for one in pipeline.operators]
        assert order[0] == "top"
        assert order[3] == "bottom"
        assert pipeline.operator("BOTTOM").upstream == ("left", "right")


def test_where_the_graph_leaves_a_choice_the_order_is_that_of_the_file(check: Check) -> None:
    pipeline = check(HEAD + node("c", "b") + node("z") + node("b") + node("a")).pipeline
    assert pipeline is not None
    assert [one.name for one in pipeline.operators] == ["z", "b", "c", "a"]


def test_operators_that_are_not_joined_to_others_are_kept(check: Check) -> None:
    pipeline = check(HEAD + node("a") + node("b", "a") + node("alone")).pipeline
    assert pipeline is not None
    assert {one.name for one in pipeline.operators} == {"a", "b", "alone"}


def test_names_are_compared_without_case_and_kept_as_they_are_declared(check: Check) -> None:
    pipeline = check(HEAD + node("Reader") + node("writer", "READER")).pipeline
    assert pipeline is not None
    (item,) = pipeline.operator("writer").inputs
    assert (item.source, item.output, item.path) == ("Reader", "", "/READER")


def test_two_inputs_may_read_the_same_operator(check: Check) -> None:
    text = HEAD + "- {name: a, container: {image: a}, output: [{name: x, path: /x}, {name: y, path: /y}]}\n"
    text += "- {name: b, container: {image: a}, input: [{from: a, name: x, path: /1}, {from: a, name: y, path: /2}]}\n"
    pipeline = check(text).pipeline
    assert pipeline is not None
    assert [one.output for one in pipeline.operator("b").inputs] == ["x", "y"]
    assert pipeline.operator("b").upstream == ("a",)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (node("a", f"{HERE}a"), "a -> a"),
        (node("a", f"{HERE}b") + node("b", "a"), "a -> b -> a"),
        (
            node("x") + node("a", "x", f"{HERE}c") + node("b", "a") + node("c", "b") + node("tail", "c"),
            "a -> b -> c -> a",
        ),
        (node("tail", "c") + node("a", f"{HERE}c") + node("c", "a"), "a -> c -> a"),
    ],
)
def test_a_cycle_is_one_finding_that_names_its_operators(check: Check, text: str, names: str) -> None:
    text, line, column = marked(HEAD + text)
    report = check(text)
    assert found(report) == [("cycle", line, column)]
    assert report.findings[0].message.endswith(names)


def test_every_cycle_is_found(check: Check) -> None:
    text = HEAD + node("a", "b") + node("b", "a") + node("c", "d", "a") + node("d", "c") + node("e", "e")
    assert [code for code, _, _ in found(check(text))] == ["cycle"] * 3


PLACE = Place("f", 1, 1, "p")


def drafts(edges: list[set[int]]) -> list[Draft]:
    result = []
    for number, sources in enumerate(edges):
        inputs = tuple(Input(f"o{one}", "", "", f"/{one}", None, {"from": PLACE}) for one in sorted(sources))
        operator = Operator(f"o{number}", Container("a", "b"), inputs)
        result.append(Draft(operator.name, operator, Interface(inputs, (Output("", "/o"),), True), PLACE))
    return result


@given(st.integers(1, 12).flatmap(lambda n: st.lists(st.sets(st.integers(0, n - 1)), min_size=n, max_size=n)))
def test_any_graph_is_put_in_order_or_has_a_cycle(edges: list[set[int]]) -> None:
    findings = Findings()
    order = [one.name for one in join(drafts(edges), findings)]
    assert sorted(order) == sorted(f"o{number}" for number in range(len(edges)))
    ordered = all(
        order.index(f"o{source}") < order.index(f"o{number}")
        for number, sources in enumerate(edges)
        for source in sources
    )
    assert ordered == (findings.errors == 0)


def test_a_long_chain_a_wide_fan_and_many_cycles() -> None:
    findings = Findings()
    chain = [set(), *({number} for number in range(2999))]
    assert len(join(drafts(chain), findings)) == 3000
    assert len(join(drafts([set(), *({0} for _ in range(2999))]), findings)) == 3000
    pairs = [{number ^ 1} for number in range(2000)]
    join(drafts(pairs), findings)
    assert findings.full
