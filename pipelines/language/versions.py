"""Versions of the language, and the orchestrators that run a pipeline."""

from __future__ import annotations

import re

from nuclei_segmentation.pipelines.language.cursor import Cursor
from nuclei_segmentation.pipelines.language.findings import shown
from nuclei_segmentation.pipelines.language.suggestions import suggest

Version = tuple[int, int, int]

OLDEST: Version = (0, 2, 0)
NEWEST: Version = (0, 7, 0)
TYPED: Version = (0, 5, 0)
"""From here on, inputs and outputs have types."""
MODELS: Version = (0, 6, 0)
"""From here on, operators have `models`."""
CLARA: Version = (0, 4, 0)
"""From here on, Clara can run a pipeline; Argo ran those before."""
ORCHESTRATORS = ("Clara", "Argo")

_EXPECTED = "use 0.2.0, 0.3.0, 0.4.0, 0.5.0, 0.6.0 or 0.7.0"


def read_version(cursor: Cursor) -> Version | None:
    """Return a document's version; None if it cannot be read.

    Source: the reference pages and published definitions show 0.2.0 to 0.7.0. What a third number other than 0 means is
    documented nowhere; we read such a version as its .0, with a warning.
    """
    text = cursor.text("an api-version")
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})", text)
    if found is None:
        cursor.error("api-version", f"{shown(text)} is not a version", _EXPECTED)
        return None
    major, minor, patch = (int(part) for part in found.groups())
    version = (major, minor, 0)
    if not OLDEST <= version <= NEWEST:
        cursor.error("api-version", f"version {text} is not supported", _EXPECTED)
        return None
    if patch:
        cursor.warn("api-version", f"version {text} is not documented", f"it is read as {major}.{minor}.0")
    return version


def read_orchestrator(cursor: Cursor | None, version: Version) -> str:
    """Return the orchestrator that runs the pipeline.

    Source: page *pipelines* and published definitions: Argo for 0.3.0 and before, either for 0.4.0, Clara only for
    typed pipelines, 0.5.0 and later.

    Parameters
    ----------
    cursor : Cursor or None
        The value of ``orchestrator``, if there is one.
    version : (int, int, int)
        The version of the pipeline.
    """
    default = "Clara" if version >= CLARA else "Argo"
    text = cursor.text("an orchestrator") if cursor is not None else None
    if cursor is None or text is None:
        return default
    if text not in ORCHESTRATORS:
        expected = suggest(text, ORCHESTRATORS, "use Clara or Argo")
        cursor.error("orchestrator", f"{shown(text)} is not an orchestrator", expected)
        return default
    if version >= TYPED and text == "Argo":
        cursor.error("orchestrator", "Argo does not run typed pipelines (0.5.0 and later)",
                     "use Clara, or remove `orchestrator`")  # fmt: skip
    elif version < CLARA and text == "Clara":
        cursor.warn("orchestrator", "before api-version 0.4.0, Argo ran the pipelines",
                    "use api-version 0.4.0, or remove `orchestrator`")  # fmt: skip
    return text


def version_text(version: Version) -> str:
    """Return a version as text."""
    return ".".join(map(str, version))
