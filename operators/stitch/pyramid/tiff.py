"""Writes levels as pages of a pyramidal tiled TIFF that is an OME-TIFF, too.

Programs look for the reduced levels in two places. OpenSlide and libvips follow the chain of directories; Bio-Formats
(Fiji, OMERO, QuPath) reads OME-XML, and looks in the tag SubIFDs of its image. So the directory of each reduced level
lies in the file once, and is linked from both.

The file holds pixels, resolution, colour profile and the program's name, but no date, version or text of the slide.
The same levels give the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import BinaryIO

import tifffile

from nuclei_segmentation.operators.stitch.pyramid.levels import Level
from nuclei_segmentation.shared.runtime.version import PROGRAM
from nuclei_segmentation.shared.settings import JpegSettings

Rational = tuple[int, int]
"""Numerator and denominator, of at most 32 bits each."""

_CLASSIC_LIMIT = (1 << 32) - (64 << 20)
_WORST = 4
"""A JPEG segment is at most this many times as large as its pixels: a coefficient takes at most 26 bits for 8."""
_LONG = (1 << 32) - 2
_SUBSAMPLING = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}
_OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
# Where this tag says 4:4:4, Bio-Formats (7.3.1) takes the RGB that its decoder returns for YCbCr, and converts it once
# more. Without the tag it does not, and the other readers go by the JPEG data anyway.
_SUBSAMPLING_TAG = struct.pack("<H", 530)
# A directory: the number of its tags, that many bytes for each, and the offset of the next directory.
_CLASSIC = struct.Struct("<H"), 12, struct.Struct("<I")
_BIG = struct.Struct("<Q"), 20, struct.Struct("<Q")


class PyramidFile:
    """Writes the pages of one file, level 0 first.

    Parameters
    ----------
    file : BinaryIO
        Open for writing and reading, at its start. It stays open.
    levels : tuple of Level
        All levels.
    jpeg : JpegSettings
        How the segments are compressed.
    mpp : tuple of float or None
        Micrometres per pixel of level 0 in x and y, or None if unknown.
    icc : bytes or None
        Colour profile, or None. Every page holds it, so that a page that is read alone has the right colours.
    tables : bytes or None
        Tables that the segments of all pages share, for the tag JPEGTables, or None.
    """

    def __init__(
        self,
        file: BinaryIO,
        levels: tuple[Level, ...],
        jpeg: JpegSettings,
        mpp: tuple[float, float] | None,
        icc: bytes | None,
        tables: bytes | None,
    ) -> None:
        self._levels, self._jpeg, self._mpp, self._icc, self._tables = levels, jpeg, mpp, icc, tables
        self._file = file
        self._writer = tifffile.TiffWriter(file, bigtiff=needs_bigtiff(levels), byteorder="<", ome=False, shaped=False)

    def write(self, level: Level, segments: Iterator[bytes]) -> None:
        """Write a page.

        Parameters
        ----------
        level : Level
            The level.
        segments : Iterator of bytes
            Encoded tiles in row-major order, as many as the level has. No more than these are drawn, so that the
            iterator does not run to its end.
        """
        pixels, unit = resolution(level, self._levels[0], self._mpp)
        first = level.number == 0
        self._writer.write(
            segments,
            shape=(level.height, level.width, 3),
            dtype="uint8",
            tile=(level.side, level.side),
            photometric="ycbcr",
            planarconfig="contig",
            compression="jpeg",
            subsampling=_SUBSAMPLING[self._jpeg.subsampling],
            jpegtables=self._tables,
            subfiletype=0 if first else 1,
            iccprofile=self._icc,
            description=ome_xml(level, self._mpp) if first else None,
            metadata=None,
            software=PROGRAM if first else False,
            datetime=False,
            resolution=pixels,
            resolutionunit=unit,
            subifds=len(self._levels) - 1 if first else None,  # the levels written next
        )

    def finish(self) -> None:
        """Link the directories of the reduced levels, which are SubIFDs so far, into the file's chain too.

        To be called once all levels are written. Only the directories change, and none becomes longer.
        """
        self._file.seek(0)
        with tifffile.TiffFile(self._file) as tiff:
            first = tiff.pages.first
            directories = (first.offset, *(first.subifds or ()))
        count, size, offset = _BIG if needs_bigtiff(self._levels) else _CLASSIC
        for directory, following in pairwise((*directories, 0)):
            self._file.seek(directory)
            (tags,) = count.unpack(self._file.read(count.size))
            entries = [self._file.read(size) for _ in range(tags)]
            if self._jpeg.subsampling == "444":
                entries = [entry for entry in entries if not entry.startswith(_SUBSAMPLING_TAG)]
            self._file.seek(directory)
            self._file.write(count.pack(len(entries)) + b"".join(entries) + offset.pack(following))
            self._file.write(bytes(size * (tags - len(entries))))


def needs_bigtiff(levels: tuple[Level, ...]) -> bool:
    """Tell whether the file must be a BigTIFF. This depends on the levels' sizes only, not on settings or content."""
    raw = sum(level.rows * level.columns * level.side * level.side * 3 for level in levels)
    return raw * _WORST > _CLASSIC_LIMIT


def ome_xml(base: Level, mpp: tuple[float, float] | None) -> str:
    """Return the OME-XML of the image: its size and pixel size, and nothing that tells slides apart.

    Parameters
    ----------
    base : Level
        Level 0.
    mpp : tuple of float or None
        Micrometres per pixel of level 0 in x and y, or None if unknown.

    Returns
    -------
    str
        ASCII, as TIFF wants descriptions; so the unit of the pixel size is left to OME's default, which is µm.
    """
    size = "" if mpp is None else f' PhysicalSizeX="{mpp[0]!r}" PhysicalSizeY="{mpp[1]!r}"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{_OME}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{_OME} {_OME}/ome.xsd">'
        '<Image ID="Image:0">'
        "<Description>For research use only; not for diagnosis.</Description>"
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" Interleaved="true" '
        f'SizeX="{base.width}" SizeY="{base.height}" SizeC="3" SizeZ="1" SizeT="1"{size}>'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/>'
        "</Pixels></Image></OME>"
    )


def resolution(level: Level, base: Level, mpp: tuple[float, float] | None) -> tuple[tuple[Rational, Rational], str]:
    """Return the resolution of a level in x and y as exact rationals, and its unit.

    Parameters
    ----------
    level : Level
        The level.
    base : Level
        Level 0.
    mpp : tuple of float or None
        Micrometres per pixel of level 0 in x and y, or None if unknown.

    Returns
    -------
    resolution : tuple of Rational
        In x and y, in pixels per centimetre; 1 and 1 without `mpp`.
    unit : str
        "CENTIMETER", or "NONE" without `mpp`.
    """
    if mpp is None:
        return ((1, 1), (1, 1)), "NONE"
    x = _rational(Fraction(10_000) / Fraction(repr(mpp[0])) * Fraction(level.width, base.width))
    y = _rational(Fraction(10_000) / Fraction(repr(mpp[1])) * Fraction(level.height, base.height))
    return (x, y), "CENTIMETER"


def _rational(value: Fraction) -> Rational:
    """Return the value, or the nearest that has a numerator and denominator of at most 32 bits each."""
    value = min(value, Fraction(_LONG))
    if max(value.numerator, value.denominator) > _LONG:
        value = value.limit_denominator(max(1, int(_LONG / max(value, Fraction(1)))))
    return value.numerator, value.denominator
