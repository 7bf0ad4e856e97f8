"""What is wrong with a definition, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nuclei_segmentation.shared.errors import UsageError

MOST = 1000
"""Findings of one check that are kept; a file with more is not a definition with mistakes, but something else."""

Severity = Literal["error", "warning"]
Code = Literal[
    "alias", "api-version", "bad-key", "bad-name", "bad-value", "connection", "cycle", "duplicate", "duplicate-key",
    "encoding", "file", "import", "import-cycle", "merge-key", "missing", "models", "no-value", "orchestrator",
    "placeholder", "services", "several-documents", "tag", "too-deep", "type", "type-mismatch", "undeclared",
    "unknown-key", "unknown-operator", "unknown-output", "wrong-kind", "yaml",
]  # fmt: skip
"""A word for each kind of finding, which stays the same from version to version."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a file.

    Attributes
    ----------
    file : str
        As the user named it, or as an import of it is named.
    line, column : int
        From 1, in characters; lines end as editors see them.
    path : str
        In the document, ``operators[0].input[1].from``; ``document`` is the whole of it.
    """

    file: str
    line: int
    column: int
    path: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    place : Place
        Where.
    severity : Severity
        An error, or a warning that leaves the definition usable.
    code : Code
        Of which kind.
    message : str
        What is wrong.
    expected : str
        What would be right.
    """

    place: Place
    severity: Severity
    code: Code
    message: str
    expected: str

    def __str__(self) -> str:
        at = self.place
        return harmless(f"{at.file}:{at.line}:{at.column}: {self.severity}: {at.path}: {self.message}; {self.expected}")


class Findings:
    """Collects findings, each once; at most `MOST`."""

    def __init__(self) -> None:
        self._found: dict[Finding, None] = {}

    def add(self, place: Place, code: Code, message: str, expected: str, severity: Severity = "error") -> None:
        """Note a finding."""
        if not self.full:
            self._found[Finding(place, severity, code, message, expected)] = None

    @property
    def full(self) -> bool:
        """Whether no more are taken."""
        return len(self._found) >= MOST

    @property
    def errors(self) -> int:
        """How many are errors."""
        return sum(1 for finding in self._found if finding.severity == "error")

    def sorted(self, first: str) -> tuple[Finding, ...]:
        """Return all by place, those of the file `first` before those of the files that it imports."""
        return tuple(sorted(self._found, key=lambda one: (one.place.file != first, one.place)))


class DefinitionError(UsageError):
    """A pipeline definition is wrong.

    Parameters
    ----------
    findings : Iterable of Finding
        All of them, warnings too.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(str(finding) for finding in self.findings if finding.severity == "error"))


def shown(text: str, limit: int = 60) -> str:
    """Return a value as it may stand in a message: in quotes, on one line, not endless, nothing a terminal obeys."""
    return repr(text if len(text) <= limit else f"{text[: limit - 3]}...")


def harmless(text: str) -> str:
    """Return a text on one line, with what a terminal would obey written as an escape."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)
