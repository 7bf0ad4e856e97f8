"""Pipeline definitions: where a finding must be, and texts of published shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nuclei_segmentation.pipelines import Report

HERE = "§"
"""In the text of a test: where the finding must be."""

Check = Callable[..., Report]
Export = Callable[..., dict[str, Any]]


def marked(text: str) -> tuple[str, int, int]:
    """Return a text without its mark, and line and column of that."""
    before, found, after = text.partition(HERE)
    assert found
    assert HERE not in after
    return before + after, before.count("\n") + 1, len(before) - before.rfind("\n")


def found(report: Report) -> list[tuple[str, int, int]]:
    """Return code, line and column of all findings."""
    return [(one.code, one.place.line, one.place.column) for one in report.findings]
