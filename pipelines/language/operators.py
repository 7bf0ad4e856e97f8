"""Operators and their services, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from nuclei_segmentation.pipelines.language.containers import (
    read_connections,
    read_container,
    read_models,
    read_requests,
    read_variables,
    variable_places,
)
from nuclei_segmentation.pipelines.language.cursor import Cursor, refuse_duplicate, required
from nuclei_segmentation.pipelines.language.findings import Place, shown
from nuclei_segmentation.pipelines.language.imports import Imports
from nuclei_segmentation.pipelines.language.interface import Interface, read_interface
from nuclei_segmentation.pipelines.language.model import Container, Operator, Service
from nuclei_segmentation.pipelines.language.names import bad_name
from nuclei_segmentation.pipelines.language.versions import MODELS, TYPED, Version, read_version, version_text

_SERVICE = ("name", "description", "api-version", "container", "connections", "requests", "variables", "import")
_OPERATOR = (
    "name", "description", "api-version", "container", "requests", "input", "output", "variables", "parameters",
    "models", "services", "import",
)  # fmt: skip
_SERVICES_DEPRECATED: Version = (0, 7, 0)


@dataclass(frozen=True, slots=True)
class Draft:
    """An operator that is not joined to others yet.

    Attributes
    ----------
    name : str
        The name as written; '' if it has none.
    operator : Operator or None
        None if something that it needs is missing or wrong.
    interface : Interface
        What it reads and writes.
    place : Place
        The place of the operator.
    pending : bool
        Whether the name is the value of a parameter that has none yet.
    """

    name: str
    operator: Operator | None
    interface: Interface
    place: Place
    pending: bool = False


def read_operator(cursor: Cursor, imports: Imports) -> Draft:
    """Return what an operator says of itself, without a look at the others.

    Parameters
    ----------
    cursor : Cursor
        The operator in the pipeline.
    imports : Imports
        Follows its imports.
    """
    flat = imports.flatten(cursor, "an operator", _OPERATOR)
    if flat is None:
        field = cursor.peek("name")
        name = field.text("an operator name") if field is not None and not field.null else None
        return Draft(name or "", None, Interface((), (), False), cursor.place)
    fields = flat.fields
    name = _name(cursor, fields, "an operator")
    if flat.imported is None:
        _check_version(fields, imports.version)
    interface = read_interface(fields, typed=imports.version >= TYPED)
    container = _container(flat.source, fields, "an operator")
    if "models" in fields and imports.version < MODELS:
        fields["models"].key_finding(
            "models", "`models` before api-version 0.6.0",
            "it is documented from 0.6.0 on, but NVIDIA's tools accept it at 0.4.0 too", "warning",
        )  # fmt: skip
    if "services" in fields and imports.version >= _SERVICES_DEPRECATED:
        fields["services"].key_finding("services", "`services` is deprecated since 0.7.1",
                                       "list Triton's models under `models`", "warning")  # fmt: skip
    variables = _variables(fields)
    description = fields["description"].text("a description") if "description" in fields else ""
    requests, models = read_requests(fields.get("requests")), read_models(fields.get("models"))
    services = _services(fields.get("services"), imports)
    operator = None
    if name and container is not None:
        operator = Operator(
            name, container, interface.inputs, interface.outputs, variables, requests, models, services,
            description or "", flat.imported,
            {key: value.place for key, value in fields.items()} | {"": cursor.place} | _variable_places(fields),
        )  # fmt: skip
    pending = not name and "name" in fields and fields["name"].pending
    return Draft(name, operator, interface, cursor.place, pending)


def _services(cursor: Cursor | None, imports: Imports) -> tuple[Service, ...]:
    """Source: page *service*. Names are unique in their operator; other operators may use them again."""
    services: list[Service] = []
    names: dict[str, Place] = {}
    for item in cursor.items("services") if cursor is not None else []:
        flat = imports.flatten(item, "a service", _SERVICE)
        if flat is None:
            continue
        fields = flat.fields
        name = _name(item, fields, "a service")
        if name:
            refuse_duplicate(names, name.lower(), fields["name"], f"service {shown(name)}")
        if flat.imported is None and "api-version" in fields:
            read_version(fields["api-version"])
        container = _container(flat.source, fields, "a service")
        connections = read_connections(fields.get("connections"))
        if not connections and "connections" not in fields:
            item.warn("connection", "a service without `connections`",
                      "add `connections: ...`: without them operators cannot reach it")  # fmt: skip
        variables = _variables(fields)
        requests = read_requests(fields.get("requests"))
        description = fields["description"].text("a description") if "description" in fields else ""
        if name and container is not None:
            places = {key: value.place for key, value in fields.items()} | {"": item.place}
            services.append(
                Service(name, container, connections, variables, requests, description or "", flat.imported, places)
            )
    return tuple(services)


def _check_version(fields: Mapping[str, Cursor], expected: Version) -> None:
    field = fields.get("api-version")
    version = read_version(field) if field is not None else None
    if field is not None and version is not None and version != expected:
        field.error("api-version", "this is not the pipeline's api-version",
                    f"use {version_text(expected)}, or remove it")  # fmt: skip


def _name(parent: Cursor, fields: Mapping[str, Cursor], what: str) -> str:
    field = required(parent, fields, "name", what)
    name = field.text(f"{what} name") if field is not None else None
    if field is not None and name is not None and (expected := bad_name(name)):
        field.error("bad-name", f"{shown(name)} is not valid as {what} name", expected)
    return name or ""


def _container(parent: Cursor, fields: Mapping[str, Cursor], what: str) -> Container | None:
    field = required(parent, fields, "container", what)
    return read_container(field) if field is not None else None


def _variables(fields: Mapping[str, Cursor]) -> Mapping[str, str]:
    return {name: text for cursor in _variable_maps(fields) for name, text in read_variables(cursor).items()}


def _variable_places(fields: Mapping[str, Cursor]) -> dict[str, Place]:
    return {name: place for cursor in _variable_maps(fields) for name, place in variable_places(cursor).items()}


def _variable_maps(fields: Mapping[str, Cursor]) -> Iterator[Cursor]:
    """Yield what holds variables; if the check is lenient, that in the container too: published definitions have it."""
    container = fields.get("container")
    misplaced = container.peek("variables") if container is not None and container.context.lenient else None
    if misplaced is not None and not misplaced.null:
        yield misplaced
    if "variables" in fields:
        yield fields["variables"]
