"""Placeholders: ``${{ NAME }}`` stands for the value of a parameter.

Source: reference page *template*. Values given for the job come first, then the defaults under `parameters`; a value
whose name is no declared parameter is refused. Ours, since it is documented nowhere: a placeholder that nothing
declares is an error; values are put into texts after the YAML was read, so they can add no structure; a value is not
searched for further placeholders; an operator's own `parameters` hide those of its pipeline; an imported document
sees only its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from nuclei_segmentation.pipelines.language.findings import Code, shown
from nuclei_segmentation.pipelines.language.names import NAME

OPEN, CLOSE = "${{", "}}"
LARGEST = 1024 * 1024
"""Most characters that the values of one definition may grow to."""

_MOST_PROBLEMS = 100
"""Of one text; who has more knows by then."""


class Budget:
    """How much may still be put into placeholders."""

    def __init__(self) -> None:
        self.left = LARGEST


@dataclass(frozen=True, slots=True)
class Scope:
    """The parameters that a document, or an operator in it, sees.

    Attributes
    ----------
    values : Mapping of str to str or None
        By name; None where a parameter has no value yet.
    outer : Scope or None
        Of the document around it.
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
    """What is wrong with a placeholder, and which one of its text it is, from 0."""

    number: int
    code: Code
    message: str
    expected: str


@dataclass(frozen=True, slots=True)
class Expanded:
    """A text with its values in place of placeholders; None where a value is not known yet."""

    text: str | None
    problems: tuple[Problem, ...] = ()


def has_placeholder(text: str) -> bool:
    """Whether a text has any."""
    return OPEN in text


def expand(text: str, scope: Scope, *, complete: bool) -> Expanded:
    """Put the values of parameters in place of their placeholders.

    Parameters
    ----------
    text : str
        As it was written.
    scope : Scope
        The parameters.
    complete : bool
        Whether a parameter without value is an error.
    """
    parts: list[str] = []
    problems: list[Problem] = []
    unknown = False
    end = number = 0
    while (start := text.find(OPEN, end)) >= 0 and len(problems) < _MOST_PROBLEMS:
        parts.append(text[end:start])
        close = text.find(CLOSE, start)
        if close < 0:
            problems.append(
                Problem(number, "placeholder", "a placeholder without end", f"write {OPEN} NAME {CLOSE}, or no {OPEN}")
            )
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
            message = f"the values grow beyond {LARGEST} characters"
            return Expanded(None, (Problem(number, "placeholder", message, "give shorter values"),))
        number += 1
    return Expanded(None if unknown else "".join([*parts, text[end:]]), tuple(problems))


def _value(name: str, number: int, scope: Scope, complete: bool) -> tuple[Problem | None, str | None]:
    if not NAME.fullmatch(name):
        expected = f"{OPEN} NAME {CLOSE}, the name of letters, digits, '-' and '_'"
        return Problem(number, "placeholder", f"{shown(name)} is no parameter's name", expected), None
    if not scope.has(name):
        return Problem(number, "undeclared", f"no parameter {name} is declared", nearest(name, scope)), None
    value = scope.value(name)
    if value is None and complete:
        return Problem(number, "no-value", f"parameter {name} has neither value nor default", "give it a value"), None
    return None, value


def nearest(name: str, scope: Scope) -> str:
    """Return what may have been meant by a name."""
    declared = sorted(set(islice(scope.names(), 200)))
    near = difflib.get_close_matches(name.upper(), [one.upper() for one in declared], n=1)
    if near:
        return f"did you mean {next(one for one in declared if one.upper() == near[0])}?"
    listed = ", ".join(declared[:8]) + (", ..." if len(declared) > 8 else "")
    return f"declared: {listed}" if declared else "declare it under `parameters`"
