"""A shard: one of several equal shares of a slide's tiles, which one process of filter infers apart from the others.

Shards are counted from 0, as Kubernetes counts the completions of a job. Each is a range of tiles in load's order, so
that it reads one piece of load's array. Their sizes differ by one tile at most; where there are more shards than tiles,
some are empty.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

EXPECTS = "I/N, shard I of N counted from 0: 0/3, 1/3 and 2/3 for three"
MOST = 9999
"""Most shards of a slide; the largest slides have some hundred thousand tiles."""

_TEXT = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")
_FOLDER = re.compile(r"shard-([0-9]{1,4})-of-([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard `number` of `count`; `number` is from 0 to `count` - 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Return the shard that ``I/N`` names; None where it names none."""
        return cls._of(_TEXT.fullmatch(text.strip()))

    @classmethod
    def named(cls, folder: str) -> Self | None:
        """Return the shard whose store a folder of this name holds; None if it is no such name."""
        shard = cls._of(_FOLDER.fullmatch(folder))
        return shard if shard is not None and shard.folder == folder else None

    @property
    def folder(self) -> str:
        """The name of the folder that its store has in filter's output folder."""
        return f"shard-{self.number}-of-{self.count}"

    def range(self, n: int) -> tuple[int, int]:
        """Return (start, stop), its range of `n` tiles."""
        return self.number * n // self.count, (self.number + 1) * n // self.count

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @classmethod
    def _of(cls, match: re.Match[str] | None) -> Self | None:
        if match is None:
            return None
        number, count = int(match[1]), int(match[2])
        return cls(number, count) if number < count <= MOST else None
