"""Rules that the tests themselves keep."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
HELPERS = "tests.helpers"
FILES = sorted(path for path in TESTS.rglob("*.py") if path != Path(__file__))


def name_of(path: Path) -> str:
    return str(path.relative_to(TESTS))


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the modules under `tests` that a module imports; relative ones with their dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "tests")
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if node.level or module.split(".")[0] == "tests":
                yield module


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_modules_share_code_through_helpers_only(path: Path) -> None:
    others = [module for module in imported(ast.parse(path.read_text())) if not f"{module}.".startswith(f"{HELPERS}.")]
    assert not others, "code that several modules use belongs in tests/helpers"


@pytest.mark.parametrize("path", [path for path in FILES if path.name == "conftest.py"], ids=name_of)
def test_a_conftest_holds_fixtures_only(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        assert not isinstance(node, ast.ClassDef), node.name
        if isinstance(node, ast.FunctionDef):
            assert any("fixture" in ast.unparse(one) for one in node.decorator_list), f"{node.name} is no fixture"


def test_helpers_hold_no_tests() -> None:
    assert not list((TESTS / "helpers").rglob("test_*.py"))
