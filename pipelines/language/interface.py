"""Inputs and outputs of an operator."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from nuclei_segmentation.pipelines.language.cursor import Cursor, once, required
from nuclei_segmentation.pipelines.language.datatypes import FIELDS, data_type, refuse_types
from nuclei_segmentation.pipelines.language.findings import Place, shown
from nuclei_segmentation.pipelines.language.model import Input, Output
from nuclei_segmentation.pipelines.language.names import bad_name, bad_path, no_text

_INPUT = ("from", "name", "path", *FIELDS)
_OUTPUT = ("name", "path", *FIELDS)


@dataclass(frozen=True, slots=True)
class Interface:
    """Inputs and outputs of an operator, not joined to others yet.

    Attributes
    ----------
    inputs, outputs : tuple of Input, tuple of Output
        In the order of the file. `Input.source` and `Input.output` are as written.
    sound : bool
        Whether all outputs could be read; if not, nothing can be said of who asks for one.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    sound: bool


def interface(fields: Mapping[str, Cursor], *, typed: bool) -> Interface:
    """Return an operator's inputs and outputs.

    Parameters
    ----------
    fields : Mapping of str to Cursor
        Of the operator.
    typed : bool
        Whether the pipeline is of 0.5.0 or later.
    """
    taken: dict[str, Place] = {}
    inputs = [_input(item, taken, typed) for item in _list(fields, "input", "inputs")]
    items = _list(fields, "output", "outputs")
    names: dict[str, Place] = {}
    outputs = [_output(item, taken, names, len(items), typed) for item in items]
    wrong = None in outputs or ("output" in fields and not items)
    return Interface(
        tuple(one for one in inputs if one is not None), tuple(one for one in outputs if one is not None), not wrong
    )


def _list(fields: Mapping[str, Cursor], name: str, what: str) -> list[Cursor]:
    return fields[name].items(what) if name in fields else []


def _input(here: Cursor, taken: dict[str, Place], typed: bool) -> Input | None:
    fields = here.fields("an input", _INPUT)
    if fields is None:
        return None
    source = fields["from"].text("an operator's name", no_text) if "from" in fields else ""
    name = _name(fields, "an output's name")
    if typed and source and "name" not in fields:
        here.error("missing", "`from` without `name`", f"name the output of {shown(source)} that is read")
    type_ = data_type(here, fields) if typed else None
    if not typed:
        refuse_types(fields)
    path = _path(here, fields, taken, typed)
    if source is None or name is None:
        return None
    places = {key: value.place for key, value in fields.items()} | {"": here.place}
    return Input(source or None, name, name, path, type_, places)


def _output(here: Cursor, taken: dict[str, Place], names: dict[str, Place], count: int, typed: bool) -> Output | None:
    """Source: page *output*: a name is needed where there are several, and always from 0.5.0 on."""
    fields = here.fields("an output", _OUTPUT)
    if fields is None:
        return None
    if "name" not in fields and (typed or count > 1):
        why = "in a typed pipeline" if typed else "among several"
        here.error("missing", f"an output without name {why}", "add `name: ...` here")
    name = _name(fields, "an output's name")
    if name:
        once(names, name.lower(), fields["name"], f"output {shown(name)}")
    type_ = data_type(here, fields) if typed else None
    if not typed:
        refuse_types(fields)
    path = _path(here, fields, taken, typed)
    if name is None:
        return None
    places = {key: value.place for key, value in fields.items()} | {"": here.place}
    return Output(name, path, type_, places)


def _name(fields: Mapping[str, Cursor], what: str) -> str | None:
    """Return the name, '' if there is none, None if it cannot be read. A bad one is noted and returned."""
    if "name" not in fields:
        return ""
    name = fields["name"].text(what)
    if name is not None and (wrong := bad_name(name)):
        fields["name"].error("bad-name", f"{shown(name)} is not {what}", wrong)
    return name


def _path(here: Cursor, fields: Mapping[str, Cursor], taken: dict[str, Place], typed: bool) -> str | None:
    at = fields.get("path")
    if at is None:
        if not typed:
            required(here, fields, "path", "an input or output before api-version 0.5.0")
        return None
    path = at.text("a path in the container", bad_path)
    if path is not None:
        once(taken, posixpath.normpath(path), at, f"path {shown(path)}")
    return path
