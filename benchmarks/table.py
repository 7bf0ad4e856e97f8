"""The table of results: each row is a ratio of two measurements, with its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table.

    Attributes
    ----------
    name : str
        What was measured.
    ours : str
        The measurement of this program, with its unit.
    reference : str
        The measurement that it is compared with, with its unit.
    ratio : float or None
        Ratio of the two; None for a row that is only reported.
    target : float or None
        Target of the ratio; None for a row that is only reported.
    at_least : bool
        Whether the ratio must be at least the target; otherwise it must be at most the target.
    """

    name: str
    ours: str
    reference: str
    ratio: float | None
    target: float | None
    at_least: bool = True

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without a target."""
        if self.target is None or self.ratio is None:
            return None
        return self.ratio >= self.target if self.at_least else self.ratio <= self.target

    def cells(self) -> tuple[str, ...]:
        """Return the text of each cell."""
        target = "" if self.target is None else f"{'>=' if self.at_least else '<='} {self.target:.2f}"
        met = {None: "", True: "yes", False: "NO"}[self.met]
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        return self.name, self.ours, self.reference, ratio, target, met


HEADINGS = ("", "ours", "reference", "ratio", "target", "met")


def render(rows: Sequence[Row]) -> str:
    """Return the rows as a plain-text table with aligned columns."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]

    def aligned(line: tuple[str, ...]) -> str:
        # The ratio is a number; everything else is text.
        cells = [
            cell.rjust(width) if column == 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([aligned(lines[0]), "  ".join("-" * width for width in widths), *map(aligned, lines[1:])])
