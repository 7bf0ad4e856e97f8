"""What ImageJ writes into a TIFF file: lines in the description, and labels and colour tables in tags of its own."""

from __future__ import annotations

import struct
from typing import Final

from nuclei_segmentation.shared.slides.tiff_index import Directory

_HEADER, _LABELS, _TABLES = b"IJIJ", b"labl", b"luts"  # in a big-endian file; reversed in others
_TABLE: Final = 768  # bytes of a colour table: 256 each of red, green and blue
_MOST_KINDS: Final = 100


def read_imagej(directory: Directory) -> dict[str, str]:
    """Return the lines ``key=value`` of ImageJ's description; empty if it is not ImageJ's.

    Parameters
    ----------
    directory : Directory
        The first directory of the file.
    """
    text = directory.description
    if not text.startswith("ImageJ="):
        return {}
    pairs = (line.partition("=") for line in text[:20_000].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def labels(directory: Directory) -> list[str]:
    """Return the labels of the planes, in the order of the planes; empty if there are none.

    Parameters
    ----------
    directory : Directory
        The first directory of the file.
    """
    coding = "utf-16-le" if directory.byte_order == "<" else "utf-16-be"
    return [part.decode(coding, "replace") for part in _parts(directory, _LABELS)]


def table_colours(directory: Directory) -> list[str]:
    """Return the colour that each channel is shown in, "red", "green" or "blue"; "" for others.

    Parameters
    ----------
    directory : Directory
        The first directory of the file.
    """
    found = []
    for table in _parts(directory, _TABLES):
        last = table[255::256] if len(table) == _TABLE else b""
        found.append({b"\xff\0\0": "red", b"\0\xff\0": "green", b"\0\0\xff": "blue"}.get(last, ""))
    return found


def _parts(directory: Directory, kind: bytes) -> list[bytes]:
    """Return ImageJ's parts of one kind: the header lists the kinds in their order, and how many of each there are."""
    if not directory.imagej:
        return []
    header, *parts = directory.imagej
    turn = slice(None, None, -1 if directory.byte_order == "<" else 1)
    if header[:4][turn] != _HEADER:
        return []
    at = 0
    for offset in range(4, min(len(header), 4 + 8 * _MOST_KINDS) - 7, 8):
        (count,) = struct.unpack_from(directory.byte_order + "I", header, offset + 4)
        if header[offset : offset + 4][turn] == kind:
            return parts[at : at + count]
        at += count
    return []
