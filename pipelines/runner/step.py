"""What a plan is made of. Paths are texts: a step is written down, hashed and compared."""

from __future__ import annotations

from dataclasses import dataclass

PORT = "PORT"
"""In the words of a command: the port of a server on this machine, which is chosen when it is started."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operator.

    Attributes
    ----------
    name : str
        Of the operator.
    upstream : tuple of str
        Operators that must have ended before; in a pod, operators that it waits for by itself.
    line : tuple of str
        The command, word by word.
    makes : tuple of str
        Folders that must be there before it starts.
    links : tuple of tuple of str
        Links to folders, and where they lead.
    container : str
        Name of the container that the command runs; '' if it runs none.
    volatile : bool
        Some of what it makes lies in memory, and may be gone when it is needed again.
    detached : bool
        The command starts a container, prints what it is called, and ends.
    """

    name: str
    upstream: tuple[str, ...]
    line: tuple[str, ...]
    makes: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    container: str = ""
    volatile: bool = False
    detached: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """What must answer before some operators start.

    Attributes
    ----------
    name : str
        Of the service.
    line : tuple of str
        The command that runs it until it is ended.
    users : tuple of str
        Names of the operators that need it.
    ports : tuple of int
        Where it listens in its container. A process listens at `PORT`.
    container : str
        Name of the container that the command runs; '' if it runs none.
    """

    name: str
    line: tuple[str, ...]
    users: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    container: str = ""
