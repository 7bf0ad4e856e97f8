"""Walks a document: takes values out as what they should be, and notes where they are something else."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from nuclei_segmentation.pipelines.language import templates
from nuclei_segmentation.pipelines.language.findings import Code, Findings, Place, Severity, shown
from nuclei_segmentation.pipelines.language.nodes import Document, Node, Scalar, Sequence, child
from nuclei_segmentation.pipelines.language.nodes import Mapping as MappingNode
from nuclei_segmentation.pipelines.language.templates import Scope

_WHOLE = re.compile(r"-?(?:0|[1-9][0-9]{0,14})")

KINDS = {Scalar: "a single value", Sequence: "a list", MappingNode: "names with values"}

_MEANT = {
    "args": "import.args", "arguments": "import.args", "cmd": "container.command", "command": "container.command",
    "connection": "connections", "cpu": "requests.cpu", "cpus": "cpu", "depends": "input[].from",
    "depends-on": "input[].from", "dtype": "element-type", "entrypoint": "container.command", "env": "variables",
    "environment": "variables", "format": "element-type", "from": "input[].from", "gpu": "requests.gpu", "gpus": "gpu",
    "http": "connections.http", "image": "container.image", "inputs": "input", "limits": "requests", "mem": "memory",
    "memory": "requests.memory", "model": "models", "needs": "input[].from", "outputs": "output",
    "pipeline": "operators", "port": "connections.http[].port", "resources": "requests",
    "secrets": "pull-secrets", "service": "services",
    "stages": "operators", "steps": "operators", "tag": "container.tag",
    "variables": "variables of the operator, beside its container", "version": "api-version",
    "volume": "connections.volume", "volumes": "connections.volume",
}  # fmt: skip
"""What people write, and what the language has for it."""


_NOT_THERE = {
    "shared-memory": "shared memory cannot be requested; it counts as memory",
    "metadata": "remove it: metadata are given when a job is created",
    "priority": "remove it: priority is given when a job is created",
    "timeout": "remove it: under which name a definition has its time limit is not documented",
}
"""What the language has no name for, and what to do."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What all cursors of one check share.

    Attributes
    ----------
    findings : Findings
        Takes what is wrong.
    lenient : bool
        Unknown names are warnings.
    complete : bool
        Every parameter must have a value.
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
        What stands here.
    document : Document
        The file.
    path : str
        In the document.
    scope : Scope
        The parameters that placeholders here may name.
    reading : Reading
        Shared by all.
    key : int or None
        Where the name of this value stands, if it has one.
    """

    node: Node
    document: Document
    path: str
    scope: Scope
    reading: Reading
    key: int | None = None

    @property
    def place(self) -> Place:
        """Where the value stands; of an empty one, where its name stands."""
        empty = isinstance(self.node, Scalar) and not self.node.text and self.node.plain
        index = self.key if empty and self.key is not None else self.node.start
        return self.document.place(index, self.path)

    @property
    def key_place(self) -> Place:
        """Where the value's name stands."""
        return self.document.place(self.node.start if self.key is None else self.key, self.path)

    @property
    def null(self) -> bool:
        """Whether there is no value, or one that has been reported already."""
        return isinstance(self.node, Scalar) and (self.node.null or self.node.broken)

    @property
    def empty_list(self) -> bool:
        """Whether this is a list without items."""
        return isinstance(self.node, Sequence) and not self.node.items

    @property
    def pending(self) -> bool:
        """Whether this is a text that wants the value of a parameter which has none yet."""
        if not isinstance(self.node, Scalar) or not templates.has_placeholder(self.node.text):
            return False
        result = templates.expand(self.node.text, self.scope, complete=False)
        return result.text is None and not result.problems

    @property
    def broken(self) -> bool:
        """Whether what stands here has been reported already."""
        return isinstance(self.node, Scalar) and self.node.broken

    def within(self, scope: Scope) -> Cursor:
        """Return the same place, seen with other parameters."""
        return replace(self, scope=scope)

    def error(self, code: Code, message: str, expected: str) -> None:
        """Note an error here."""
        self.reading.findings.add(self.place, code, message, expected)

    def warn(self, code: Code, message: str, expected: str) -> None:
        """Note a warning here."""
        self.reading.findings.add(self.place, code, message, expected, "warning")

    def fields(self, what: str, known: tuple[str, ...]) -> dict[str, Cursor] | None:
        """Return the values under their names; those that are null are left out.

        Unknown names are errors, or warnings when reading leniently. None if this is no mapping.

        Parameters
        ----------
        what : str
            This is, for messages: ``an operator``.
        known : tuple of str
            Names that it may have.
        """
        if not isinstance(self.node, MappingNode):
            self._kind(f"{what} is written as names with values")
            return None
        found: dict[str, Cursor] = {}
        for name, value in self._entries():
            if name in known:
                if not value.null or value.broken:
                    found[name] = value
            elif not self.reading.findings.full:
                severity: Severity = "warning" if self.reading.lenient else "error"
                message = f"{what} has no {shown(name)}"
                self.reading.findings.add(value.key_place, "unknown-key", message, _instead(name, known), severity)
        return found

    def pairs(self, what: str) -> list[tuple[str, Cursor]]:
        """Return free names with their values, nulls too.

        Parameters
        ----------
        what : str
            This is, for messages: ``variables``.
        """
        if not isinstance(self.node, MappingNode):
            self._kind(f"{what} are written as names with values")
            return []
        return self._entries()

    def under(self, name: str) -> Cursor | None:
        """Return what stands under a name, if anything does; nobody complains."""
        return dict(self._entries()).get(name) if isinstance(self.node, MappingNode) else None

    def items(self, what: str) -> list[Cursor]:
        """Return the items of a list.

        Parameters
        ----------
        what : str
            They are, for messages: ``operators``.
        """
        if not isinstance(self.node, Sequence):
            self._kind(f"{what} are a list: '- ' before each, or [a, b]")
        return self.parts()

    def parts(self) -> list[Cursor]:
        """Return the items of a list; none if this is something else, which nobody complains of."""
        if not isinstance(self.node, Sequence):
            return []
        return [
            Cursor(item, self.document, child(self.path, number), self.scope, self.reading)
            for number, item in enumerate(self.node.items)
        ]

    def text(self, what: str, bad: Callable[[str], str] | None = None) -> str | None:
        """Return the text, with values in place of its placeholders.

        Parameters
        ----------
        what : str
            It is, for messages: ``a name``.
        bad : callable or None, optional
            Returns what is wrong with a text, or ''.

        Returns
        -------
        str or None
            None if there is none, or not yet, or a wrong one.
        """
        if not isinstance(self.node, Scalar):
            self._kind(f"{what} is a single value")
            return None
        if self.node.broken:
            return None
        if self.node.null:
            self.error("missing", f"{what} is empty", "give a value, or leave it out where it is optional")
            return None
        text: str | None = self.node.text
        if templates.has_placeholder(self.node.text):
            text = self._expanded(self.node)
        if text is not None and bad is not None and (wrong := bad(text)):
            self.error("bad-value", f"{shown(text)} is not {what}", wrong)
            return None
        return text

    def whole(self, what: str, low: int, high: int) -> int | None:
        """Return a whole number; None if there is none, or a wrong one.

        Parameters
        ----------
        what : str
            It is, for messages: ``a port``.
        low, high : int
            The smallest and the largest that will do.
        """
        text = self.text(what)
        if text is None:
            return None
        assert isinstance(self.node, Scalar)
        right = f"a whole number from {low} to {high}"
        if not self.node.plain and not templates.has_placeholder(self.node.text):
            self.error("bad-value", f"{shown(text)} is text, {what} is a number", f"{right}, without quotes")
            return None
        if not _WHOLE.fullmatch(text) or not low <= int(text) <= high:
            self.error("bad-value", f"{shown(text)} is not {what}", right)
            return None
        return int(text)

    def _entries(self) -> list[tuple[str, Cursor]]:
        assert isinstance(self.node, MappingNode)
        return [
            (name, Cursor(value, self.document, child(self.path, name), self.scope, self.reading, key.start))
            for name, (key, value) in self.node.entries.items()
        ]

    def _kind(self, expected: str) -> None:
        if self.broken:
            return
        if self.null:
            self.error("missing", "nothing stands here", expected)
        else:
            found = shown(self.node.text) if isinstance(self.node, Scalar) else KINDS[type(self.node)]
            self.error("wrong-kind", f"this is {found}", expected)

    def _expanded(self, node: Scalar) -> str | None:
        result = templates.expand(node.text, self.scope, complete=self.reading.complete)
        at, passed = node.start - 1, 0
        for problem in result.problems:
            while at >= 0 and passed <= problem.number:  # on to the placeholder of that number
                at = self.document.text.find(templates.OPEN, at + 1, node.end)
                passed += 1
            place = self.document.place(at if at >= 0 else node.start, self.path)
            self.reading.findings.add(place, problem.code, problem.message, problem.expected)
        return result.text


