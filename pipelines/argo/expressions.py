"""Argo's expressions, ``{{...}}``: put where marks of kept parameters are; what looks like one by chance is refused.

Argo replaces them in all texts of a workflow, several times over, and knows no way to write two braces that mean
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nuclei_segmentation.pipelines.argo.keep import ExportedParameters, parts
from nuclei_segmentation.pipelines.language.findings import DefinitionError, Finding, shown
from nuclei_segmentation.shared.errors import UsageError

OPEN = "{{"


def tag(name: str) -> str:
    """Return the expression for a name."""
    return f"{OPEN}{name}}}}}"


def refuse(kept: ExportedParameters) -> None:
    """Refuse texts that would be expressions.

    Raises
    ------
    DefinitionError
        One stands in the definition.
    UsageError
        One is a parameter's value.
    """
    found = []
    for one in parts(kept.pipeline):
        for field, texts in (("container", one.container.command), ("variables", one.variables.values())):
            if any(OPEN in text for text in texts):
                place = one.places.get(field) or one.places[""]
                wrong, right = (
                    f"'{OPEN}' begins an expression of Argo's",
                    "do without: there is no other way to write it",
                )
                found.append(Finding(place, "error", "placeholder", wrong, right))
    if found:
        raise DefinitionError(found)
    for name, value in kept.values.items():
        if value is not None and OPEN in value:
            raise UsageError(f"parameter {name}: '{OPEN}' in {shown(value)} begins an expression of Argo's; do without")


def filled(value: Any, marks: Mapping[str, str]) -> Any:  # noqa: ANN401 - anything of a document
    """Return a document with expressions for parameters in place of marks.

    Parameters
    ----------
    value : object
        The document, or a part of it.
    marks : Mapping of str to str
        The parameter that each stands for.
    """
    if isinstance(value, dict):
        return {name: filled(one, marks) for name, one in value.items()}
    if isinstance(value, list):
        return [filled(one, marks) for one in value]
    if isinstance(value, str):
        for mark, name in marks.items():
            value = value.replace(mark, tag(f"workflow.parameters.{name}"))
    return value
