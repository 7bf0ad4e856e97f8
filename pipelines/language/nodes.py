"""A YAML document as a tree of nodes that know their places in the file."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from nuclei_segmentation.pipelines.language.findings import Place

ROOT_PATH = "document"
_NULLS = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value, as it was written: ``18.04`` is a text, not a number.

    Attributes
    ----------
    text : str
        The value without quotes and escapes.
    start, end : int
        The first character in the file, and the one after the last.
    plain : bool
        Whether it was written without quotes. Only a plain empty value is null.
    broken : bool
        Whether a finding has been added for it already, so that nothing more needs to be said.
    """

    text: str
    start: int
    end: int
    plain: bool = True
    broken: bool = False

    @property
    def null(self) -> bool:
        """Whether it stands for no value."""
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list.

    Attributes
    ----------
    items : tuple of Node
        Its items.
    start, end : int
        The first character in the file, and the one after the last.
    """

    items: tuple[Node, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys with values.

    Attributes
    ----------
    entries : dict of str to (Scalar, Node)
        The node of the key and that of its value, by the key's text.
    start, end : int
        The first character in the file, and the one after the last.
    """

    entries: dict[str, tuple[Scalar, Node]]
    start: int
    end: int


Node = Scalar | Sequence | Mapping


@dataclass(frozen=True, slots=True)
class Document:
    """A file that was read.

    Attributes
    ----------
    name : str
        The file's name in findings.
    text : str
        The whole text.
    root : Node or None
        None where the file is not valid YAML.
    """

    name: str
    text: str
    root: Node | None = None
    _starts: tuple[int, ...] = field(default=(), repr=False, compare=False)

    @staticmethod
    def of(name: str, text: str) -> Document:
        """Return a document that has no nodes yet.

        Parameters
        ----------
        name : str
            The file's name in findings.
        text : str
            The whole text.
        """
        starts = [0]
        for index, letter in enumerate(text):
            if letter == "\n" or (letter == "\r" and text[index + 1 : index + 2] != "\n"):
                starts.append(index + 1)
        return Document(name, text, None, tuple(starts))

    def with_root(self, root: Node | None) -> Document:
        """Return the document with its nodes."""
        return Document(self.name, self.text, root, self._starts)

    def place(self, index: int, path: str) -> Place:
        """Return the place of a character.

        Parameters
        ----------
        index : int
            The character in the text, from 0.
        path : str
            The path in the document; '' for the root.
        """
        index = max(0, min(index, len(self.text)))
        line = bisect_right(self._starts, index) - 1
        return Place(self.name, line + 1, index - self._starts[line] + 1, path or ROOT_PATH)


def child(path: str, key: str | int) -> str:
    """Return the path of an item or of a key's value.

    Parameters
    ----------
    path : str
        The path of the list or mapping.
    key : str or int
        The key, or the item's number from 0.
    """
    if isinstance(key, int):
        return f"{path}[{key}]"
    name = key if len(key) <= 60 else f"{key[:57]}..."
    name = name if name.isprintable() and name and not set(name) & set(".[]: ;'\"") else f"[{name!r}]"
    return f"{path}.{name}" if path and not name.startswith("[") else f"{path}{name}"
