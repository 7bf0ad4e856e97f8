"""What a plan is made of. Paths are texts: a step is written down, hashed and compared."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One operator.

    Attributes
    ----------
    name
        Of the operator.
    upstream
        Operators that must have ended before.
    line
        The command, word by word.
    makes
        Folders that must be there before it starts.
    links
        Links to folders, and where they lead.
    container
        Name of the container that the command runs; '' if it runs none.
    """

    name: str
    upstream: tuple[str, ...]
    line: tuple[str, ...]
    makes: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    container: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """One service: its name and the command that starts it."""

    name: str
    line: tuple[str, ...]
