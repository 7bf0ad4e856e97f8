"""Placeholders: ``${{ NAME }}`` stands for the value of a parameter.

Source: reference page *template*. Values given for the job come first, then the defaults under `parameters`; a value
whose name is not a declared parameter is refused. Ours, since it is documented nowhere: a placeholder whose name is not
declared is an error; values are inserted into texts after the YAML was parsed, so they can add no structure; a value is
not searched for further placeholders; an operator's own `parameters` hide those of its pipeline; an imported document
sees only its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from nuclei_segmentation.pipelines.language.findings import Code, shown
from nuclei_segmentation.pipelines.language.names import NAME
from nuclei_segmentation.pipelines.language.suggestions import MAX_COMPARED, listed, suggest

OPEN, CLOSE = "${{", "}}"
MAX_INSERTED = 1024 * 1024
"""Characters that all placeholders of one definition may insert."""

_MAX_PROBLEMS = 100
"""Problems of one text that are reported."""


class Budget:
    """How many characters placeholders may still insert."""

    def __init__(self) -> None:
        self.left = MAX_INSERTED


@dataclass(frozen=True, slots=True)
class Scope:
    """The parameters that a document, or an operator in it, sees.

    Attributes
    ----------
    values : Mapping of str to str or None
        The values by name; None where a parameter has no value yet.
    outer : Scope or None
        The scope around this one.
    budget : Budget
        Shared by all scopes of a definition.
    """

    values: Mapping[str, str | None]
    outer: Scope | None = None
    budget: Budget = field(default_factory=Budget)

    def within(self, values: Mapping[str, str | None]) -> Scope:
        """Return a scope inside this one."""
        return Scope(values, self, self.budget)

    def names(self) -> Iterator[str]:
        """Yield the names that are declared."""
        yield from self.values
        if self.outer is not None:
            yield from self.outer.names()

    def has(self, name: str) -> bool:
        """Whether a parameter is declared."""
        return name in self.values or (self.outer is not None and self.outer.has(name))

    def value(self, name: str) -> str | None:
        """Return a declared parameter's value."""
        if name in self.values or self.outer is None:
            return self.values.get(name)
        return self.outer.value(name)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a placeholder.

    Attributes
    ----------
    number : int
        Which placeholder of its text it is, from 0.
    code : str
        The kind of finding, a `Code`.
    message : str
        What is wrong.
    expected : str
        What would be right, or what to do.
    """

    number: int
    code: Code
    message: str
    expected: str


@dataclass(frozen=True, slots=True)
class Expanded:
    """A text with values in place of its placeholders.

    Attributes
    ----------
    text : str or None
        None where a value is not known yet, or a placeholder is wrong.
    problems : tuple of Problem
        What is wrong with the placeholders.
    """

    text: str | None
    problems: tuple[Problem, ...] = ()


def has_placeholder(text: str) -> bool:
    """Whether a text has a placeholder."""
    return OPEN in text


def expand(text: str, scope: Scope, *, complete: bool) -> Expanded:
    """Put the values of parameters in place of their placeholders.

    Parameters
    ----------
    text : str
        The text as it was written.
    scope : Scope
        The parameters.
    complete : bool
        Whether a parameter without a value is an error.
    """
    parts: list[str] = []
    problems: list[Problem] = []
    unknown = False
    end = number = 0
    while (start := text.find(OPEN, end)) >= 0 and len(problems) < _MAX_PROBLEMS:
        parts.append(text[end:start])
        close = text.find(CLOSE, start)
        if close < 0:
            expected = f"write {OPEN} NAME {CLOSE}, or remove {OPEN}"
            problems.append(Problem(number, "placeholder", f"the placeholder has no {CLOSE}", expected))
            unknown = True
            break
        name, end = text[start + len(OPEN) : close].strip(), close + len(CLOSE)
        problem, value = _value(name, number, scope, complete)
        if problem is not None:
            problems.append(problem)
        unknown = unknown or value is None
        parts.append(value or "")
        scope.budget.left -= len(value or "")
        if scope.budget.left < 0:
            message = f"the placeholders of the definition insert more than {MAX_INSERTED} characters"
            return Expanded(None, (Problem(number, "placeholder", message, "give shorter values"),))
        number += 1
    return Expanded(None if unknown else "".join([*parts, text[end:]]), tuple(problems))


def _value(name: str, number: int, scope: Scope, complete: bool) -> tuple[Problem | None, str | None]:
    if not NAME.fullmatch(name):
        expected = f"write {OPEN} NAME {CLOSE}, with a name of letters, digits, '-' and '_'"
        return Problem(number, "placeholder", f"{shown(name)} is not valid as a parameter name", expected), None
    if not scope.has(name):
        declared = sorted(set(islice(scope.names(), MAX_COMPARED)))
        otherwise = f"declared: {listed(declared)}" if declared else "declare it under `parameters`"
        expected = suggest(name, declared, otherwise)
        return Problem(number, "undeclared", f"parameter {name} is not declared", expected), None
    value = scope.value(name)
    if value is None and complete:
        return Problem(number, "no-value", f"parameter {name} has no value and no default", "give it a value"), None
    return None, value