def required(here: Cursor, fields: Mapping[str, Cursor], name: str, what: str) -> Cursor | None:
    """Return a value that must be there; note its absence.

    Parameters
    ----------
    here : Cursor
        What must have it.
    fields : Mapping of str to Cursor
        What it has.
    name : str
        Of the value.
    what : str
        What must have it, for messages: ``an operator``.
    """
    if name not in fields:
        here.error("missing", f"{what} must have `{name}`", f"add `{name}: ...` here")
    return fields.get(name)


def once(taken: dict[str, Place], key: str, here: Cursor, what: str) -> None:
    """Note what stands twice.

    Parameters
    ----------
    taken : dict of str to Place
        What there is already, and where; added to.
    key : str
        By which things are the same.
    here : Cursor
        Where another one stands.
    what : str
        It is, for messages: ``output 'x'``.
    """
    if key in taken:
        here.error("duplicate", f"{what} stands twice here", f"another than that of line {taken[key].line}")
    else:
        taken[key] = here.place


def _instead(name: str, known: tuple[str, ...]) -> str:
    plain = name.lower().replace("_", "-")
    if plain in _NOT_THERE:
        return _NOT_THERE[plain]
    near = [plain] if plain in known else difflib.get_close_matches(plain, known, n=1)
    if near:
        return f"did you mean {near[0]}?"
    if meant := _MEANT.get(plain):
        return f"did you mean {meant}?"
    return f"it may have {', '.join(known)}"
