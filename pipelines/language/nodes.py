"""A YAML document as a tree of nodes that know where they stand."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from nuclei_segmentation.pipelines.language.findings import Place

ROOT_PATH = "document"
_NULLS = ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A single value, as it was written: ``18.04`` is text, and no number yet.

    Attributes
    ----------
    text : str
        Without quotes and escapes.
    start, end : int
        Characters of the file.
    plain : bool
        Without quotes: only then an empty one is null.
    broken : bool
        Already reported; nothing more needs to be said of it.
    """

    text: str
    start: int
    end: int
    plain: bool = True
    broken: bool = False

    @property
    def null(self) -> bool:
        """Whether it says that there is no value."""
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Names with values; each name once."""

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
        As it is shown.
    text : str
        All of it.
    root : Node or None
        None where the file is no YAML at all.
    """

    name: str
    text: str
    root: Node | None = None
    _starts: tuple[int, ...] = field(default=(), repr=False, compare=False)

    @staticmethod
    def of(name: str, text: str) -> Document:
        """Return a document without nodes yet."""
        starts = [0]
        for index, letter in enumerate(text):
            if letter == "\n" or (letter == "\r" and text[index + 1 : index + 2] != "\n"):
                starts.append(index + 1)
        return Document(name, text, None, tuple(starts))

    def with_root(self, root: Node | None) -> Document:
        """Return the document with its nodes."""
        return Document(self.name, self.text, root, self._starts)

    def place(self, index: int, path: str) -> Place:
        """Return the place of a character of the file."""
        index = max(0, min(index, len(self.text)))
        line = bisect_right(self._starts, index) - 1
        return Place(self.name, line + 1, index - self._starts[line] + 1, path or ROOT_PATH)


def child(path: str, key: str | int) -> str:
    """Return the path of a part of what stands at `path`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    name = key if len(key) <= 60 else f"{key[:57]}..."
    name = name if name.isprintable() and name and not set(name) & set(".[]: ;'\"") else f"[{name!r}]"
    return f"{path}.{name}" if path and not name.startswith("[") else f"{path}{name}"
