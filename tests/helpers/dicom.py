"""The beginnings of DICOM files, as far as telling their series needs them."""

from __future__ import annotations

import struct

SLIDE, DIRECTORY = b"1.2.840.10008.5.1.4.1.1.77.1.6", b"1.2.840.10008.1.3.10"


def dicom(series: bytes, *, explicit: bool = True, sop_class: bytes = SLIDE) -> bytes:
    """Return the start of a DICOM object of a series.

    Parameters
    ----------
    series : bytes
        The UID of the series.
    explicit : bool, optional
        Whether the types of the values are given.
    sop_class : bytes, optional
        The UID of the kind of object.
    """

    def element(group: int, number: int, value: bytes, explicit: bool) -> bytes:
        value += b"\0" * (len(value) % 2)
        length = b"UI" + struct.pack("<H", len(value)) if explicit else struct.pack("<I", len(value))
        return struct.pack("<HH", group, number) + length + value

    head = element(2, 2, sop_class, explicit=True)
    return bytes(128) + b"DICM" + head + element(0x20, 0xD, b"1.2.3", explicit) + element(0x20, 0xE, series, explicit)
