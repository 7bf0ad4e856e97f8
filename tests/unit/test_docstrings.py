"""Docstrings are in NumPy style, and complete where a reader needs them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from numpydoc.docscrape import NumpyDocString

ROOT = Path(__file__).parents[2]
FOLDERS = ("benchmarks", "operators", "package", "pipelines", "shared", "training")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

Function = ast.FunctionDef | ast.AsyncFunctionDef


def public(body: list[ast.stmt], prefix: str = "") -> Iterator[tuple[str, ast.ClassDef | Function]]:
    """Yield public classes, functions and methods, by their names; of a class before its methods."""
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield f"{prefix}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from public(node.body, f"{node.name}.")


def parameters(function: Function) -> list[str]:
    """Return the names of a function's parameters as a docstring has them, without ``self`` and ``cls``."""
    given = function.args
    names = [one.arg for one in (*given.posonlyargs, *given.args)]
    if names[:1] in (["self"], ["cls"]):
        del names[0]
    names += [f"*{given.vararg.arg}"] if given.vararg else []
    names += [one.arg for one in given.kwonlyargs]
    return names + ([f"**{given.kwarg.arg}"] if given.kwarg else [])


def documented(doc: NumpyDocString, section: str) -> dict[str, str]:
    """Return the types of a section's entries by name; entries of several names are taken apart."""
    return {name.strip(): entry.type for entry in doc[section] for name in entry.name.split(",")}


def wrong(node: ast.ClassDef | Function) -> Iterator[str]:
    text = ast.get_docstring(node)
    if text is None:
        yield "no docstring"
        return
    doc = NumpyDocString(text)
    for section in ("Parameters", "Attributes"):
        for name, kind in documented(doc, section).items():
            if not kind:
                yield f"{section}: {name} has no type"
    for section in ("Returns", "Yields", "Raises"):
        for entry in doc[section]:
            if not entry.type and not entry.name:
                yield f"{section}: an entry has no type"
            if section != "Raises" and entry.type.endswith("."):
                yield f"{section}: {entry.type!r} is prose where a type belongs"
    made = node
    if isinstance(node, ast.ClassDef):
        made = next((one for one in node.body if isinstance(one, Function) and one.name == "__init__"), None)
    if isinstance(made, Function) and len(names := parameters(made)) >= 2:
        there = documented(doc, "Parameters")
        missing = [name for name in names if name not in there]
        if missing and not text.startswith("See `"):
            yield f"Parameters: {', '.join(missing)} missing"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_public_names_are_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    found = [f"{name}: {problem}" for name, node in public(tree.body) for problem in wrong(node)]
    assert not found, "\n".join(found)
