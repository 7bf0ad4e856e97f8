"""The command ``check``: says everything that is wrong with definitions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nuclei_segmentation.pipelines.language.reader import Definition, Report

CLEAN, ERRORS, USAGE = 0, 1, 2
"""Exit codes: nothing wrong but warnings; errors; the command line is wrong or a file cannot be read."""


def check(files: Sequence[Path], *, as_json: bool, lenient: bool) -> int:
    """Check definitions, print what is found, and return the exit code.

    Parameters
    ----------
    files : Sequence of pathlib.Path
        Of definitions.
    as_json : bool
        Print one object a file, each on a line: `described`.
    lenient : bool
        Names that the language does not know are warnings.
    """
    reports = []
    for file in files:
        report = Definition(file, lenient).check()
        reports.append(report)
        if as_json:
            print(json.dumps(described(report)))  # noqa: T201 - the command's result
        else:
            for finding in report.findings:
                print(finding)  # noqa: T201 - the command's result
    if not as_json:
        print(summary(reports))  # noqa: T201 - the command's result
    if any(report.unreadable for report in reports):
        return USAGE
    return ERRORS if any(report.errors for report in reports) else CLEAN


def summary(reports: Sequence[Report]) -> str:
    """Return one line on all files."""
    errors = sum(report.errors for report in reports)
    warnings = sum(report.warnings for report in reports)
    files, wrong, doubtful = (_count(len(reports), "file"), _count(errors, "error"), _count(warnings, "warning"))
    return f"checked {files}: {wrong}, {doubtful}"


def described(report: Report) -> dict[str, Any]:
    """Return what ``--json`` prints of a file; docs/pipelines.md describes it.

    ``file``, ``valid``, ``errors``, ``warnings``, ``findings`` (``file``, ``line``, ``column``, ``path``, ``severity``,
    ``code``, ``message``, ``expected``), ``pipeline`` (null if there are errors): ``name``, ``api-version``,
    ``orchestrator``, ``parameters``, ``operators`` in the order in which they can run, each with ``name``, ``image``
    and ``upstream``.
    """
    pipeline = report.pipeline
    return {
        "file": report.file,
        "valid": not report.errors,
        "errors": report.errors,
        "warnings": report.warnings,
        "findings": [
            {
                **asdict(finding.place),
                "severity": finding.severity,
                "code": finding.code,
                "message": finding.message,
                "expected": finding.expected,
            }
            for finding in report.findings
        ],
        "pipeline": None
        if pipeline is None
        else {
            "name": pipeline.name,
            "api-version": pipeline.api_version,
            "orchestrator": pipeline.orchestrator,
            "parameters": {one.name: one.default for one in pipeline.parameters},
            "operators": [
                {"name": one.name, "image": one.container.reference, "upstream": list(one.upstream)}
                for one in pipeline.operators
            ],
        },
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
