"""Writes definitions down, checks and exports them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from nuclei_segmentation.pipelines import Definition, Report
from nuclei_segmentation.pipelines.__main__ import main

HERE = "§"
"""In the text of a test: where the finding must be."""

Check = Callable[..., Report]
Export = Callable[..., dict[str, Any]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks a text as pipeline.yaml, with further files beside it."""

    def run(text: str, files: dict[str, str] | None = None, *, lenient: bool = False) -> Report:
        for name, content in (files or {}).items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, encoding="utf-8")
        path = tmp_path / "pipeline.yaml"
        path.write_text(text, encoding="utf-8")
        return Definition(path, lenient).check()

    return run


def marked(text: str) -> tuple[str, int, int]:
    """Return a text without its mark, and line and column of that."""
    before, found, after = text.partition(HERE)
    assert found
    assert HERE not in after
    return before + after, before.count("\n") + 1, len(before) - before.rfind("\n")


def found(report: Report) -> list[tuple[str, int, int]]:
    """Return code, line and column of all findings."""
    return [(one.code, one.place.line, one.place.column) for one in report.findings]


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture
def argo(capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Runs the command ``argo``."""

    def run(*arguments: str | Path) -> Done:
        code = main(["argo", *map(str, arguments)])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture
def export(tmp_path: Path, argo: Callable[..., Done]) -> Export:
    """Exports a text and returns the document."""

    def run(text: str, *options: str) -> dict[str, Any]:
        (tmp_path / "pipeline.yaml").write_text(text)
        done = argo(tmp_path / "pipeline.yaml", "--lenient", *options)
        assert done.code == 0, done.err
        return yaml.safe_load(done.out)

    return run
