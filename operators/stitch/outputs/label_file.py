"""The TIFF file of a label image: an OME-TIFF whose tiles come in any order, with the directories at its end.

The tiles of all levels become ready side by side, from top to bottom. Since the directories follow the tiles, each is
written when it is ready, and nothing waits in a scratch file. All tiles without nuclei are the same bytes, which the
file holds once. It holds no date, no text of the slide, and nothing that is drawn by chance.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt

from nuclei_segmentation.operators.stitch.outputs.label_steps import Labels
from nuclei_segmentation.operators.stitch.outputs.new_file import NewFile
from nuclei_segmentation.operators.stitch.pyramid.levels import Level
from nuclei_segmentation.operators.stitch.pyramid.tiff import resolution

_OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_CLASSIC_LIMIT = 1 << 32
_START = 16  # as long as the header of a BigTIFF; that of a classic one leaves some bytes unused
_SHORT, _LONG, _RATIONAL, _ASCII, _LONG8 = "H", "L", "R", "A", "Q"
_COMPRESSION = 8  # deflate
_EFFORT = 2
"""Of zlib-ng. 1 gives files that are larger by half, 3 takes twice the time and saves nothing."""

_Values = npt.ArrayLike | bytes


def encode_tile(tile: Labels) -> bytes:
    """Return a tile in the form that the file holds.

    Parameters
    ----------
    tile : numpy.ndarray
        (side, side) uint32, each pixel's difference from the one to its left.
    """
    data: Any = tile.astype("<u4", copy=False)  # any buffer is taken, and not copied; the stubs know of bytes only
    return bytes(imagecodecs.zlibng_encode(data, level=_EFFORT))


class LabelFile:
    """Writes a file.

    Parameters
    ----------
    file : NewFile
        Empty. It stays open.
    levels : Sequence of Level
        All levels.
    mpp : tuple of float or None
        Micrometres per pixel of level 0 in x and y, or None if unknown.
    bigtiff : bool or None, optional
        Whether it becomes a BigTIFF; by default, if it needs to.
    """

    def __init__(
        self,
        file: NewFile,
        levels: Sequence[Level],
        mpp: tuple[float, float] | None,
        *,
        bigtiff: bool | None = None,
    ) -> None:
        self._file, self._levels, self._mpp, self._bigtiff = file, levels, mpp, bigtiff
        self._file.write(bytes(_START))
        self._empty = encode_tile(np.zeros((levels[0].side, levels[0].side), np.uint32))
        empty = self._write(self._empty)
        sizes = [level.rows * level.columns for level in levels]
        self._offsets = [np.full(size, empty, np.uint64) for size in sizes]
        self._lengths = [np.full(size, len(self._empty), np.uint32) for size in sizes]

    def write(self, level: Level, row: int, column: int, tile: bytes) -> None:
        """Write a tile. Those that are not written show no nuclei.

        Parameters
        ----------
        level : Level
            Its level.
        row, column : int
            Where it lies among the level's tiles.
        tile : bytes
            From `encode_tile`.
        """
        if tile != self._empty:
            number = row * level.columns + column
            self._offsets[level.number][number] = self._write(tile)
            self._lengths[level.number][number] = len(tile)

    def finish(self) -> None:
        """Write the directories, and the header that leads to them."""
        big = self._bigtiff
        if big is None:  # room for the directories: each tile takes 8 bytes there, and a directory less than 4096
            tiles = sum(len(offsets) for offsets in self._offsets)
            big = self._file.tell() + 8 * tiles + 4096 * len(self._levels) >= _CLASSIC_LIMIT
        layout = _BIG if big else _CLASSIC
        reduced = [self._directory(level, (), layout) for level in self._levels[1:]]
        first = self._directory(self._levels[0], reduced, layout)
        self._file.rewrite(layout.header + struct.pack("<" + layout.offset, first), 0)

    def _directory(self, level: Level, reduced: Sequence[int], layout: _Layout) -> int:
        """Write the directory of a level, and return where it begins."""
        (x, y), unit = resolution(level, self._levels[0], self._mpp)
        tags: dict[int, tuple[str, _Values]] = {
            254: (_LONG, 1 if level.number else 0),  # a reduced level
            256: (_LONG, level.width),
            257: (_LONG, level.height),
            258: (_SHORT, 32),  # bits
            259: (_SHORT, _COMPRESSION),
            262: (_SHORT, 1),  # 0 is black
            270: (_ASCII, b"" if level.number else _ome_xml(level, self._mpp).encode("ascii") + b"\0"),
            277: (_SHORT, 1),  # samples
            282: (_RATIONAL, x),
            283: (_RATIONAL, y),
            284: (_SHORT, 1),  # planar configuration
            296: (_SHORT, 3 if unit == "CENTIMETER" else 1),
            317: (_SHORT, 2),  # horizontal predictor
            322: (_LONG, level.side),
            323: (_LONG, level.side),
            324: (layout.offset, self._offsets[level.number]),
            325: (_LONG, self._lengths[level.number]),
            330: (layout.offset, reduced),  # SubIFDs
            339: (_SHORT, 1),  # unsigned integers
        }
        entries = []
        for tag, (kind, values) in tags.items():
            data, count = _data(kind, values)
            if count:
                inline = len(data) <= layout.inline
                value = (
                    data.ljust(layout.inline, b"\0") if inline else struct.pack("<" + layout.offset, self._write(data))
                )
                entries.append(struct.pack("<HH" + layout.offset, tag, _TYPES[kind], count) + value)
        head, last = struct.pack("<" + layout.count, len(entries)), bytes(struct.calcsize("<" + layout.offset))
        return self._write(b"".join((head, *entries, last)))

    def _write(self, data: bytes) -> int:
        """Write at the end, at an even offset as TIFF asks for, and return where."""
        self._file.write(bytes(self._file.tell() & 1))
        start = self._file.tell()
        self._file.write(data)
        return start


@dataclass(frozen=True, slots=True)
class _Layout:
    """In what classic TIFF and BigTIFF differ; formats as of `struct`."""

    header: bytes
    offset: str
    count: str
    inline: int


_CLASSIC = _Layout(b"II*\0", _LONG, "H", 4)
_BIG = _Layout(b"II+\0\x08\0\0\0", _LONG8, "Q", 8)
_TYPES = {_ASCII: 2, _SHORT: 3, _LONG: 4, _RATIONAL: 5, _LONG8: 16}


def _data(kind: str, values: _Values) -> tuple[bytes, int]:
    """Return the bytes of a tag's values, and how many values they are."""
    if isinstance(values, bytes):
        return values, len(values)
    array = np.atleast_1d(np.asarray(values)).astype("<u4" if kind == _RATIONAL else f"<{_NUMPY[kind]}")
    return array.tobytes(), len(array) // 2 if kind == _RATIONAL else len(array)


_NUMPY = {_SHORT: "u2", _LONG: "u4", _LONG8: "u8"}


def _ome_xml(base: Level, mpp: tuple[float, float] | None) -> str:
    """Return the image's OME-XML, in ASCII as TIFF wants it: µm, OME's default, is left out."""
    size = "" if mpp is None else f' PhysicalSizeX="{mpp[0]!r}" PhysicalSizeY="{mpp[1]!r}"'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f'<OME xmlns="{_OME}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
        f'xsi:schemaLocation="{_OME} {_OME}/ome.xsd"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint32" BigEndian="false" '
        f'SizeX="{base.width}" SizeY="{base.height}" SizeC="1" SizeZ="1" SizeT="1"{size}>'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
