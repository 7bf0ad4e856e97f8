"""What a plan consists of.

Paths are strings, since a plan is printed, hashed and compared. The hash covers the names of the fields too: a field
that is renamed makes every unfinished run start again.
"""

from __future__ import annotations

from dataclasses import dataclass

PORT = "PORT"
"""Stands in a command for the port of a server on this machine, which is chosen when the server starts."""


@dataclass(frozen=True, slots=True)
class Step:
    """One operator.

    Attributes
    ----------
    name : str
        Name of the operator.
    upstream : tuple of str
        Operators that must have ended before; in a pod, operators that this one waits for by itself.
    line : tuple of str
        The words of the command.
    makes : tuple of str
        Folders that are made before it starts.
    links : tuple of tuple of str
        Links that are made before it starts, each with the folder that it leads to.
    container : str
        Name of the container that the command runs; '' for none.
    owner : tuple of int or None
        User and group that `makes` are given to, if the runner may do so; None for the runner's own.
    volatile : bool
        Whether some of its outputs are in memory, and may be lost before the next run needs them.
    detached : bool
        Whether the command starts a container, prints its id, and ends.
    """

    name: str
    upstream: tuple[str, ...]
    line: tuple[str, ...]
    makes: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    container: str = ""
    owner: tuple[int, int] | None = None
    volatile: bool = False
    detached: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """A server that must answer before some operators start.

    Attributes
    ----------
    name : str
        Name of the service.
    line : tuple of str
        The words of the command, which runs until it is stopped.
    users : tuple of str
        Names of the operators that need it.
    ports : tuple of int
        The ports at which it listens in its container. A process listens at `PORT`.
    container : str
        Name of the container that the command runs; '' for none.
    """

    name: str
    line: tuple[str, ...]
    users: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    container: str = ""
