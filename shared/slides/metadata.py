"""Pixel size, objective power and colour profile: what a slide says of itself, and whether to believe it."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from nuclei_segmentation.shared.slides.tiff_index import Directory

SMALLEST_MPP: Final = 0.01  # µm; an electron microscope's
LARGEST_MPP: Final = 100.0  # µm; a macro photograph's
_DISAGREES: Final = 0.05

_UNITS: Final = {1: None, 2: 25_400.0, 3: 10_000.0}  # µm in TIFF's none, inch, centimetre
_OME_UNITS: Final = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "Å": 1e-4}
_PIXELS: Final = re.compile(r"<(?:\w{1,20}:)?Pixels\s([^<>]{1,20000})>")
_OBJECTIVE: Final = re.compile(r"<(?:\w{1,20}:)?Objective\s([^<>]{1,20000})>")
_ATTRIBUTE: Final = re.compile(r"""\b(\w{1,60})\s*=\s*(?:"([^"]{0,200})"|'([^']{0,200})')""")
_APERIO: Final = re.compile(r"\|\s*(MPP|AppMag)\s*=\s*([^|]{1,40})")


@dataclass(frozen=True, slots=True)
class Claim:
    """What one source says: micrometres per pixel in x and y."""

    source: str
    x: float
    y: float

    @property
    def absurd(self) -> bool:
        """Whether no microscope has such pixels."""
        return not all(SMALLEST_MPP <= value <= LARGEST_MPP for value in (self.x, self.y))  # False for NaN


def judge_mpp(claims: Iterable[Claim]) -> tuple[tuple[float, float] | None, str]:
    """Choose among what the sources say.

    Parameters
    ----------
    claims : Iterable of Claim
        In the order in which they are trusted.

    Returns
    -------
    tuple
        The pixel size in µm (x, y), or None, and what is odd about it, or an empty text.
    """
    claims = list(claims)
    sane = [claim for claim in claims if not claim.absurd]
    if not sane:
        if not claims:
            return None, "absent"
        return None, f"{_text(claims[0])} µm ({claims[0].source}) is absurd"
    first, notes = sane[0], []
    if _differ(first.x, first.y):
        notes.append(f"x and y differ: {first.x:g} and {first.y:g} µm ({first.source})")
    for other in sane[1:]:
        if _differ(first.x, other.x) or _differ(first.y, other.y):
            notes.append(f"{first.source} says {_text(first)} µm, {other.source} says {_text(other)} µm")
    return (first.x, first.y), "; ".join(notes)


def claims_of(properties: Mapping[str, str], directory: Directory | None) -> list[Claim]:
    """Return what OpenSlide's properties and a TIFF's first directory say of the pixel size."""
    claims = []
    x, y = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    if x is not None or y is not None:
        claims.append(Claim("OpenSlide", *_both(x, y)))
    if directory is None:
        return claims
    if not claims and (found := _number(_aperio(directory).get("MPP"))) is not None:
        claims.append(Claim("Aperio", found, found))
    if (unit := _UNITS.get(directory.unit)) and directory.resolution and any(directory.resolution):
        claims.append(Claim("TIFF resolution", *(unit / value if value else 0.0 for value in directory.resolution)))
    attributes = _ome(directory, _PIXELS)
    x, y = (_length(attributes, f"PhysicalSize{axis}") for axis in "XY")
    if x is not None or y is not None:
        ome = Claim("OME", *_both(x, y))
        claims.insert(0, ome)  # its own format's word; the TIFF tags of such files are often a printer's default
    return claims


def objective_of(properties: Mapping[str, str], directory: Directory | None) -> float | None:
    """Return the objective power, or None."""
    found = _number(properties.get("openslide.objective-power"))
    if found is None and directory is not None:
        found = _number(_aperio(directory).get("AppMag")) or _number(
            _ome(directory, _OBJECTIVE).get("NominalMagnification")
        )
    return found if found is not None and 0 < found <= 1000 else None


def is_ome(directory: Directory) -> bool:
    """Tell whether a directory's description is OME-XML that may be read.

    The XML is never parsed: two elements are looked up by pattern. A document type declaration, which OME-XML never
    has, is the only door to entities that expand or name files, so a text with one is not read at all.
    """
    text = directory.description
    return "<OME" in text[:4000] and "<!DOCTYPE" not in text and "<!ENTITY" not in text


def _ome(directory: Directory, element: re.Pattern[str]) -> dict[str, str]:
    """Return the attributes of the first such element of an OME description."""
    found = element.search(directory.description) if is_ome(directory) else None
    if found is None:
        return {}
    return {name: html.unescape(double or single) for name, double, single in _ATTRIBUTE.findall(found[1])}


def _aperio(directory: Directory) -> dict[str, str]:
    return dict(_APERIO.findall(directory.description)) if directory.description.startswith("Aperio") else {}


def _length(attributes: Mapping[str, str], name: str) -> float | None:
    value, unit = _number(attributes.get(name)), _OME_UNITS.get(attributes.get(f"{name}Unit", "µm"))
    return None if value is None or unit is None else value * unit


def _number(text: str | None) -> float | None:
    """Return what a text says, NaN included (which `judge_mpp` refuses by name), or None where it is no number."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _both(x: float | None, y: float | None) -> tuple[float, float]:
    """Return x and y, the one for the other where one is missing."""
    known = x if x is not None else y
    assert known is not None
    return known if x is None else x, known if y is None else y


def _differ(a: float, b: float) -> bool:
    return not math.isclose(a, b, rel_tol=_DISAGREES)


def _text(claim: Claim) -> str:
    return f"{claim.x:g}" if claim.x == claim.y or claim.x != claim.x else f"{claim.x:g} × {claim.y:g}"
