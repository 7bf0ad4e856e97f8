"""Writes definitions down and checks them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import Definition, Report

HERE = "§"
"""In the text of a test: where the finding must be."""

Check = Callable[..., Report]


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
