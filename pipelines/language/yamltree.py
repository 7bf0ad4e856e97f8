"""Reads YAML text into nodes. Nothing is constructed, and what a definition has no use for is refused.

Refused are aliases (whose bombs grow a few bytes to gigabytes), tags (which name types of programs), names that stand
twice, names that are no words, a second document, and nesting deeper than any definition. All but broken syntax
leaves the rest readable, so that its errors are found in the same pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from nuclei_segmentation.pipelines.language.findings import Code, Findings
from nuclei_segmentation.pipelines.language.nodes import Document, Mapping, Node, Scalar, Sequence, child

DEEPEST = 32
"""Levels of nesting; definitions have up to eight."""

_NO_ALIAS = "write the value out: definitions have no aliases"


class _Stop(Exception):
    """The rest of the document cannot be read; that has been noted."""


def parse(document: Document, findings: Findings) -> Document:
    """Return the document with its nodes, as far as it can be read.

    Parameters
    ----------
    document : Document
        With its text.
    findings : Findings
        Takes what is wrong.
    """
    builder = _Builder(document, findings)
    try:
        root = builder.document()
    except _Stop:
        return document
    except yaml.reader.ReaderError as error:
        builder.say(error.position, "", "yaml", "a character that YAML does not allow", "remove it")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        at = builder.index if mark is None else mark.index
        builder.say(at, "", "yaml", f"this is not YAML: {what}", _remedy(document.text, at))
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:
        what = type(error).__name__
        builder.say(builder.index, "", "yaml", f"this is not YAML ({what})", "correct the syntax here or just behind")
    else:
        return document.with_root(root)
    return document


def _remedy(text: str, at: int) -> str:
    if text[at : at + 1] == "\t":
        return "indent with spaces, not tabs"
    if "${{" in text[text.rfind("\n", 0, at) + 1 :].partition("\n")[0]:
        return "inside {...} or [...] a placeholder needs quotes"
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

    def say(self, index: int, path: str, code: Code, message: str, expected: str) -> None:
        """Note an error."""
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
            self.say(self.index, "", "several-documents", "a second document", "a file holds one definition")
        return root

    def _next(self) -> yaml.Event:
        event = next(self._events)
        self.index = _start(event)
        return event

    def _node(self, event: yaml.Event, path: str, depth: int) -> Node:
        start = _start(event)
        if depth > DEEPEST:
            self.say(start, path, "too-deep", f"nested deeper than {DEEPEST} levels", "definitions have up to eight")
            raise _Stop
        if isinstance(event, yaml.AliasEvent):
            self.say(start, path, "alias", "an alias", _NO_ALIAS)
            return Scalar("", start, _end(event), broken=True)
        if getattr(event, "tag", None) is not None:
            self.say(start, path, "tag", "a tag", "write the value without: definitions have no tags")
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
                self.say(key.start, path, "bad-key", "a name that is no word", "a word before the colon")
                self._node(self._next(), path, depth + 1)
                continue
            here = child(path, key.text)
            value = self._node(self._next(), here, depth + 1)
            if key.broken:
                continue
            if key.text == "<<" and key.plain:
                self.say(key.start, here, "merge-key", "a merge key", _NO_ALIAS)
            elif key.text in entries:
                first = self._document.place(entries[key.text][0].start, here)
                self.say(
                    key.start, here, "duplicate-key", "this name stands twice", f"line {first.line} has it already"
                )
            else:
                entries[key.text] = (key, value)
        return Mapping(entries, start, self.index)
