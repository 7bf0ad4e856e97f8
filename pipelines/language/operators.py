"""Operators and their services, one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nuclei_segmentation.pipelines.language import versions
from nuclei_segmentation.pipelines.language.containers import connections, container, models, requests, variables
from nuclei_segmentation.pipelines.language.cursor import Cursor, once, required
from nuclei_segmentation.pipelines.language.findings import Place, shown
from nuclei_segmentation.pipelines.language.imports import Imports
from nuclei_segmentation.pipelines.language.interface import Interface, interface
from nuclei_segmentation.pipelines.language.model import Container, Operator, Service
from nuclei_segmentation.pipelines.language.names import bad_name

_SERVICE = ("name", "description", "api-version", "container", "connections", "requests", "variables", "import")
_OPERATOR = (
    "name", "description", "api-version", "container", "requests", "input", "output", "variables", "parameters",
    "models", "services", "import",
)  # fmt: skip
_SERVICES_DEPRECATED: versions.Version = (0, 7, 0)


@dataclass(frozen=True, slots=True)
class Draft:
    """An operator that is not joined to others yet.

    Attributes
    ----------
    name : str
        As written; '' if it has none.
    operator : Operator or None
        None if something that it needs is missing or wrong.
    interface : Interface
        What it reads and writes.
    place : Place
        Of the operator.
    pending : bool
        The name is a parameter's value that is not there yet.
    """

    name: str
    operator: Operator | None
    interface: Interface
    place: Place
    pending: bool = False


def draft(here: Cursor, imports: Imports) -> Draft | None:
    """Return what can be said of an operator by itself; None if nothing.

    Parameters
    ----------
    here : Cursor
        Where it stands in the pipeline.
    imports : Imports
        Follows its imports.
    """
    flat = imports.flatten(here, "an operator", _OPERATOR)
    if flat is None:
        name = here.under("name")
        known = name.text("an operator's name") if name is not None and not name.null else None
        return Draft(known or "", None, Interface((), (), False), here.place)
    there, fields, taken = flat
    version, reading = imports.version, here.reading
    name_text = _name(here, fields, "an operator")
    if taken is None and "api-version" in fields:
        own = versions.api_version(fields["api-version"])
        if own is not None and own != version:
            fields["api-version"].error(
                "api-version", "not the pipeline's version", f"{versions.show(version)}, or none"
            )
    faces = interface(fields, typed=version >= versions.TYPED)
    box = _container(there, fields, "an operator")
    if "models" in fields and version < versions.MODELS:
        at = fields["models"]
        reading.findings.add(at.key_place, "models", "`models` before api-version 0.6.0",
                             "documented from 0.6.0 on; NVIDIA's tools took it at 0.4.0 too", "warning")  # fmt: skip
    if "services" in fields and version >= _SERVICES_DEPRECATED:
        at = fields["services"]
        reading.findings.add(at.key_place, "services", "`services` is deprecated since 0.7.1",
                             "name Triton's models under `models`", "warning")  # fmt: skip
    environment = {**_misplaced(fields.get("container")), **variables(fields.get("variables"))}
    description = fields["description"].text("a description") if "description" in fields else ""
    wanted, loaded = requests(fields.get("requests")), models(fields.get("models"))
    helpers = _services(fields.get("services"), imports)
    operator = None
    if name_text and box is not None:
        operator = Operator(
            name_text, box, faces.inputs, faces.outputs, environment, wanted, loaded, helpers, description or "", taken,
            {name: value.place for name, value in fields.items()} | {"": here.place},
        )  # fmt: skip
    pending = not name_text and "name" in fields and fields["name"].pending
    return Draft(name_text, operator, faces, here.place, pending)


def _services(here: Cursor | None, imports: Imports) -> tuple[Service, ...]:
    """Source: page *service*. Names are unique in their operator; other operators may use them again."""
    found: list[Service] = []
    taken: dict[str, Place] = {}
    for item in here.items("services") if here is not None else []:
        flat = imports.flatten(item, "a service", _SERVICE)
        if flat is None:
            continue
        there, fields, origin = flat
        name = _name(item, fields, "a service")
        if name:
            once(taken, name.lower(), fields["name"], f"service {shown(name)}")
        if origin is None and "api-version" in fields:
            versions.api_version(fields["api-version"])
        box = _container(there, fields, "a service")
        ways = connections(fields.get("connections"))
        if not ways and "connections" not in fields:
            item.warn("connection", "a service without connections", "add `connections`: operators cannot reach it")
        environment = {**_misplaced(fields.get("container")), **variables(fields.get("variables"))}
        wanted = requests(fields.get("requests"))
        text = fields["description"].text("a description") if "description" in fields else ""
        if name and box is not None:
            places = {key: value.place for key, value in fields.items()} | {"": item.place}
            found.append(Service(name, box, ways, environment, wanted, text or "", origin, places))
    return tuple(found)


def _name(here: Cursor, fields: Mapping[str, Cursor], what: str) -> str:
    at = required(here, fields, "name", what)
    name = at.text(f"{what}'s name") if at is not None else None
    if at is not None and name is not None and (wrong := bad_name(name)):
        at.error("bad-name", f"{shown(name)} is not {what}'s name", wrong)
    return name or ""


def _container(there: Cursor, fields: Mapping[str, Cursor], what: str) -> Container | None:
    at = required(there, fields, "container", what)
    return container(at) if at is not None else None


def _misplaced(here: Cursor | None) -> Mapping[str, str]:
    """Return variables that stand in the container, as in published definitions; when reading leniently, they count."""
    at = here.under("variables") if here is not None and here.reading.lenient else None
    return variables(at) if at is not None and not at.null else {}
