"""Suggests what the author of a definition may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from itertools import islice

MAX_LISTED = 8
"""Names that a message lists; of more it gives the first ones."""
MAX_COMPARED = 200
"""Names that one name is compared with. Comparing is slow, and a hostile file can have thousands."""

_EQUIVALENTS = {
    "args": "import.args", "arguments": "import.args", "cmd": "container.command", "command": "container.command",
    "connection": "connections", "cpu": "requests.cpu", "cpus": "cpu", "depends": "input[].from",
    "depends-on": "input[].from", "dtype": "element-type", "entrypoint": "container.command", "env": "variables",
    "environment": "variables", "format": "element-type", "from": "input[].from", "gpu": "requests.gpu", "gpus": "gpu",
    "http": "connections.http", "image": "container.image", "inputs": "input", "limits": "requests", "mem": "memory",
    "memory": "requests.memory", "model": "models", "needs": "input[].from", "outputs": "output",
    "pipeline": "operators", "port": "connections.http[].port", "resources": "requests",
    "secrets": "pull-secrets", "service": "services",
    "stages": "operators", "steps": "operators", "tag": "container.tag",
    "variables": "`variables` of the operator, next to its `container`", "version": "api-version",
    "volume": "connections.volume", "volumes": "connections.volume",
}  # fmt: skip
"""Keys that other languages have, or that belong elsewhere, and what this language has instead."""

_UNSUPPORTED = {
    "shared-memory": "remove it: shared memory counts as memory, and cannot be requested by itself",
    "metadata": "remove it: metadata is given when a job is created",
    "priority": "remove it: the priority is given when a job is created",
    "timeout": "remove it: it is not documented how a definition sets its time limit",
}
"""Keys that have no equivalent, and what to do with them."""


def suggest(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return a question that names the most similar known name; without one, another text.

    Parameters
    ----------
    name : str
        What was written. Its case does not matter.
    known : Iterable of str
        The names that exist. Only the first `MAX_COMPARED` are compared.
    otherwise : str
        The text to return if no name is similar.
    """
    by_lower: dict[str, str] = {}
    for candidate in islice(known, MAX_COMPARED):
        by_lower.setdefault(candidate.lower(), candidate)
    similar = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"did you mean {by_lower[similar[0]]}?" if similar else otherwise


def suggest_key(key: str, known: Sequence[str]) -> str:
    """Return what to write instead of an unknown key.

    Parameters
    ----------
    key : str
        What was written.
    known : Sequence of str
        The keys that may stand there.
    """
    plain = key.lower().replace("_", "-")
    if plain in _UNSUPPORTED:
        return _UNSUPPORTED[plain]
    equivalent = _EQUIVALENTS.get(plain)
    otherwise = f"did you mean {equivalent}?" if equivalent else f"it may have {', '.join(known)}"
    return suggest(plain, known, otherwise)


def one_of(names: Sequence[str]) -> str:
    """Return a choice among names for a message: ``one of a, b``, or the only one."""
    return names[0] if len(names) == 1 else f"one of {listed(names)}"


def listed(names: Sequence[str]) -> str:
    """Return names for a message, separated by commas; at most `MAX_LISTED`."""
    return ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
