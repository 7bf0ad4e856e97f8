"""What is wrong with a definition, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from nuclei_segmentation.shared.errors import UsageError
from nuclei_segmentation.shared.runtime.outside import harmless

MAX_FINDINGS = 1000
"""Findings of one check that are kept. A file with more is something other than a definition with mistakes."""

Severity = Literal["error", "warning"]
Code = Literal[
    "alias", "api-version", "bad-key", "bad-name", "bad-value", "connection", "cycle", "duplicate", "duplicate-key",
    "encoding", "file", "import", "import-cycle", "merge-key", "missing", "models", "no-value", "orchestrator",
    "placeholder", "services", "several-documents", "tag", "too-deep", "type", "type-mismatch", "undeclared",
    "unknown-key", "unknown-operator", "unknown-output", "wrong-kind", "yaml",
]  # fmt: skip
"""A word for each kind of finding. It stays the same from version to version."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A place in a file.

    Attributes
    ----------
    file : str
        The file's name as the user gave it, or as an import gives it.
    line, column : int
        Both count from 1, the column in characters. Lines end as in editors.
    path : str
        The path in the document, for example ``operators[0].input[1].from``. ``document`` is the root.
    """

    file: str
    line: int
    column: int
    path: str

    def line_for(self, file: str) -> str:
        """Return the line for a message about a place in `file`: ``line 7``, or ``line 7 of other.yaml``."""
        return f"line {self.line}" if self.file == file else f"line {self.line} of {self.file}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes
    ----------
    place : Place
        Where it is.
    severity : {"error", "warning"}
        A warning leaves the definition usable.
    code : str
        The kind of finding, a `Code`.
    message : str
        What is wrong.
    expected : str
        What would be right, or what to do.
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
    """Collects findings: each once, and at most `MAX_FINDINGS`."""

    def __init__(self) -> None:
        self._found: dict[Finding, None] = {}

    def add(self, place: Place, code: Code, message: str, expected: str, severity: Severity = "error") -> None:
        """Add a finding, unless there are enough.

        Parameters
        ----------
        place : Place
            Where it is.
        code : str
            The kind of finding, a `Code`.
        message : str
            What is wrong.
        expected : str
            What would be right, or what to do.
        severity : {"error", "warning"}, optional
            A warning leaves the definition usable.
        """
        if not self.full:
            self._found[Finding(place, severity, code, message, expected)] = None

    @property
    def full(self) -> bool:
        """Whether further findings are dropped."""
        return len(self._found) >= MAX_FINDINGS

    @property
    def errors(self) -> int:
        """The number of errors."""
        return sum(1 for finding in self._found if finding.severity == "error")

    def sorted(self, first: str) -> tuple[Finding, ...]:
        """Return all findings by place: those of the file `first`, then those of the files that it imports."""
        return tuple(sorted(self._found, key=lambda finding: (finding.place.file != first, finding.place)))


class DefinitionError(UsageError):
    """A pipeline definition is wrong.

    Parameters
    ----------
    findings : Iterable of Finding
        All findings, warnings included. The message has the errors only.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("; ".join(str(finding) for finding in self.findings if finding.severity == "error"))


def shown(text: str, limit: int = 60) -> str:
    """Return a value for a message: in quotes, on one line, shortened, without characters that control a terminal.

    Parameters
    ----------
    text : str
        The value.
    limit : int, optional
        The most characters to show.
    """
    return repr(text if len(text) <= limit else f"{text[: limit - 3]}...")
