"""Versions of the language, and who ran a pipeline."""

from __future__ import annotations

import difflib
import re

from nuclei_segmentation.pipelines.language.cursor import Cursor
from nuclei_segmentation.pipelines.language.findings import shown

Version = tuple[int, int, int]

OLDEST: Version = (0, 2, 0)
NEWEST: Version = (0, 7, 0)
TYPED: Version = (0, 5, 0)
MODELS: Version = (0, 6, 0)
CLARA: Version = (0, 4, 0)
ORCHESTRATORS = ("Clara", "Argo")

_RIGHT = "0.2.0, 0.3.0, 0.4.0, 0.5.0, 0.6.0 or 0.7.0"


def api_version(here: Cursor) -> Version | None:
    """Return a document's version; None if it is none that can be read.

    Source: the reference pages and published definitions show 0.2.0 to 0.7.0. What a third number other than 0 means is
    documented nowhere; we read such a version as its .0, with a warning.
    """
    text = here.text("an api-version")
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})", text)
    if found is None:
        here.error("api-version", f"{shown(text)} is no version", f"three numbers: {_RIGHT}")
        return None
    major, minor, patch = (int(part) for part in found.groups())
    version = (major, minor, 0)
    if not OLDEST <= version <= NEWEST:
        here.error("api-version", f"version {text} is not known", _RIGHT)
        return None
    if patch:
        here.warn("api-version", f"version {text} is not documented", f"it is read as {major}.{minor}.0")
    return version


def orchestrator(here: Cursor | None, version: Version) -> str:
    """Return who runs the pipeline.

    Source: page *pipelines* and published definitions: Argo for 0.3.0 and before, either for 0.4.0, Clara only for
    typed pipelines, 0.5.0 and later.
    """
    default = "Clara" if version >= CLARA else "Argo"
    text = here.text("an orchestrator") if here is not None else None
    if here is None or text is None:
        return default
    if text not in ORCHESTRATORS:
        near = difflib.get_close_matches(text.capitalize(), ORCHESTRATORS, n=1)
        expected = f"did you mean {near[0]}?" if near else "Clara or Argo"
        here.error("orchestrator", f"{shown(text)} is no orchestrator", expected)
        return default
    if version >= TYPED and text == "Argo":
        here.error("orchestrator", "typed pipelines (0.5.0 and later) do not run under Argo", "Clara, or leave it out")
    elif version < CLARA and text == "Clara":
        here.warn("orchestrator", "before 0.4.0 pipelines ran under Argo", "api-version 0.4.0, or leave it out")
    return text


def show(version: Version) -> str:
    """Return a version as text."""
    return ".".join(map(str, version))
