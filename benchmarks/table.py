"""The table: one row per promise, each a ratio of two measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One promise and how it fared.

    Attributes
    ----------
    name : str
        What was measured.
    ours, reference : str
        The two measurements, with their units.
    ratio : float or None
        Of the two, as the target wants it; None where a figure is only reported.
    target : float or None
        The ratio that is promised; None where a figure is only reported.
    at_least : bool
        Whether a larger ratio is better.
    """

    name: str
    ours: str
    reference: str
    ratio: float | None
    target: float | None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None or self.ratio is None:
            return None
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    def cells(self) -> tuple[str, ...]:
        """Return the row as texts."""
        wanted = "" if self.target is None else f"{'>=' if self.at_least else '<='} {self.target:.2f}"
        met = {None: "", True: "yes", False: "NO"}[self.met]
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return self.name, self.ours, self.reference, ratio, wanted, met


HEAD = ("", "ours", "reference", "ratio", "target", "met")


def render(rows: Sequence[Row]) -> str:
    """Return the rows as a table of plain text, its columns aligned."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEAD))]

    def aligned(line: tuple[str, ...]) -> str:
        # Names and measurements are words, the rest are figures.
        cells = [
            cell.rjust(width) if column == 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([aligned(lines[0]), "  ".join("-" * width for width in widths), *map(aligned, lines[1:])])
