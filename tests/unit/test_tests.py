"""Rules that the tests themselves keep."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.scheduler import FileScheduling

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
def test_a_conftest_holds_fixtures_and_hooks_only(path: Path) -> None:
    for node in ast.parse(path.read_text()).body:
        assert not isinstance(node, ast.ClassDef), node.name
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("pytest_"):
            assert any("fixture" in ast.unparse(one) for one in node.decorator_list), f"{node.name} is no fixture"


def test_helpers_hold_no_tests() -> None:
    assert not list((TESTS / "helpers").rglob("test_*.py"))


CLOCKS = {"time", "monotonic", "perf_counter"}
WAITS = {"communicate", "join", "result", "wait"}
SECONDS = 30
"""What a busy machine may always take."""


def reads_clock(node: ast.expr) -> bool:
    calls = (one.func for one in ast.walk(node) if isinstance(one, ast.Call))
    return any(
        isinstance(one, ast.Attribute) and one.attr in CLOCKS and ast.unparse(one.value) == "time" for one in calls
    )


def is_short(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and 0 < node.value < SECONDS


def bounds(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of wall-clock bounds that are shorter than `SECONDS`."""
    asserted = [node for one in ast.walk(tree) if isinstance(one, ast.Assert) for node in ast.walk(one.test)]
    for node in asserted:
        if isinstance(node, ast.Compare) and reads_clock(node.left):
            for operator, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(operator, ast.Lt | ast.LtE) and is_short(right):
                    yield node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and reads_clock(node.left):  # until = now + …
            if is_short(node.right):
                yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WAITS:
            given = [*node.args, *(one.value for one in node.keywords if one.arg == "timeout")]
            if any(map(is_short, given)):
                yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_test_is_impatient_with_a_busy_machine(path: Path) -> None:
    lines = list(bounds(ast.parse(path.read_text())))
    assert not lines, f"a test that needs a clock allows at least {SECONDS} s, or asserts something else"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("assert time.monotonic() - start < 2", 1),
        ("assert a and time.perf_counter() <= 29.5", 1),
        ("until = time.monotonic() + 10", 1),
        ("process.communicate(timeout=10)", 1),
        ("assert time.monotonic() - start >= 2", 0),
        ("assert time.process_time() - start < 2", 0),
        ("future.result(timeout=30)", 0),
    ],
)
def test_the_rule_on_clocks_finds_what_it_should(text: str, count: int) -> None:
    assert len(list(bounds(ast.parse(text)))) == count


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_nothing_beside_the_repository_is_read(path: Path) -> None:
    assert "ROOT.parent" not in path.read_text(), "an environment variable names what is not part of the repository"


def test_the_table_of_faults_names_tests_that_exist() -> None:
    missing, file = [], Path()
    lines = (TESTS / "faults" / "README.md").read_text().splitlines()
    rows = "\n".join(line for line in lines if line.startswith("| F"))
    for path, name in re.findall(r"`([\w/]+(?:\.py)?)?(?:::(\w+))?`", rows):
        if path:
            file = TESTS / path
            if not file.exists():
                missing.append(path)
        if name and not (file.is_file() and f"def {name}(" in file.read_text()):
            missing.append(f"{file.name}::{name}")
    assert not missing


def test_the_tests_of_a_file_run_in_one_process_and_so_do_those_with_containers(tmp_path: Path) -> None:
    """Else a test would see another's containers."""
    line = [sys.executable, "-m", "pytest", "-v", "-n", "2", "--dist", "loadfile", f"--basetemp={tmp_path}"]
    done = subprocess.run(
        [*line, "tests/unit/test_geometry.py"], capture_output=True, text=True, check=False, cwd=TESTS.parent
    )
    assert done.returncode == 0, done.stdout
    processes = re.findall(r"^\[(gw\d)\].* PASSED ", done.stdout, re.MULTILINE)
    assert len(processes) > 2
    assert len(set(processes)) == 1
    scheduling = FileScheduling.__new__(FileScheduling)
    files = [f"tests/containers/{name}.py::test_one[1]" for name in ("test_docker", "test_pipelines")]
    assert len({scheduling._split_scope(file) for file in files}) == 1
