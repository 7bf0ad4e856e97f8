"""Reads YAML text into nodes. Nothing is constructed, and what no definition needs is refused.

Refused are aliases (a few bytes of them can expand to gigabytes), tags (they name types of programs), duplicate keys,
keys that are lists or mappings, a second document, and nesting deeper than in any definition. Only broken syntax and
deep nesting end the reading; after anything else the rest is read too, so that its errors are found in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from nuclei_segmentation.pipelines.language.findings import Code, Findings
from nuclei_segmentation.pipelines.language.nodes import Document, Mapping, Node, Scalar, Sequence, child

MAX_DEPTH = 32
"""Levels of nesting; definitions have up to eight."""


class _Stop(Exception):
    """The rest of the document cannot be read. A finding says why."""


def parse(document: Document, findings: Findings) -> Document:
    """Return the document with its nodes; without, if it cannot be read.

    Parameters
    ----------
    document : Document
        The document with its text.
    findings : Findings
        Collects what is wrong.
    """
    builder = _Builder(document, findings)
    try:
        root = builder.document()
    except _Stop:
        return document
    except yaml.reader.ReaderError as error:
        builder.error(error.position, "", "yaml", "YAML does not allow this character", "remove it")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        index = builder.index if mark is None else mark.index
        builder.error(index, "", "yaml", f"this is not valid YAML: {problem}", _remedy(document.text, index))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        problem = f"this is not valid YAML ({type(error).__name__})"
        builder.error(builder.index, "", "yaml", problem, "correct the syntax here or just after")
    else:
        return document.with_root(root)
    return document


def _remedy(text: str, index: int) -> str:
    if text[index : index + 1] == "\t":
        return "indent with spaces, not tabs"
    if "${{" in text[text.rfind("\n", 0, index) + 1 :].partition("\n")[0]:
        return "put the placeholder in quotes: inside {...} or [...] it needs them"
    return "correct the syntax here or just before"


def _start(event: yaml.Event) -> int:
    return event.start_mark.index if event.start_mark is not None else 0


def _end(event: yaml.Event) -> int:
    return event.end_mark.index if event.end_mark is not None else 0


class _Builder:
    """Builds nodes from the parser's events."""

    def __init__(self, document: Document, findings: Findings) -> None:
        self._document = document
        self._findings = findings
        self._events: Iterator[yaml.Event] = iter(())
        self.index = 0

    def error(self, index: int, path: str, code: Code, message: str, expected: str) -> None:
        """Add an error at a character of the text."""
        self._findings.add(self._document.place(index, path), code, message, expected)

    def document(self) -> Node:
        """Return the root of the only document."""
        self._events = yaml.parse(self._document.text, Loader=yaml.SafeLoader)
        self._next()
        if isinstance(self._next(), yaml.StreamEndEvent):
            return Scalar("", 0, 0)
        root = self._node(self._next(), "", 0)
        self._next()
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            self.error(self.index, "", "several-documents", "a second document starts here",
                       "keep each definition in a file of its own")  # fmt: skip
        return root

    def _next(self) -> yaml.Event:
        event = next(self._events)
        self.index = _start(event)
        return event

    def _node(self, event: yaml.Event, path: str, depth: int) -> Node:
        start = _start(event)
        if depth > MAX_DEPTH:
            self.error(start, path, "too-deep", f"nested deeper than {MAX_DEPTH} levels",
                       "a definition needs up to eight")  # fmt: skip
            raise _Stop
        if isinstance(event, yaml.AliasEvent):
            self.error(start, path, "alias", "aliases are not supported", "write the value out")
            return Scalar("", start, _end(event), broken=True)
        if getattr(event, "tag", None) is not None:
            self.error(start, path, "tag", "tags are not supported", "write the value without its tag")
        if isinstance(event, yaml.ScalarEvent):
            plain = event.style is None and event.tag is None
            return Scalar(event.value, start, _end(event), plain)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(start, path, depth)
        return self._mapping(start, path, depth)

    def _sequence(self, start: int, path: str, depth: int) -> Sequence:
        items: list[Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, child(path, len(items)), depth + 1))
        return Sequence(tuple(items), start, self.index)

    def _mapping(self, start: int, path: str, depth: int) -> Mapping:
        entries: dict[str, tuple[Scalar, Node]] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, path, depth + 1)
            if not isinstance(key, Scalar):
                self.error(key.start, path, "bad-key", "a key cannot be a list or a mapping",
                           "write a word before the colon")  # fmt: skip
                self._node(self._next(), path, depth + 1)
                continue
            key_path = child(path, key.text)
            value = self._node(self._next(), key_path, depth + 1)
            if key.broken:
                continue
            if key.text == "<<" and key.plain:
                self.error(key.start, key_path, "merge-key", "merge keys are not supported", "write the values out")
            elif key.text in entries:
                first = self._document.place(entries[key.text][0].start, key_path)
                self.error(key.start, key_path, "duplicate-key", "duplicate key",
                           f"remove one of the two: line {first.line} has the same key")  # fmt: skip
            else:
                entries[key.text] = (key, value)
        return Mapping(entries, start, self.index)
