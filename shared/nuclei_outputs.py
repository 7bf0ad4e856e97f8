"""The files of nuclei in an output folder: what ``summary.json`` says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file of nuclei.

    Attributes
    ----------
    output : str
        What it belongs to: a word of the setting `outputs`.
    file : str
        Its name in the output folder.
    bytes : int
        Its size.
    xxh3 : str
        Its XXH3-64, 16 hexadecimal digits.
    """

    output: str
    file: str
    bytes: int
    xxh3: str


@dataclass(frozen=True, slots=True)
class NucleiOutputs:
    """The nuclei that were written.

    Attributes
    ----------
    key : str
        Hash of everything that decides the bytes of the files.
    written : int
        Number of nuclei.
    too_small, too_large : int
        Nuclei besides that were left out.
    areas : tuple of float or None
        The quartiles of their areas, in µm² or, without a pixel size, in pixels; None if there are none.
    classes : Mapping of str to int
        How many are of each class; empty for a model without classes.
    files : tuple of OutputFile
        The files.
    """

    key: str
    written: int
    too_small: int
    too_large: int
    areas: tuple[float, float, float] | None
    classes: Mapping[str, int]
    files: tuple[OutputFile, ...]

    def to_json(self) -> dict[str, Any]:
        """Return what summary.json holds."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> NucleiOutputs:
        """Return what summary.json says.

        Raises
        ------
        KeyError, TypeError, ValueError
            It says something else.
        """
        areas = document["areas"]
        return cls(
            key=str(document["key"]),
            written=int(document["written"]),
            too_small=int(document["too_small"]),
            too_large=int(document["too_large"]),
            areas=None if areas is None else (float(areas[0]), float(areas[1]), float(areas[2])),
            classes={str(name): int(count) for name, count in dict(document["classes"]).items()},
            files=tuple(
                OutputFile(str(one["output"]), str(one["file"]), int(one["bytes"]), str(one["xxh3"]))
                for one in document["files"]
            ),
        )
