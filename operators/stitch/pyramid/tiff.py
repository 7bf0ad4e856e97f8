"""Writes levels as pages of a pyramidal tiled TIFF.

The file holds pixels, resolution and colour profile, but no date, software or names. The same levels give the same
bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import tifffile

from nuclei_segmentation.operators.stitch.pyramid.levels import Level
from nuclei_segmentation.shared.settings import JpegSettings

Rational = tuple[int, int]
"""Numerator and denominator, of at most 32 bits each."""

_CLASSIC_LIMIT = (1 << 32) - (64 << 20)
_WORST = 4
"""A JPEG segment is at most this many times as large as its pixels: a coefficient takes at most 26 bits for 8."""
_LONG = (1 << 32) - 2
_SUBSAMPLING = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}


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
            subfiletype=1 if level.number else 0,
            iccprofile=self._icc,
            metadata=None,
            software=False,
            datetime=False,
            resolution=pixels,
            resolutionunit=unit,
        )


def needs_bigtiff(levels: tuple[Level, ...]) -> bool:
    """Tell whether the file must be a BigTIFF. This depends on the levels' sizes only, not on settings or content."""
    raw = sum(level.rows * level.columns * level.side * level.side * 3 for level in levels)
    return raw * _WORST > _CLASSIC_LIMIT


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
