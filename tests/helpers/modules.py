"""Which modules and packages a command imports, read from the source."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from tests.helpers.command import ROOT

OURS = "nuclei_segmentation"


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split(".")[1:]) if "." in name else ROOT / "package"
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def module_name(file: Path) -> str:
    """Return the name by which a file of the repository is imported: the inverse of `module_file`."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join((OURS, *(part for part in parts if part not in ("package", "__init__"))))


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
