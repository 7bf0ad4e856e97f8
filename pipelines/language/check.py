"""The command ``check``: reports everything that is wrong with definitions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nuclei_segmentation.pipelines.language.reader import Definition, Report

CLEAN, ERRORS, USAGE = 0, 1, 2
"""Exit codes: no errors, though perhaps warnings; errors; the command line is wrong or a file cannot be read."""


def check(files: Sequence[Path], *, as_json: bool, lenient: bool) -> int:
    """Check definitions, print the findings, and return the exit code.

    Parameters
    ----------
    files : Sequence of pathlib.Path
        The definitions.
    as_json : bool
        Whether to print a JSON object for each file, on a line of its own, as `described` returns it.
    lenient : bool
        Whether unknown keys are warnings.
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
    """Return one line about all files."""
    errors = _count(sum(report.errors for report in reports), "error")
    warnings = _count(sum(report.warnings for report in reports), "warning")
    return f"checked {_count(len(reports), 'file')}: {errors}, {warnings}"


def described(report: Report) -> dict[str, Any]:
    """Return the object that ``--json`` prints for a file. docs/pipelines.md describes it.

    ``file``, ``valid``, ``errors``, ``warnings``, ``findings`` (``file``, ``line``, ``column``, ``path``, ``severity``,
    ``code``, ``message``, ``expected``), ``pipeline`` (null if there are errors, or if an operator needs a value that
    has no default): ``name``, ``api-version``, ``orchestrator``, ``parameters``, ``operators`` in the order in which
    they can run, each with ``name``, ``image`` and ``upstream``.
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
            "parameters": {parameter.name: parameter.default for parameter in pipeline.parameters},
            "operators": [
                {
                    "name": operator.name,
                    "image": operator.container.reference,
                    "upstream": list(operator.upstream),
                }
                for operator in pipeline.operators
            ],
        },
    }


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
