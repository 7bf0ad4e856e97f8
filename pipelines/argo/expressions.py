"""Argo's expressions, ``{{...}}``: they replace the markers of parameters. A text that looks like one is refused.

Argo replaces expressions in all texts of a workflow, several times over, and offers no way to write two braces that
mean nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nuclei_segmentation.pipelines.argo.exported_parameters import ExportedParameters, operators_and_services
from nuclei_segmentation.pipelines.language.findings import DefinitionError, Finding, shown
from nuclei_segmentation.shared.errors import UsageError

OPEN = "{{"


def expression(name: str) -> str:
    """Return the expression for a variable of Argo's."""
    return f"{OPEN}{name}}}}}"


def parameter_expression(name: str) -> str:
    """Return the expression for a parameter of the workflow."""
    return expression(f"workflow.parameters.{name}")


def refuse_expressions(exported: ExportedParameters) -> None:
    """Refuse texts that Argo would take for expressions.

    Raises
    ------
    DefinitionError
        The definition contains such a text.
    UsageError
        The value of a parameter is such a text.
    """
    findings = []
    for item in operators_and_services(exported.pipeline):
        for field, texts in (("container", item.container.command), ("variables", item.variables.values())):
            if any(OPEN in text for text in texts):
                place = item.places.get(field) or item.places[""]
                message, expected = f"'{OPEN}' begins an expression of Argo", "remove it: Argo has no way to escape it"
                findings.append(Finding(place, "error", "placeholder", message, expected))
    if findings:
        raise DefinitionError(findings)
    for name, value in exported.values.items():
        if value is not None and OPEN in value:
            raise UsageError(f"parameter {name}: '{OPEN}' in {shown(value)} begins an expression of Argo; remove it")


def with_expressions(value: Any, markers: Mapping[str, str]) -> Any:  # noqa: ANN401 - any part of a document
    """Return a document with expressions for parameters in place of their markers.

    Parameters
    ----------
    value : Any
        The document, or a part of it.
    markers : Mapping of str to str
        The parameter for which each marker stands.
    """
    if isinstance(value, dict):
        return {name: with_expressions(item, markers) for name, item in value.items()}
    if isinstance(value, list):
        return [with_expressions(item, markers) for item in value]
    if isinstance(value, str):
        for marker, name in markers.items():
            value = value.replace(marker, parameter_expression(name))
    return value
