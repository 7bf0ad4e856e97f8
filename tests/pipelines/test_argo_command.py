"""The command ``argo``: what it writes where, what it refuses, and what it says."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.helpers.command import Done
from tests.helpers.definitions import Export
from tests.helpers.workflows import HEAD, ONE, container_of

ROOT = Path(__file__).parents[2]


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
    "undeclared": (ONE % "x", ["-p", "B=1"], 1, "parameter 'B' is not declared"),
    "value that does not fit": (
        "parameters: {A: o}\n" + (ONE % "x").replace("name: o", "name: ${{A}}"), ["-p", "A=a b"], 1, "'a b' is not",
    ),
    "missing value": (
        "parameters: {A: }\n" + (ONE % "x").replace("image: a", "image: '${{A}}'"), [], 1, "A has no value and no",
    ),
    "missing port": (
        "parameters: {A: }\n" + ONE % "x" + "  requests: {cpu: '${{A}}'}\n", [], 1, "no value and no default",
    ),
    "models of nobody": (ONE % "x", ["--triton-image", "a:1"], 2, "this definition has none"),
    "nobody of that name": (ONE % "x", ["--unrestricted", "p"], 2, "--unrestricted p: there is no such operator"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_exported_is_refused(name: str, tmp_path: Path, argo: Callable[..., Done]) -> None:
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
    [
        "--shards 0",
        "--shards x",
        "--work-claim A_b",
        "--work-claim /a/../b",
        "--registry a:b:c",
        "--triton gpu",
        "--user 0",
        "-p A",
        "-o ''",
    ],
)
def test_a_wrong_command_line(options: str, argo: Callable[..., Done]) -> None:
    with pytest.raises(SystemExit) as ended:
        argo("x.yaml", *shlex.split(options))
    assert ended.value.code == 2


def test_a_file_that_cannot_be_read(tmp_path: Path, argo: Callable[..., Done]) -> None:
    done = argo(tmp_path / "nowhere.yaml")
    assert (done.code, done.out) == (2, "")
    assert "nowhere.yaml:1:1: error: document: the file cannot be read" in done.err


def test_what_the_user_should_know(tmp_path: Path, argo: Callable[..., Done]) -> None:
    (tmp_path / "p.yaml").write_text(HEAD + "operators: [{name: o, container: {image: a}, models: [{name: m}]}]\n")
    done = argo(tmp_path / "p.yaml")
    assert done.code == 0
    assert [line.split(" ", 3)[:3] for line in done.err.splitlines()] == [
        ["o:", "has", "no"], ["o:", "a:latest", "is"], ["o:", "gets", "no"],
    ]  # fmt: skip
    assert "runs as user 1000 with a read-only root" in done.err


@pytest.mark.parametrize(
    ("name", "message"), [("a" * 300, "File name too long"), ("pipe", "is not a regular file; name one with -o")]
)
def test_where_no_workflow_can_be(name: str, message: str, tmp_path: Path, argo: Callable[..., Done]) -> None:
    (tmp_path / "p.yaml").write_text(HEAD + ONE % "x")
    ours, theirs = os.pipe()
    (tmp_path / "pipe").symlink_to(f"/dev/fd/{theirs}")  # as /dev/stdout is one
    done = argo(tmp_path / "p.yaml", "-o", tmp_path / name)
    os.close(ours)
    os.close(theirs)
    assert (done.code, done.out) == (13, "")
    assert message in done.err
