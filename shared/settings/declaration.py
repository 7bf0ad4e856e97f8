"""What a setting accepts, and how a field of a dataclass declares it.

A setting is declared once, as a field in `shared.settings.values`: its name is the key's name, its default the key's
default, and `setting` adds what is accepted and what it means. Reading ``config.yaml``, the printed reference and the
checks of values that come from Python are all derived from that declaration.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from nuclei_segmentation.shared.settings.shard import EXPECTS, Shard

T = TypeVar("T")


class Accepts(NamedTuple):
    """A kind of value.

    Attributes
    ----------
    words : str
        What is accepted, for people: "a number from 0 to 1".
    take : callable
        Returns the value to use, or None where the given one will not do. It takes what YAML can hold, and the value
        itself.
    """

    words: str
    take: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """One key of ``config.yaml``.

    Attributes
    ----------
    path : str
        Section and name, ``overlay.color``; without a dot at top level.
    accepts : Accepts
        What it accepts.
    default : object
        Its default, as a value of the settings.
    meaning : str
        One sentence.
    """

    path: str
    accepts: Accepts
    default: Any
    meaning: str


def setting(default: T, accepts: Accepts, meaning: str) -> T:
    """Declare a key of ``config.yaml`` as a dataclass field.

    Parameters
    ----------
    default : T
        The field's default.
    accepts : Accepts
        What the key accepts.
    meaning : str
        One sentence for the printed reference.

    Returns
    -------
    T
        For type checkers the default; in truth a `dataclasses.Field`.
    """
    field: T = dataclasses.field(default=default, metadata={"accepts": accepts, "meaning": meaning})
    return field


def keys_of(kind: type, section: str = "") -> Iterator[Key]:
    """Yield the keys that a dataclass of settings declares, those of its sections included.

    Parameters
    ----------
    kind : type
        The dataclass. A field whose default is made by a dataclass is a section.
    section : str
        The name of the section that `kind` describes; empty at top level.

    Yields
    ------
    Key
        In the order of declaration.
    """
    for field in dataclasses.fields(kind):
        path = f"{section}.{field.name}" if section else field.name
        if "accepts" in field.metadata:
            yield Key(path, field.metadata["accepts"], field.default, field.metadata["meaning"])
        elif dataclasses.is_dataclass(field.default_factory):
            yield from keys_of(field.default_factory, path)


def number(low: float, high: float) -> Accepts:
    """Accept a finite number.

    Parameters
    ----------
    low, high : float
        The smallest and the largest.

    Returns
    -------
    Accepts
        It takes a float.
    """

    def take(value: Any) -> float | None:  # noqa: ANN401 - YAML gives anything
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        return float(value) if low <= value <= high else None

    return Accepts(f"a number from {low:g} to {high:g}", take)


def whole_number(low: int, high: int) -> Accepts:
    """Accept a whole number.

    Parameters
    ----------
    low, high : int
        The smallest and the largest.

    Returns
    -------
    Accepts
        It takes an int.
    """

    def take(value: Any) -> int | None:  # noqa: ANN401 - YAML gives anything
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        return value if low <= value <= high else None

    return Accepts(f"a whole number from {low} to {high}", take)


def choice(*words: str) -> Accepts:
    """Accept one of some words; YAML reads those of digits as numbers."""

    def take(value: Any) -> str | None:  # noqa: ANN401 - YAML gives anything
        word = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
        return word if isinstance(word, str) and word in words else None

    return Accepts(f"one of {', '.join(words)}", take)


def color() -> Accepts:
    """Accept three levels from 0 to 255."""
    level = whole_number(0, 255).take

    def take(value: Any) -> tuple[int, int, int] | None:  # noqa: ANN401 - YAML gives anything
        if not isinstance(value, list | tuple) or len(value) != 3 or any(level(part) is None for part in value):
            return None
        return (value[0], value[1], value[2])

    return Accepts("red, green and blue as [0-255, 0-255, 0-255]", take)


def words_of(*words: str) -> Accepts:
    """Accept some of some words, as a list, or as one text with commas or spaces between them; "none" is none."""

    def take(value: Any) -> tuple[str, ...] | None:  # noqa: ANN401 - YAML gives anything
        given = value.replace(",", " ").split() if isinstance(value, str) else value
        if given == ["none"]:
            return ()
        if not isinstance(given, list | tuple) or not all(word in words for word in given):
            return None
        return tuple(word for word in words if word in given)

    return Accepts(f"some of {', '.join(words)}", take)


def stain() -> Accepts:
    """Accept the optical densities of a stain in red, green and blue."""
    density = number(0, 10).take

    def take(value: Any) -> tuple[float, float, float] | None:  # noqa: ANN401 - YAML gives anything
        if not isinstance(value, list | tuple) or len(value) != 3 or any(density(part) is None for part in value):
            return None
        return (float(value[0]), float(value[1]), float(value[2])) if any(value) else None

    return Accepts("optical densities of red, green and blue as [0-10, 0-10, 0-10]", take)


def switch() -> Accepts:
    """Accept true or false."""
    return Accepts("true or false", lambda value: value if isinstance(value, bool) else None)


def folder() -> Accepts:
    """Accept the path of a folder, which need not exist yet."""
    return Accepts(
        "the path of a folder",
        lambda value: Path(value) if isinstance(value, str | Path) and str(value) else None,
    )


def name_or_number() -> Accepts:
    """Accept a name, or a whole number from 1."""

    def take(value: Any) -> str | int | None:  # noqa: ANN401 - YAML gives anything
        if isinstance(value, str):
            return value if 0 < len(value.strip()) <= 200 and value.isprintable() else None
        return whole_number(1, 10**9).take(value)  # type: ignore[no-any-return]  # it takes an int

    return Accepts("a name, or a number from 1", take)


def pixel_size(low: float, high: float) -> Accepts:
    """Accept micrometres per pixel: one number, or one for x and one for y.

    Parameters
    ----------
    low, high : float
        The smallest and the largest.

    Returns
    -------
    Accepts
        It takes a tuple of two floats.
    """
    side = number(low, high).take

    def take(value: Any) -> tuple[float, float] | None:  # noqa: ANN401 - YAML gives anything
        sides = list(value) if isinstance(value, list | tuple) else [value, value]
        if len(sides) != 2 or any(side(part) is None for part in sides):
            return None
        return float(sides[0]), float(sides[1])

    return Accepts(f"a number from {low:g} to {high:g}, or [x, y]", take)


def map_names() -> Accepts:
    """Accept the names of a model's maps."""

    def take(value: Any) -> tuple[str, ...] | None:  # noqa: ANN401 - YAML gives anything
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            return None
        plain = all(re.fullmatch(r"[\w-][\w -]{0,63}", name) for name in value)
        return tuple(value) if plain and len(set(value)) == len(value) and "nucleus" in value else None

    return Accepts("a list of different names, one of them nucleus", take)


def shard() -> Accepts:
    """Accept a shard as ``I/N``."""

    def take(value: Any) -> Shard | None:  # noqa: ANN401 - YAML gives anything
        if isinstance(value, Shard):
            return value
        return Shard.parse(value) if isinstance(value, str) else None

    return Accepts(EXPECTS, take)
