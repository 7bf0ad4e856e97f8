"""Types of what passes between operators: stream, array, string and primitives."""

from __future__ import annotations

from collections.abc import Mapping

from nuclei_segmentation.pipelines.language.cursor import Cursor, required
from nuclei_segmentation.pipelines.language.findings import shown
from nuclei_segmentation.pipelines.language.model import DYNAMIC, DataType
from nuclei_segmentation.pipelines.language.names import blank
from nuclei_segmentation.pipelines.language.suggestions import suggest

_SIZES = {"u": ("uint", (8, 16, 32, 64)), "i": ("int", (8, 16, 32, 64)), "f": ("float", (16, 32, 64))}
PRIMITIVES = {
    name: f"{long}{bits}"
    for short, (long, sizes) in _SIZES.items()
    for bits in sizes
    for name in (f"{short}{bits}", f"{long}{bits}")
}
"""Each spelling of a primitive type, with the long one."""
TYPES = ("stream", "array", "string", *PRIMITIVES)
TYPE_KEYS = ("type", "element-type", "shape")
"""What an input or output has in typed pipelines only."""

_MAX_DIMENSION = 2**40
_RULES = {
    "stream": (("element-type", "path"), ("shape",), "a stream consists of files and has element-type and path"),
    "array": (("element-type", "shape"), ("path",), "an array is in shared memory and has element-type and shape"),
    "string": ((), ("element-type", "shape", "path"), "a string is in shared memory and has only a type"),
}
_PRIMITIVE = ((), ("element-type", "shape", "path"), "a single value is in shared memory and has only a type")
"""By type: what it must have, what it must not have, why. Source: pages *types*, *input*, *output*."""


def read_data_type(parent: Cursor, fields: Mapping[str, Cursor]) -> DataType | None:
    """Return the type of an input or output of a typed pipeline; None if it cannot be read.

    Source: page *types*. A string is the same as an array of uint8 with shape [-1], a primitive the same as an array
    of it with shape [1].

    Parameters
    ----------
    parent : Cursor
        The input or output.
    fields : Mapping of str to Cursor
        Its values.
    """
    field = required(parent, fields, "type", "an input or output of a typed pipeline")
    kind = field.text("a type") if field is not None else None
    if field is None or kind is None:
        return None
    if kind not in TYPES:
        field.error("type", f"{shown(kind)} is not a type", suggest(kind, TYPES, f"use one of {', '.join(TYPES)}"))
        return None
    needed, refused, reason = _RULES.get(kind, _PRIMITIVE)
    complete = True
    for key in needed:
        found = required(parent, fields, key, f"an input or output of type {kind}")
        complete = complete and found is not None
    for key in refused:
        if key in fields:
            fields[key].key_finding("type", f"type {kind} has no `{key}`", f"remove it: {reason}")
    if not complete:
        return None
    if kind == "stream":
        element = fields["element-type"].text("an element-type", blank)
        return None if element is None else DataType("stream", element)
    if kind == "array":
        return _array(fields["element-type"], fields["shape"])
    return DataType("array", "uint8", (DYNAMIC,)) if kind == "string" else DataType("array", PRIMITIVES[kind], (1,))


def refuse_types(fields: Mapping[str, Cursor]) -> None:
    """Refuse what only typed pipelines have. Source: pages *input* and *output*."""
    for key in TYPE_KEYS:
        if key in fields:
            fields[key].key_finding("type", f"`{key}` needs api-version 0.5.0 or later",
                                    "remove it, or raise the api-version")  # fmt: skip


def _array(element: Cursor, shape: Cursor) -> DataType | None:
    text = element.text("an element-type")
    if text is not None and text not in PRIMITIVES:
        expected = suggest(text, PRIMITIVES, f"use one of {', '.join(PRIMITIVES)}")
        element.error("type", f"{shown(text)} is not an element-type of arrays", expected)
        text = None
    items = shape.items("the numbers of a shape")
    if shape.empty_list:
        shape.error("type", "the shape has no dimensions", "give a list of numbers, with -1 or 0 for any size")
    sizes = [item.integer("a dimension (-1 or 0 means any size)", -1, _MAX_DIMENSION) for item in items]
    if text is None or not sizes or None in sizes:
        return None
    return DataType("array", PRIMITIVES[text], tuple(size or DYNAMIC for size in sizes if size is not None))
