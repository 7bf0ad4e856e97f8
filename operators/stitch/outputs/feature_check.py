"""Checks the features of a GeoJSON file before they are written: QuPath skips a bad entry of a zip file in silence.

The text is read again, by a parser that shares nothing with what made it, into types that say what QuPath takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal
from uuid import UUID

import msgspec

from nuclei_segmentation.shared.errors import NucleiError

_Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
_Ring = Annotated[tuple[tuple[float, float], ...], msgspec.Meta(min_length=4)]


class _Polygon(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["Polygon"]
    coordinates: tuple[_Ring]  # one ring: no holes


class _Classification(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    name: Annotated[str, msgspec.Meta(min_length=1)]
    color: tuple[_Byte, _Byte, _Byte]


class _Properties(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    objectType: Literal["detection"]  # noqa: N815 - QuPath's name
    classification: _Classification
    measurements: dict[str, float]


class _Feature(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["Feature"]
    id: UUID
    geometry: _Polygon
    properties: _Properties


_DECODER = msgspec.json.Decoder(_Feature)


def check(features: Sequence[bytes], first: int, label: str) -> None:
    """Check features, one nucleus each.

    Parameters
    ----------
    features : Sequence of bytes
        JSON in UTF-8.
    first : int
        Label of the first; the labels are consecutive.
    label : str
        Name of the measurement that holds the label.

    Raises
    ------
    NucleiError
        QuPath would not take one of them: a fault of this program.
    """
    for number, text in enumerate(features, first):
        try:
            feature = _DECODER.decode(text)
        except msgspec.DecodeError as error:
            raise _fault(number, str(error)) from error
        (ring,) = feature.geometry.coordinates
        if ring[0] != ring[-1]:
            raise _fault(number, "its outline is not closed")
        if feature.properties.measurements.get(label) != number:
            raise _fault(number, "it stands for another nucleus")


def _fault(number: int, reason: str) -> NucleiError:
    return NucleiError(
        f"the GeoJSON of nucleus {number} is wrong: {reason}; this is a fault of this program, please report it"
    )
