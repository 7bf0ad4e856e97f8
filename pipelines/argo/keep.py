"""Parameters that are still parameters in what a definition is exported to.

A parameter is kept where its value only becomes part of words: of commands, of variables, of models' names. What
decides which containers there are and how they are joined (names, images, paths, ports, requests) has its value from
now on. Whether it does is not looked up in the definition but tried: with a mark in place of the value the pipeline
must be the same, but for words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from nuclei_segmentation.pipelines.language.files import LARGEST
from nuclei_segmentation.pipelines.language.findings import DefinitionError
from nuclei_segmentation.pipelines.language.model import Container, Operator, Pipeline, Service
from nuclei_segmentation.pipelines.language.reader import Definition
from nuclei_segmentation.shared.runtime.files import read_regular

MOST_TRIES = 50
"""How often a definition is read to see what can be kept; then no more is. Ten parameters need 20 at most."""


@dataclass(frozen=True, slots=True)
class ExportedParameters:
    """A pipeline with marks in place of the values of parameters that were kept.

    Attributes
    ----------
    pipeline : Pipeline
        With marks.
    marks : Mapping of str to str
        The parameter that each of them stands for.
    values : Mapping of str to str or None
        Of the kept parameters; None where one must be given when the pipeline is run.
    """

    pipeline: Pipeline
    marks: Mapping[str, str]
    values: Mapping[str, str | None]


def keep(definition: Definition, values: Mapping[str, str]) -> ExportedParameters:
    """Return a definition's pipeline with as many of its parameters kept as can be.

    Parameters
    ----------
    definition : Definition
        To be read.
    values : Mapping of str to str
        Of parameters, in place of their defaults.

    Raises
    ------
    DefinitionError
        The definition is wrong, a value is not declared, or one is missing of a parameter that cannot be kept.
    """
    report = definition.check()
    if report.errors:
        raise DefinitionError(report.findings)
    salt = hashlib.sha256(read_regular(definition.path, LARGEST) or b"").hexdigest()[:16]
    marks = {one.name: f"x{salt}n{number}e" for number, one in enumerate(report.parameters)}
    wanted = {one.name: marks[one.name] for one in report.parameters if one.default is None and one.name not in values}
    try:
        plain = definition.resolve({**wanted, **values})
    except DefinitionError:
        definition.resolve(values)  # says which parameter has no value, if that is why
        raise
    frame, left = _frame(plain), MOST_TRIES

    def fits(names: Sequence[str]) -> bool:
        nonlocal left
        left -= 1
        if left < 0:
            return False
        try:
            tried = definition.resolve({**wanted, **values, **{name: marks[name] for name in names}})
        except DefinitionError:
            return False
        told = list(words(tried))
        return _frame(tried) == frame and not any("{" + marks[name] in text for name in names for text in told)

    kept = _kept([one.name for one in report.parameters], fits)
    if any(mark in repr(frame) for mark in wanted.values()) or not wanted.keys() <= set(kept):
        definition.resolve(values)
    return ExportedParameters(
        definition.resolve({**wanted, **values, **{name: marks[name] for name in kept}}),
        {marks[name]: name for name in kept},
        {name: None if name in wanted else plain.arguments[name] for name in kept},
    )


def words(pipeline: Pipeline) -> Iterator[str]:
    """Yield the texts of a pipeline that a kept parameter may be part of."""
    for one in parts(pipeline):
        yield from one.container.command
        yield from one.variables.values()


def parts(pipeline: Pipeline) -> Iterator[Operator | Service]:
    """Yield whatever has a container: each operator, and after it its services."""
    for operator in pipeline.operators:
        yield operator
        yield from operator.services


def _kept(names: Sequence[str], fits: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return those of some parameters that can be kept, asking for many at once."""
    if not names or fits(names):
        return list(names)
    if len(names) == 1:
        return []
    half = len(names) // 2
    return _kept(names[:half], fits) + _kept(names[half:], fits)


def _frame(pipeline: Pipeline) -> Pipeline:
    """Return a pipeline without its words."""
    return replace(pipeline, arguments={}, description="", operators=tuple(map(_wordless, pipeline.operators)))


def _wordless(one: Operator) -> Operator:
    return replace(
        one, container=_silent(one.container), variables=dict.fromkeys(one.variables, ""), models=(), description="",
        imported=None, services=tuple(map(_wordless_service, one.services)),
    )  # fmt: skip


def _wordless_service(one: Service) -> Service:
    return replace(
        one, container=_silent(one.container), variables=dict.fromkeys(one.variables, ""), description="", imported=None
    )


def _silent(one: Container) -> Container:
    return replace(one, command=("",) * len(one.command))
