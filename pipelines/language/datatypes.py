"""Types of what passes between operators: stream, array, string and primitives."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from nuclei_segmentation.pipelines.language.cursor import Cursor, required
from nuclei_segmentation.pipelines.language.findings import shown
from nuclei_segmentation.pipelines.language.model import DYNAMIC, DataType
from nuclei_segmentation.pipelines.language.names import no_text

_SIZES = {"u": ("uint", (8, 16, 32, 64)), "i": ("int", (8, 16, 32, 64)), "f": ("float", (16, 32, 64))}
PRIMITIVES = {
    name: f"{long}{bits}"
    for short, (long, sizes) in _SIZES.items()
    for bits in sizes
    for name in (f"{short}{bits}", f"{long}{bits}")
}
"""Every spelling of a primitive type, and its long one."""
TYPES = ("stream", "array", "string", *PRIMITIVES)
FIELDS = ("type", "element-type", "shape")

_LARGEST = 2**40
_RULES = {
    "stream": (("element-type", "path"), ("shape",), "a stream has files: element-type and path, no shape"),
    "array": (("element-type", "shape"), ("path",), "an array is in shared memory: element-type and shape, no path"),
    "string": ((), ("element-type", "shape", "path"), "a string is in shared memory: no element-type, shape or path"),
}
_PRIMITIVE = (
    (),
    ("element-type", "shape", "path"),
    "a single value is in shared memory: no element-type, shape or path",
)
"""By type: what it must have, what it must not have, why. Source: pages *types*, *input*, *output*."""


def data_type(here: Cursor, fields: Mapping[str, Cursor]) -> DataType | None:
    """Return the type of an input or output of a typed pipeline; None if it has none that can be read.

    Source: page *types*. A string is the same as an array of uint8 with shape [-1], a primitive the same as an array
    of it with shape [1].
    """
    at = required(here, fields, "type", "an input or output of a typed pipeline")
    kind = at.text("a type") if at is not None else None
    if at is None or kind is None:
        return None
    if kind not in TYPES:
        at.error("type", f"{shown(kind)} is no type", _nearest(kind, TYPES))
        return None
    must, must_not, reason = _RULES.get(kind, _PRIMITIVE)
    complete = True
    for name in must:
        found = required(here, fields, name, f"type {kind}")
        complete = complete and found is not None
    for name in must_not:
        if name in fields:
            there = fields[name]
            there.reading.findings.add(there.key_place, "type", f"`{name}` does not belong to type {kind}", reason)
    if not complete:
        return None
    if kind == "stream":
        element = fields["element-type"].text("an element-type", no_text)
        return None if element is None else DataType("stream", element)
    if kind == "array":
        return _array(fields["element-type"], fields["shape"])
    return DataType("array", "uint8", (DYNAMIC,)) if kind == "string" else DataType("array", PRIMITIVES[kind], (1,))


def refuse_types(fields: Mapping[str, Cursor]) -> None:
    """Refuse what only typed pipelines have. Source: pages *input* and *output*."""
    for name in FIELDS:
        if name in fields:
            there = fields[name]
            there.reading.findings.add(
                there.key_place, "type", f"`{name}` before api-version 0.5.0", "remove it, or use 0.5.0 or later"
            )


def _array(element: Cursor, shape: Cursor) -> DataType | None:
    text = element.text("an element-type")
    if text is not None and text not in PRIMITIVES:
        element.error("type", f"{shown(text)} is no type of an array's elements", _nearest(text, tuple(PRIMITIVES)))
        text = None
    items = shape.items("the numbers of a shape")
    if shape.empty_list:
        shape.error("type", "a shape without dimensions", "a list of numbers, -1 or 0 where a dimension is open")
    sizes = [item.whole("a dimension (-1 or 0: open)", -1, _LARGEST) for item in items]
    if text is None or not sizes or None in sizes:
        return None
    return DataType("array", PRIMITIVES[text], tuple(size or DYNAMIC for size in sizes if size is not None))


def _nearest(text: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(text.lower(), known, n=1)
    return f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
