"""Walks a document: takes values out in the form that they must have, and adds a finding where they have another."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nuclei_segmentation.pipelines.language import templates
from nuclei_segmentation.pipelines.language.findings import Code, Findings, Place, Severity, shown
from nuclei_segmentation.pipelines.language.nodes import Document, Node, Scalar, Sequence, child
from nuclei_segmentation.pipelines.language.nodes import Mapping as MappingNode
from nuclei_segmentation.pipelines.language.suggestions import suggest_key
from nuclei_segmentation.pipelines.language.templates import Scope

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What all cursors of one check share.

    Attributes
    ----------
    findings : Findings
        Collects what is wrong.
    lenient : bool
        Whether unknown keys are warnings.
    complete : bool
        Whether every parameter must have a value.
    """

    findings: Findings
    lenient: bool
    complete: bool


@dataclass(frozen=True, slots=True)
class Cursor:
    """A node of a document, with what is needed to make sense of it.

    Attributes
    ----------
    node : Node
        The node.
    document : Document
        The file that it is in.
    path : str
        Its path in the document.
    scope : Scope
        The parameters that placeholders may name here.
    context : CheckContext
        What all cursors share.
    key_index : int or None
        Where its key starts in the text, if the node is the value of a key.
    """

    node: Node
    document: Document
    path: str
    scope: Scope
    context: CheckContext
    key_index: int | None = None

    @property
    def place(self) -> Place:
        """The place of the value; for an empty value, that of its key."""
        empty = isinstance(self.node, Scalar) and not self.node.text and self.node.plain
        index = self.key_index if empty and self.key_index is not None else self.node.start
        return self.document.place(index, self.path)

    @property
    def key_place(self) -> Place:
        """The place of the value's key."""
        return self.document.place(self.node.start if self.key_index is None else self.key_index, self.path)

    @property
    def null(self) -> bool:
        """Whether there is no value, or one for which a finding has been added already."""
        return isinstance(self.node, Scalar) and (self.node.null or self.node.broken)

    @property
    def broken(self) -> bool:
        """Whether a finding has been added for the value already."""
        return isinstance(self.node, Scalar) and self.node.broken

    @property
    def empty_list(self) -> bool:
        """Whether this is a list without items."""
        return isinstance(self.node, Sequence) and not self.node.items

    @property
    def has_placeholder(self) -> bool:
        """Whether this is a text with a placeholder."""
        return isinstance(self.node, Scalar) and templates.has_placeholder(self.node.text)

    @property
    def pending(self) -> bool:
        """Whether this is a text that needs the value of a parameter, which has none yet."""
        if not isinstance(self.node, Scalar) or not self.has_placeholder:
            return False
        result = templates.expand(self.node.text, self.scope, complete=False)
        return result.text is None and not result.problems

    def with_scope(self, scope: Scope) -> Cursor:
        """Return the same node with other parameters."""
        return replace(self, scope=scope)

    def error(self, code: Code, message: str, expected: str) -> None:
        """Add an error at the value.

        Parameters
        ----------
        code : str
            The kind of finding, a `Code`.
        message : str
            What is wrong.
        expected : str
            What would be right, or what to do.
        """
        self.context.findings.add(self.place, code, message, expected)

    def warn(self, code: Code, message: str, expected: str) -> None:
        """Add a warning at the value.

        Parameters
        ----------
        code : str
            The kind of finding, a `Code`.
        message : str
            What is wrong.
        expected : str
            What would be right, or what to do.
        """
        self.context.findings.add(self.place, code, message, expected, "warning")

    def key_finding(self, code: Code, message: str, expected: str, severity: Severity = "error") -> None:
        """Add a finding at the value's key.

        Parameters
        ----------
        code : str
            The kind of finding, a `Code`.
        message : str
            What is wrong.
        expected : str
            What would be right, or what to do.
        severity : {"error", "warning"}, optional
            A warning leaves the definition usable.
        """
        self.context.findings.add(self.key_place, code, message, expected, severity)

    def fields(self, what: str, known: tuple[str, ...]) -> dict[str, Cursor] | None:
        """Return the values of a mapping by their keys, without null values.

        Unknown keys are errors, or warnings if the check is lenient.

        Parameters
        ----------
        what : str
            The mapping's name for messages: ``an operator``.
        known : tuple of str
            Keys that it may have.

        Returns
        -------
        dict of str to Cursor, or None
            None if this is not a mapping.
        """
        if not isinstance(self.node, MappingNode):
            self._wrong_kind(f"write {what} as `key: value` pairs")
            return None
        found: dict[str, Cursor] = {}
        for key, value in self._entries():
            if key in known:
                if not value.null or value.broken:
                    found[key] = value
            elif not self.context.findings.full:
                severity: Severity = "warning" if self.context.lenient else "error"
                value.key_finding("unknown-key", f"{what} has no {shown(key)}", suggest_key(key, known), severity)
        return found

    def pairs(self, what: str) -> list[tuple[str, Cursor]]:
        """Return the keys and values of a mapping with free keys, null values included.

        Parameters
        ----------
        what : str
            The mapping's name for messages: ``variables``.
        """
        if not isinstance(self.node, MappingNode):
            self._wrong_kind(f"write {what} as `key: value` pairs")
            return []
        return self._entries()

    def peek(self, key: str) -> Cursor | None:
        """Return the value of a key if there is one, and add no finding if there is none."""
        return dict(self._entries()).get(key) if isinstance(self.node, MappingNode) else None

    def items(self, what: str) -> list[Cursor]:
        """Return the items of a list.

        Parameters
        ----------
        what : str
            The items' name for messages: ``operators``.
        """
        if not isinstance(self.node, Sequence):
            self._wrong_kind(f"write {what} as a list: '- ' before each item, or [a, b]")
        return self.peek_items()

    def peek_items(self) -> list[Cursor]:
        """Return the items of a list; none, and no finding, if this is something else."""
        if not isinstance(self.node, Sequence):
            return []
        return [
            Cursor(item, self.document, child(self.path, number), self.scope, self.context)
            for number, item in enumerate(self.node.items)
        ]

    def text(self, what: str, check: Callable[[str], str] | None = None) -> str | None:
        """Return the text, with values in place of its placeholders.

        Parameters
        ----------
        what : str
            The text's name for messages: ``a name``.
        check : callable or None, optional
            Takes the text and returns what would be right, or '' if the text is right.

        Returns
        -------
        str or None
            None if there is no text, if a parameter in it has no value yet, or if it is wrong.
        """
        if not isinstance(self.node, Scalar):
            self._wrong_kind(f"write {what} as a single value")
            return None
        if self.node.broken:
            return None
        if self.node.null:
            self.error("missing", f"{what} is empty", "give a value, or remove this if it is optional")
            return None
        text: str | None = self.node.text
        if templates.has_placeholder(self.node.text):
            text = self._expanded(self.node)
        if text is not None and check is not None and (expected := check(text)):
            self.error("bad-value", f"{shown(text)} is not valid as {what}", expected)
            return None
        return text

    def integer(self, what: str, low: int, high: int) -> int | None:
        """Return a whole number; None if there is none, or a wrong one.

        Parameters
        ----------
        what : str
            The number's name for messages: ``a port``.
        low, high : int
            The smallest and the largest number allowed.
        """
        text = self.text(what)
        if text is None:
            return None
        assert isinstance(self.node, Scalar)
        expected = f"use a whole number from {low} to {high}"
        if not self.node.plain and not templates.has_placeholder(self.node.text):
            self.error("bad-value", f"{shown(text)} is text, not {what}", f"{expected}, without quotes")
            return None
        if not _INTEGER.fullmatch(text) or not low <= int(text) <= high:
            self.error("bad-value", f"{shown(text)} is not valid as {what}", expected)
            return None
        return int(text)

    def _entries(self) -> list[tuple[str, Cursor]]:
        assert isinstance(self.node, MappingNode)
        return [
            (key, Cursor(value, self.document, child(self.path, key), self.scope, self.context, key_node.start))
            for key, (key_node, value) in self.node.entries.items()
        ]

    def _wrong_kind(self, expected: str) -> None:
        if self.broken:
            return
        if self.null:
            self.error("missing", "the value is missing", expected)
        elif isinstance(self.node, Scalar):
            self.error("wrong-kind", f"found the single value {shown(self.node.text)}", expected)
        else:
            found = "a list" if isinstance(self.node, Sequence) else "`key: value` pairs"
            self.error("wrong-kind", f"found {found}", expected)

    def _expanded(self, node: Scalar) -> str | None:
        result = templates.expand(node.text, self.scope, complete=self.context.complete)
        index, passed = node.start - 1, 0
        for problem in result.problems:
            while index >= 0 and passed <= problem.number:  # on to the placeholder of that number
                index = self.document.text.find(templates.OPEN, index + 1, node.end)
                passed += 1
            place = self.document.place(index if index >= 0 else node.start, self.path)
            self.context.findings.add(place, problem.code, problem.message, problem.expected)
        return result.text


def required(parent: Cursor, fields: Mapping[str, Cursor], key: str, what: str) -> Cursor | None:
    """Return a value that must be there; add an error if it is missing.

    Parameters
    ----------
    parent : Cursor
        The mapping that must have it.
    fields : Mapping of str to Cursor
        The values of the mapping.
    key : str
        The key of the value.
    what : str
        The mapping's name for messages: ``an operator``.
    """
    if key not in fields:
        parent.error("missing", f"{what} must have `{key}`", f"add `{key}: ...` here")
    return fields.get(key)


def refuse_duplicate(seen: dict[str, Place], identity: str, cursor: Cursor, what: str) -> None:
    """Add an error if a thing was seen before; remember it if not.

    Parameters
    ----------
    seen : dict of str to Place
        The places of things by their identity. A new one is added.
    identity : str
        Things with the same identity are the same.
    cursor : Cursor
        Where the thing is.
    what : str
        The thing's name for messages: ``output 'x'``.
    """
    if identity in seen:
        first = seen[identity].line_for(cursor.document.name)
        cursor.error("duplicate", f"{what} appears twice", f"change or remove it: {first} has it already")
    else:
        seen[identity] = cursor.place
