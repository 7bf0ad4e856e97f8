"""What the OME-XML in the description of a TIFF file says.

The XML is never parsed; a few elements are found with regular expressions. Entities that expand or refer to files need
a document type declaration, which OME-XML never has. A description with one is ignored.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from nuclei_segmentation.shared.slides.tiff_index import Directory

_PIXELS: Final = re.compile(r"<(?:\w{1,20}:)?Pixels\s([^<>]{1,20000})>")
_IMAGE: Final = re.compile(r"<(?:\w{1,20}:)?Image\s")
_CHANNEL: Final = re.compile(r"<(?:\w{1,20}:)?Channel(\s[^<>]{0,20000})?>")
_TIFF_DATA: Final = re.compile(
    r"<(?:\w{1,20}:)?TiffData(\s[^<>]{0,2000}|/)?>(?:\s{0,100}<(?:\w{1,20}:)?UUID(\s[^<>]{0,2000})?>([^<>]{0,200})<)?"
)
_ROOT: Final = re.compile(r"<(?:\w{1,20}:)?OME\s([^<>]{1,20000})>")
_ATTRIBUTE: Final = re.compile(r"""\b(\w{1,60})\s*=\s*(?:"([^"]{0,200})"|'([^']{0,200})')""")
_MOST_PARTS: Final = 10_000  # channels, and places of planes


@dataclass(frozen=True, slots=True)
class TiffData:
    """Where some planes of an image lie.

    Attributes
    ----------
    directory : int
        Number of the first of these planes' TIFF directories.
    first : dict of str to int
        Channel ("C"), depth ("Z") and time ("T") of the first plane.
    count : int or None
        How many planes there are; None for all.
    """

    directory: int
    first: dict[str, int]
    count: int | None


@dataclass(frozen=True, slots=True)
class OmeImage:
    """The first image that an OME description names.

    Attributes
    ----------
    pixels : dict of str to str
        The attributes of its pixels: sizes, order of dimensions, physical sizes.
    channels : tuple of dict
        The attributes of each channel.
    tiff_data : tuple of TiffData
        Where its planes lie in this file; empty if it does not say.
    elsewhere : bool
        Whether some planes lie in other files.
    """

    pixels: dict[str, str]
    channels: tuple[dict[str, str], ...]
    tiff_data: tuple[TiffData, ...]
    elsewhere: bool


def is_ome(directory: Directory) -> bool:
    """Tell whether the description of a directory is OME-XML that is safe to read."""
    text = directory.description
    return "<OME" in text[:4000] and "<!DOCTYPE" not in text and "<!ENTITY" not in text


def first_attributes(directory: Directory, element: re.Pattern[str]) -> dict[str, str]:
    """Return the attributes of the first such element of an OME description, empty if there is none.

    Parameters
    ----------
    directory : Directory
        The directory with the description.
    element : re.Pattern
        Its first group holds the attributes.
    """
    match = element.search(directory.description) if is_ome(directory) else None
    return {} if match is None else _attributes(match[1])


def read_ome(directory: Directory) -> OmeImage | None:
    """Return the first image that the description of a directory names, or None.

    Parameters
    ----------
    directory : Directory
        The first directory of the file.
    """
    start = _PIXELS.search(directory.description) if is_ome(directory) else None
    if start is None:
        return None
    end = _IMAGE.search(directory.description, start.end())
    text = directory.description[start.end() : end.start() if end else len(directory.description)]
    root = _ROOT.search(directory.description)
    own = _attributes(root[1]).get("UUID", "") if root else ""
    here, elsewhere = [], False
    for match in _some(_TIFF_DATA, text):
        attributes, file = _attributes(match[1]), (match[3] or "").strip()
        own = own or file  # a file that does not name itself is where its first plane lies
        if file and file != own:
            elsewhere = True
            continue
        first = {axis: _whole(attributes.get(f"First{axis}")) or 0 for axis in "CZT"}
        count = _whole(attributes.get("PlaneCount"))
        if count is None and "IFD" in attributes:
            count = 1
        here.append(TiffData(_whole(attributes.get("IFD")) or 0, first, count))
    return OmeImage(
        pixels=_attributes(start[1]),
        channels=tuple(_attributes(match[1]) for match in _some(_CHANNEL, text)),
        tiff_data=tuple(here),
        elsewhere=elsewhere,
    )


def _some(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    for number, match in enumerate(pattern.finditer(text)):
        if number >= _MOST_PARTS:
            return
        yield match


def _attributes(text: str | None) -> dict[str, str]:
    return {name: html.unescape(double or single) for name, double, single in _ATTRIBUTE.findall(text or "")}


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else None
