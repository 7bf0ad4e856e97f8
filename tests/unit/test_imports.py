"""Who may import whom. The folders are only as good as this rule."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAGES = {
    "nuclei_segmentation.operators.load",
    "nuclei_segmentation.operators.filter",
    "nuclei_segmentation.operators.stitch",
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def ours(names: set[str], *roots: str) -> set[str]:
    """Return those of `names` that lie in our packages: operators, pipelines, shared and what is not installed."""
    found = {name.removeprefix("nuclei_segmentation.") for name in names}
    return {name for name in found if any(name == root or name.startswith(f"{root}.") for root in roots)}


@pytest.mark.parametrize("path", sorted(ROOT.glob("shared/**/*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_shared_imports_neither_operators_nor_pipelines(path: Path) -> None:
    assert not ours(imported(path), "operators", "pipelines", "training", "tests", "benchmarks")


@pytest.mark.parametrize("stage", ["load", "filter", "stitch"])
def test_a_stage_imports_shared_and_itself_only(stage: str) -> None:
    for path in (ROOT / "operators" / stage).glob("**/*.py"):
        others = ours(imported(path), "operators", "pipelines", "training", "tests", "benchmarks")
        assert not {name for name in others if not ours({name}, f"operators.{stage}")}, path


def test_the_fused_operator_composes_stages_and_knows_no_pipelines() -> None:
    for path in (ROOT / "operators" / "segmentation").glob("**/*.py"):
        assert not ours(imported(path), "pipelines", "training", "tests", "benchmarks"), path


def test_pipelines_import_shared_only() -> None:
    for path in (ROOT / "pipelines").glob("**/*.py"):
        assert not ours(imported(path), "operators", "training", "tests", "benchmarks"), path


@pytest.mark.parametrize(
    ("package", "others"), [("argo", ["runner"]), ("runner", ["argo"]), ("language", ["argo", "runner"])]
)
def test_packages_of_pipelines_do_not_import_one_another(package: str, others: list[str]) -> None:
    for path in (ROOT / "pipelines" / package).glob("**/*.py"):
        assert not ours(imported(path), *(f"pipelines.{other}" for other in others)), path


def test_modules_for_both_import_neither_runner_nor_argo() -> None:
    for path in (ROOT / "pipelines").glob("*.py"):
        if path.name != "__main__.py":
            assert not ours(imported(path), "pipelines.argo", "pipelines.runner"), path


def test_nobody_edits_the_import_path() -> None:
    for folder in ("operators", "shared", "pipelines"):
        for path in (ROOT / folder).glob("**/*.py"):
            assert "sys.path" not in path.read_text(), path
