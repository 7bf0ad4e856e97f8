"""Pixel size and objective power, as the metadata of a slide gives them, if they are plausible."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from nuclei_segmentation.shared.scale import LARGEST_MPP, SMALLEST_MPP
from nuclei_segmentation.shared.slides.imagej import read_imagej
from nuclei_segmentation.shared.slides.ome import first_attributes
from nuclei_segmentation.shared.slides.tiff_index import Directory

_TOLERANCE: Final = 0.05  # relative difference up to which two sizes count as equal

_UNITS: Final = {1: None, 2: 25_400.0, 3: 10_000.0}  # µm in TIFF's resolution units: none, inch, centimetre
_OME_UNITS: Final = {  # µm
    "m": 1e6, "dm": 1e5, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3, "pm": 1e-6, "Å": 1e-4,
    "in": 25_400.0, "thou": 25.4, "li": 25_400.0 / 12, "pt": 25_400.0 / 72, "ft": 304_800.0,
}  # fmt: skip
_IMAGEJ_UNITS: Final = _OME_UNITS | {
    "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometers": 1.0, "micrometre": 1.0, "\\u00b5m": 1.0,
    "inch": 25_400.0, "inches": 25_400.0, "nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6,
}  # fmt: skip
_PIXELS: Final = re.compile(r"<(?:\w{1,20}:)?Pixels\s([^<>]{1,20000})>")
_OBJECTIVE: Final = re.compile(r"<(?:\w{1,20}:)?Objective\s([^<>]{1,20000})>")
_APERIO: Final = re.compile(r"\|\s*(MPP|AppMag)\s*=\s*([^|]{1,40})")
_NUMBER: Final = r"""["']?([0-9.eE+-]{1,30})"""
_MPP: Final = re.compile(rf"""(?:^|[|;,{{\s"'])mpp["']?\s{{0,9}}[=:]\s{{0,9}}{_NUMBER}""", re.IGNORECASE)
_PHILIPS: Final = re.compile(  # millimetres between rows and between columns
    r"""DICOM_PIXEL_SPACING[^<>]{0,300}>\s*(?:&quot;|")([0-9.eE+-]{1,30})(?:&quot;|")\s+(?:&quot;|")([0-9.eE+-]{1,30})"""
)
_LOOKED_AT: Final = 1 << 20  # characters of a description
_COLOUR_MODELS: Final = frozenset(
    {b"GRAY", b"CMYK", b"CMY ", b"Lab ", b"XYZ ", b"Luv ", b"YCbr", b"Yxy ", b"HSV ", b"HLS "}
    | {f"{count:X}CLR".encode() for count in range(2, 16)}
)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PixelSize:
    """The pixel size that one source gives.

    Attributes
    ----------
    source : str
        Name of the source, for messages.
    x, y : float
        Micrometres per pixel.
    """

    source: str
    x: float
    y: float

    @property
    def plausible(self) -> bool:
        """Whether a light microscope can have such pixels."""
        return all(SMALLEST_MPP <= value <= LARGEST_MPP for value in (self.x, self.y))  # False for NaN


def choose_mpp(candidates: Iterable[PixelSize]) -> tuple[tuple[float, float] | None, str]:
    """Choose the pixel size to use: the first plausible one.

    Parameters
    ----------
    candidates : Iterable of PixelSize
        What the sources give, the most trusted source first.

    Returns
    -------
    mpp : tuple of float or None
        Micrometres per pixel in x and y, or None if no source gives a plausible size.
    note : str
        Why there is no pixel size, or why it is doubtful. Empty if all is well.
    """
    candidates = list(candidates)
    plausible = [size for size in candidates if size.plausible]
    if not plausible:
        if not candidates:
            return None, "not given in the file"
        return None, f"{_text(candidates[0])} µm ({candidates[0].source}) is implausible and is ignored"
    first, notes = plausible[0], []
    if _differ(first.x, first.y):
        notes.append(f"x and y differ: {first.x:g} and {first.y:g} µm ({first.source})")
    for other in plausible[1:]:
        if _differ(first.x, other.x) or _differ(first.y, other.y):
            notes.append(
                f"{first.source} says {_text(first)} µm, {other.source} says {_text(other)} µm; {first.source} is used"
            )
    return (first.x, first.y), "; ".join(notes)


def pixel_sizes(properties: Mapping[str, str], directory: Directory | None) -> list[PixelSize]:
    """Return the pixel sizes that the metadata of a slide gives, the most trusted source first.

    Parameters
    ----------
    properties : Mapping of str to str
        OpenSlide's properties; empty if OpenSlide cannot open the slide.
    directory : Directory or None
        The TIFF directory of level 0, or None if the slide has none.
    """
    sizes = []
    x, y = (_number(properties.get(f"openslide.mpp-{axis}")) for axis in "xy")
    if x is not None or y is not None:
        sizes.append(PixelSize("OpenSlide", *_both(x, y)))
    if directory is None:
        return sizes
    text = directory.description[:_LOOKED_AT]
    if not sizes and (spacing := _PHILIPS.search(text)):
        y, x = (_number(side) for side in spacing.groups())
        if x is not None and y is not None:
            sizes.append(PixelSize("Philips", 1e3 * x, 1e3 * y))
    if not sizes and (stated := _MPP.search(text)) and (mpp := _number(stated[1])) is not None:
        sizes.append(PixelSize("Aperio" if text.startswith("Aperio") else "description", mpp, mpp))
    if (unit := _UNITS.get(directory.unit)) and directory.resolution and any(directory.resolution):
        sizes.append(PixelSize("TIFF resolution", *(unit / value if value else 0.0 for value in directory.resolution)))
    # These two come first, since the TIFF tags of such files often hold a printer's default or have another unit.
    sizes = _imagej(directory) + sizes
    attributes = first_attributes(directory, _PIXELS)
    x, y = (_length(attributes, f"PhysicalSize{axis}") for axis in "XY")
    if x is not None or y is not None:
        sizes.insert(0, PixelSize("OME", *_both(x, y)))
    return sizes


def _imagej(directory: Directory) -> list[PixelSize]:
    """Return the pixel size of ImageJ: the TIFF resolution in the unit that its description names."""
    lines = read_imagej(directory)
    unit = _IMAGEJ_UNITS.get(lines.get("unit", "").lower())
    unit_y = _IMAGEJ_UNITS.get(lines["yunit"].lower()) if "yunit" in lines else unit
    if unit is None or unit_y is None or directory.resolution is None or not all(directory.resolution):
        return []
    return [PixelSize("ImageJ", unit / directory.resolution[0], unit_y / directory.resolution[1])]


def objective_power(properties: Mapping[str, str], directory: Directory | None) -> float | None:
    """Return the objective power that the metadata of a slide gives, or None.

    Parameters
    ----------
    properties : Mapping of str to str
        OpenSlide's properties; empty if OpenSlide cannot open the slide.
    directory : Directory or None
        The TIFF directory of level 0, or None if the slide has none.
    """
    power = _number(properties.get("openslide.objective-power"))
    if power is None and directory is not None:
        power = _number(_aperio(directory).get("AppMag")) or _number(
            first_attributes(directory, _OBJECTIVE).get("NominalMagnification")
        )
    return power if power is not None and 0 < power <= 1000 else None


def rgb_profile(icc: bytes | None) -> bytes | None:
    """Return an ICC colour profile if it may stand on an RGB image; None for one of grey, CMYK or another colour model.

    Parameters
    ----------
    icc : bytes or None
        The profile, unchecked, or None.
    """
    model = b"" if icc is None else icc[16:20]
    if model != b"RGB " and (model in _COLOUR_MODELS or (icc is not None and icc[36:40] == b"acsp")):
        log.info("the colour profile (%s) is not of RGB and is dropped", model.decode("latin-1").strip())
        return None
    return icc


def _aperio(directory: Directory) -> dict[str, str]:
    return dict(_APERIO.findall(directory.description)) if directory.description.startswith("Aperio") else {}


def _length(attributes: Mapping[str, str], name: str) -> float | None:
    value, unit = _number(attributes.get(name)), _OME_UNITS.get(attributes.get(f"{name}Unit", "µm"))
    return None if value is None or unit is None else value * unit


def _number(text: str | None) -> float | None:
    """Return the number in a text, which may be NaN, or None if it is not a number."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _both(x: float | None, y: float | None) -> tuple[float, float]:
    """Return x and y; if one is missing, the other stands for both."""
    known = x if x is not None else y
    assert known is not None
    return known if x is None else x, known if y is None else y


def _differ(a: float, b: float) -> bool:
    return not math.isclose(a, b, rel_tol=_TOLERANCE)


def _text(size: PixelSize) -> str:
    return f"{size.x:g}" if size.x == size.y or math.isnan(size.x) else f"{size.x:g} × {size.y:g}"
