"""Inputs and outputs of an operator."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from nuclei_segmentation.pipelines.language.cursor import Cursor, refuse_duplicate, required
from nuclei_segmentation.pipelines.language.datatypes import TYPE_KEYS, read_data_type, refuse_types
from nuclei_segmentation.pipelines.language.findings import Place, shown
from nuclei_segmentation.pipelines.language.model import Input, Output
from nuclei_segmentation.pipelines.language.names import bad_name, bad_path, blank

_INPUT = ("from", "name", "path", *TYPE_KEYS)
_OUTPUT = ("name", "path", *TYPE_KEYS)


@dataclass(frozen=True, slots=True)
class Interface:
    """Inputs and outputs of an operator that is not joined to others yet.

    Attributes
    ----------
    inputs : tuple of Input
        In the order of the file. `Input.source` and `Input.output` are as written.
    outputs : tuple of Output
        In the order of the file.
    sound : bool
        Whether all outputs could be read. If not, an output that is not found may be one of those.
    """

    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    sound: bool


def read_interface(fields: Mapping[str, Cursor], *, typed: bool) -> Interface:
    """Return an operator's inputs and outputs.

    Parameters
    ----------
    fields : Mapping of str to Cursor
        The values of the operator.
    typed : bool
        Whether the pipeline's version is 0.5.0 or later.
    """
    paths: dict[str, Place] = {}
    names: dict[str, Place] = {}
    inputs = [_input(item, paths, typed) for item in _items(fields, "input", "inputs")]
    items = _items(fields, "output", "outputs")
    outputs = [_output(item, paths, names, len(items), typed) for item in items]
    unsound = None in outputs or ("output" in fields and not items)
    return Interface(
        tuple(item for item in inputs if item is not None),
        tuple(item for item in outputs if item is not None),
        not unsound,
    )


def _items(fields: Mapping[str, Cursor], key: str, what: str) -> list[Cursor]:
    return fields[key].items(what) if key in fields else []


def _input(cursor: Cursor, paths: dict[str, Place], typed: bool) -> Input | None:
    fields = cursor.fields("an input", _INPUT)
    if fields is None:
        return None
    source = fields["from"].text("an operator name", blank) if "from" in fields else ""
    name = _name(fields)
    if typed and source and "name" not in fields:
        cursor.error(
            "missing",
            "`from` needs `name` next to it in a typed pipeline",
            f"add the name of the output of {shown(source)} to read",
        )
    data_type = read_data_type(cursor, fields) if typed else None
    if not typed:
        refuse_types(fields)
    path = _path(cursor, fields, paths, typed)
    if source is None or name is None:
        return None
    places = {key: value.place for key, value in fields.items()} | {"": cursor.place}
    return Input(source or None, name, name, path, data_type, places)


def _output(cursor: Cursor, paths: dict[str, Place], names: dict[str, Place], count: int, typed: bool) -> Output | None:
    """Source: page *output*: a name is needed where there are several, and always from 0.5.0 on."""
    fields = cursor.fields("an output", _OUTPUT)
    if fields is None:
        return None
    if "name" not in fields and (typed or count > 1):
        what = "an output of a typed pipeline" if typed else "each of several outputs"
        cursor.error("missing", f"{what} must have `name`", "add `name: ...` here")
    name = _name(fields)
    if name:
        refuse_duplicate(names, name.lower(), fields["name"], f"output {shown(name)}")
    data_type = read_data_type(cursor, fields) if typed else None
    if not typed:
        refuse_types(fields)
    path = _path(cursor, fields, paths, typed)
    if name is None:
        return None
    places = {key: value.place for key, value in fields.items()} | {"": cursor.place}
    return Output(name, path, data_type, places)


def _name(fields: Mapping[str, Cursor]) -> str | None:
    """Return an output's name, even a wrong one; '' if there is none, None if it cannot be read."""
    if "name" not in fields:
        return ""
    name = fields["name"].text("an output name")
    if name is not None and (expected := bad_name(name)):
        fields["name"].error("bad-name", f"{shown(name)} is not valid as an output name", expected)
    return name


def _path(cursor: Cursor, fields: Mapping[str, Cursor], paths: dict[str, Place], typed: bool) -> str | None:
    field = fields.get("path")
    if field is None:
        if not typed:
            required(cursor, fields, "path", "an input or output before api-version 0.5.0")
        return None
    path = field.text("a path in the container", bad_path)
    if path is not None:
        refuse_duplicate(paths, posixpath.normpath(path), field, f"path {shown(path)}")
    return path
