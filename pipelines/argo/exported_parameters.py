"""Parameters of a definition that stay parameters of the exported workflow.

A parameter stays one if its value only becomes part of texts: of commands, of variables, of models' names. Whatever
decides which containers there are and how they are connected (names, images, paths, ports, requests) needs its value
when the workflow is written. Whether that is so is not looked up in the definition but tried out: with a marker instead
of the value, the pipeline must be the same except for its texts.
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
"""How often a definition is resolved to find these parameters; ten need 20 at most. After that, the rest get values."""


@dataclass(frozen=True, slots=True)
class ExportedParameters:
    """A pipeline with markers instead of the values of the parameters that stay parameters.

    Attributes
    ----------
    pipeline : Pipeline
        The pipeline with markers.
    markers : Mapping of str to str
        The parameter for which each marker stands.
    values : Mapping of str to str or None
        The value of each parameter; None if one must be given when the workflow is submitted.
    """

    pipeline: Pipeline
    markers: Mapping[str, str]
    values: Mapping[str, str | None]


def export_parameters(definition: Definition, values: Mapping[str, str]) -> ExportedParameters:
    """Return the pipeline of a definition; as many of its parameters as possible stay parameters.

    Parameters
    ----------
    definition : Definition
        The definition.
    values : Mapping of str to str
        Values of parameters, instead of their defaults.

    Raises
    ------
    DefinitionError
        The definition is wrong, a value is for a parameter that is not declared, or a parameter that cannot stay one
        has no value.
    """
    report = definition.check()
    if report.errors:
        raise DefinitionError(report.findings)
    salt = hashlib.sha256(read_regular(definition.path, LARGEST) or b"").hexdigest()[:16]
    markers = {parameter.name: f"x{salt}n{number}e" for number, parameter in enumerate(report.parameters)}
    missing = {
        parameter.name: markers[parameter.name]
        for parameter in report.parameters
        if parameter.default is None and parameter.name not in values
    }
    try:
        plain = definition.resolve({**missing, **values})
    except DefinitionError:
        definition.resolve(values)  # says which parameter has no value, if that is the reason
        raise
    frame, tries = _without_texts(plain), MOST_TRIES

    def with_markers(names: Sequence[str]) -> Pipeline:
        return definition.resolve({**missing, **values, **{name: markers[name] for name in names}})

    def can_stay(names: Sequence[str]) -> bool:
        nonlocal tries
        tries -= 1
        if tries < 0:
            return False
        try:
            pipeline = with_markers(names)
        except DefinitionError:
            return False
        texts = list(_texts(pipeline))
        in_braces = any("{" + markers[name] in text for name in names for text in texts)
        return _without_texts(pipeline) == frame and not in_braces

    names = _largest_set([parameter.name for parameter in report.parameters], can_stay)
    if any(marker in repr(frame) for marker in missing.values()) or not missing.keys() <= set(names):
        definition.resolve(values)  # raises
    return ExportedParameters(
        with_markers(names),
        {markers[name]: name for name in names},
        {name: None if name in missing else plain.arguments[name] for name in names},
    )


def operators_and_services(pipeline: Pipeline) -> Iterator[Operator | Service]:
    """Yield everything that has a container: each operator, followed by its services."""
    for operator in pipeline.operators:
        yield operator
        yield from operator.services


def _texts(pipeline: Pipeline) -> Iterator[str]:
    """Yield the texts of a pipeline that a marker may be part of."""
    for item in operators_and_services(pipeline):
        yield from item.container.command
        yield from item.variables.values()


def _largest_set(names: Sequence[str], can_stay: Callable[[Sequence[str]], bool]) -> list[str]:
    """Return the parameters that can stay parameters, by asking for many at once."""
    if not names or can_stay(names):
        return list(names)
    if len(names) == 1:
        return []
    half = len(names) // 2
    return _largest_set(names[:half], can_stay) + _largest_set(names[half:], can_stay)


def _without_texts(pipeline: Pipeline) -> Pipeline:
    """Return a pipeline in which all texts that a marker may be part of are empty."""
    return replace(
        pipeline, arguments={}, description="", operators=tuple(map(_operator_without_texts, pipeline.operators))
    )


def _operator_without_texts(operator: Operator) -> Operator:
    return replace(
        operator, container=_container_without_texts(operator.container),
        variables=dict.fromkeys(operator.variables, ""), models=(), description="", imported=None,
        services=tuple(map(_service_without_texts, operator.services)),
    )  # fmt: skip


def _service_without_texts(service: Service) -> Service:
    return replace(
        service, container=_container_without_texts(service.container),
        variables=dict.fromkeys(service.variables, ""), description="", imported=None,
    )  # fmt: skip


def _container_without_texts(container: Container) -> Container:
    return replace(container, command=("",) * len(container.command))
