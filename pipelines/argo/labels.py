"""Names as Kubernetes has them: lower case, no underscores, not long, no two the same."""

from __future__ import annotations

import re

LONGEST = 40
"""Argo makes names of pods from them; 63 is where Kubernetes ends."""


class Labels:
    """Gives names.

    Parameters
    ----------
    taken : str
        That nobody may have.
    """

    def __init__(self, *taken: str) -> None:
        self._taken = set(taken)

    def new(self, name: str) -> str:
        """Return a name of its own for what a definition names."""
        wanted = label(name)
        made, number = wanted, 2
        while made in self._taken:
            ending = f"-{number}"
            made, number = wanted[: LONGEST - len(ending)].rstrip("-") + ending, number + 1
        self._taken.add(made)
        return made


def label(name: str) -> str:
    """Return a name in letters that Kubernetes takes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:LONGEST].rstrip("-") or "x"
