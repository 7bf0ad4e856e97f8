"""Names that Kubernetes accepts: lower case, no underscores, short, and each only once."""

from __future__ import annotations

import re

LONGEST = 40
"""Characters. Argo makes the names of pods from them, and Kubernetes allows 63."""


class Labels:
    """Makes names that differ from one another.

    Parameters
    ----------
    *taken : str
        Names that are in use already.
    """

    def __init__(self, *taken: str) -> None:
        self._taken = set(taken)

    def new(self, name: str) -> str:
        """Return a name that is not in use yet, made from one of the definition."""
        wanted = label(name)
        result, number = wanted, 2
        while result in self._taken:
            ending = f"-{number}"
            result, number = wanted[: LONGEST - len(ending)].rstrip("-") + ending, number + 1
        self._taken.add(result)
        return result


def label(name: str) -> str:
    """Return a name of the definition in the characters that Kubernetes accepts."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST].rstrip("-") or "x"
