"""Each operator's list of packages is complete, so that its image is; and the lists agree."""

from __future__ import annotations

import ast
import re
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LISTS = ["load", "filter", "stitch"]
OURS = "nuclei_segmentation"
OWNERS = {
    name: {re.sub("[-_.]+", "-", owner).lower() for owner in owners}
    for name, owners in packages_distributions().items()
}
"""Which installed packages bring a module."""


def pins(name: str) -> set[str]:
    """Return a lock's lines, ``package==version ; marker``."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return {line.removesuffix("\\").strip() for line in lines if re.match(r"\w", line)}


def packages(name: str) -> set[str]:
    return {re.split("[=[ ]", pin)[0] for pin in pins(name)}


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split(".")[1:]) if "." in name else ROOT / "package"
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def imported(file: Path) -> frozenset[str]:
    """Return the names that a module imports when it is loaded or later, but not what only type checkers see."""
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def needed(start: list[Path]) -> set[Path]:
    """Return `start` and all of our modules that it brings with it, packages' own files included."""
    found, left = set(), list(start)
    while left:
        file = left.pop()
        if file in found:
            continue
        found.add(file)
        for name in imported(file):
            if name.split(".")[0] == OURS:
                parts = name.split(".")
                ours = (module_file(".".join(parts[:count])) for count in range(1, len(parts) + 1))
                left += [other for other in ours if other]
    return found


def modules_of(operator: str) -> set[Path]:
    """Return all modules that a command may import."""
    start = [ROOT / "shared" / "runtime" / "cli.py", ROOT / "shared" / "clara" / "driver.py"]
    return needed([*(ROOT / "operators" / operator).rglob("*.py"), *start])


@pytest.mark.parametrize("operator", LISTS)
def test_the_list_has_all_that_the_operator_imports(operator: str) -> None:
    for file in modules_of(operator):
        for name in {name.split(".")[0] for name in imported(file)} & OWNERS.keys():
            if name != OURS:
                assert OWNERS[name] & packages(operator), f"{file.relative_to(ROOT)} imports {name}"


def test_filter_needs_no_slide_reader() -> None:
    slides = ROOT / "shared" / "slides"
    assert not [file for file in modules_of("filter") if slides in file.parents]


def test_one_version_of_each_package_whichever_list_names_it() -> None:
    for name in LISTS:
        assert pins(name) <= pins("run")
    assert set.union(*map(pins, LISTS)) == pins("run")
    dev = {pin.split(" ;")[0] for pin in pins("dev")}  # the markers of what others need too are wider there
    assert {pin.split(" ;")[0] for pin in pins("run")} <= dev


def test_locks_name_no_index() -> None:
    for lock in (ROOT / "requirements").glob("*.txt"):
        assert "://" not in lock.read_text(), lock
