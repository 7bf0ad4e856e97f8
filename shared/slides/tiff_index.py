"""The directories of a TIFF file, read without trusting a byte of it.

A few kilobytes of a hostile file can claim 2³¹ × 2³¹ pixels, a million directories, or a chain of directories that
bites its own tail. Everything is checked against the file's size before memory is reserved for it, so that such a file
is refused in milliseconds. Nothing here decodes pixels, and nothing depends on the offsets of tiles being right: a
truncated file whose directories are whole can still be opened, and its lost tiles are damage.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.errors import UnreadableSlide

MOST_DIRECTORIES: Final = 1000
MOST_TAGS: Final = 500
MOST_TAGS_TOGETHER: Final = 50_000
MOST_TEXT: Final = 16 << 20  # bytes of one description, colour profile or set of tables
MOST_READ: Final = 64 << 20  # bytes of all directories; many directories may point to the same bytes
MOST_SUBDIRECTORIES: Final = 64
MOST_PIXELS_ACROSS: Final = 1 << 24
LARGEST_TILE: Final = 1 << 26  # pixels
SMALLEST_TILE_SIDE: Final = 8
LARGEST_TILE_SIDE: Final = 1 << 16
MOST_DECODED_PER_STORED: Final = 10_000  # the worst honest file known has 1,026

_TYPES: Final = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
_TYPES_BIG: Final = _TYPES | {13: "I", 16: "Q", 17: "q", 18: "Q"}
_WHOLE: Final = frozenset({1, 3, 4, 13, 16, 18})  # the types of whole numbers

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_DESCRIPTION, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS = 270, 273, 274, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _PLANAR, _UNIT, _PREDICTOR = 282, 283, 284, 296, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _SUBDIRECTORIES = 322, 323, 324, 325, 330
_EXTRA, _SAMPLE_FORMAT, _TABLES, _SUBSAMPLING, _ICC, _DEPTH = 338, 339, 347, 530, 34675, 32997


@dataclass(frozen=True, slots=True, eq=False)
class Directory:
    """One image of a TIFF file.

    Attributes
    ----------
    number : int
        Place in the file's chain of directories; -1 for a subdirectory.
    offset : int
        Where in the file it is described.
    width, height : int
        Size in pixels.
    tile_width, tile_height : int
        Size of a stored tile in pixels. A strip counts as a tile as wide as the image.
    orientation : int
        1 as stored; 2 to 8 turned or mirrored for display.
    tiled : bool
        False for an image stored in strips.
    bits, samples, sample_format, planar, photometric, compression, predictor, subsampling, subfile_type : int
        The TIFF tags of these names; `bits` of the first sample, or 0 if the samples differ.
    alpha : int
        What the first sample beyond the colours is: 0 nothing known, 1 alpha that the colours are multiplied with, 2
        alpha that they are not multiplied with.
    resolution : tuple of float or None
        Pixels per `unit` in x and y, or None.
    unit : int
        1 none, 2 inch, 3 centimetre.
    offsets, counts : numpy.ndarray
        (n,) int64; where each stored tile lies and how many bytes it has, row by row. May lie outside the file.
    tables : bytes or None
        What JPEG tiles share, or None.
    icc : bytes or None
        Colour profile, or None.
    description : str
        Text; empty if there is none.
    subdirectories : tuple of Directory
        The images that hang below this one.
    """

    number: int
    offset: int
    width: int
    height: int
    tile_width: int
    tile_height: int
    orientation: int
    tiled: bool
    bits: int
    samples: int
    sample_format: int
    planar: int
    photometric: int
    compression: int
    predictor: int
    subsampling: tuple[int, int]
    subfile_type: int
    alpha: int
    resolution: tuple[float, float] | None
    unit: int
    offsets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    tables: bytes | None
    icc: bytes | None
    description: str
    subdirectories: tuple[Directory, ...] = ()

    @property
    def columns(self) -> int:
        """Stored tiles side by side."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Stored tiles one below the other."""
        return -(-self.height // self.tile_height)


@dataclass(frozen=True, slots=True)
class TiffIndex:
    """All directories of a TIFF file, in the order of the file."""

    directories: tuple[Directory, ...]
    size: int


def is_tiff(head: bytes) -> bool:
    """Tell whether a file that begins with `head` (8 bytes) says that it is a TIFF file."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_index(descriptor: int) -> TiffIndex:
    """Read the directories of an open TIFF file.

    Parameters
    ----------
    descriptor : int
        Of a regular file; its position is neither used nor moved.

    Raises
    ------
    UnreadableSlide
        The file is no TIFF, or its directories are broken, lie outside the file, or claim what cannot be true.
    """
    return _Parser(descriptor).index()


@dataclass(slots=True)
class _Entry:
    """One tag, as stored."""

    type: int
    count: int
    at: int  # of its values, in the file


@dataclass(slots=True)
class _Parser:
    descriptor: int
    size: int = 0
    order: Literal["<", ">"] = "<"
    big: bool = False
    seen: set[int] = field(default_factory=set)
    tags: int = 0
    read: int = 0

    def index(self) -> TiffIndex:
        self.size = os.fstat(self.descriptor).st_size
        head = os.pread(self.descriptor, 16, 0)
        if len(head) < 8 or not is_tiff(head):
            raise UnreadableSlide("not a TIFF file")
        self.order = "<" if head[:1] == b"I" else ">"
        self.big = head[2:4] in (b"+\0", b"\0+")
        if self.big:
            if len(head) < 16:
                raise UnreadableSlide("the TIFF file ends within its header; it is truncated")
            width, _, offset = struct.unpack(self.order + "HHQ", head[4:16])
            if width != 8:
                raise UnreadableSlide(f"the BigTIFF file says that its offsets have {width} bytes; only 8 exist")
        else:
            (offset,) = struct.unpack(self.order + "I", head[4:8])
        directories: list[Directory] = []
        while offset:
            if len(directories) >= MOST_DIRECTORIES:
                raise UnreadableSlide(f"the TIFF file has more than {MOST_DIRECTORIES} directories")
            directory, offset = self._directory(offset, len(directories))
            directories.append(directory)
        if not directories:
            raise UnreadableSlide("the TIFF file holds no image")
        return TiffIndex(tuple(directories), self.size)

    def _read(self, offset: int, count: int) -> bytes:
        if offset < 0 or count < 0 or offset + count > self.size:
            raise UnreadableSlide(
                f"its TIFF directory points to byte {offset + count}, but the file has {self.size}; it is truncated"
            )
        self.read += count
        if self.read > MOST_READ:
            raise UnreadableSlide(f"the TIFF directories have more than {MOST_READ} bytes together")
        data = os.pread(self.descriptor, count, offset)
        if len(data) != count:
            raise UnreadableSlide("the TIFF file became shorter while it was read")
        return data

    def _directory(self, offset: int, number: int) -> tuple[Directory, int]:
        """Return the directory at `offset` and where the next one lies (0: nowhere)."""
        if offset in self.seen:
            raise UnreadableSlide("the chain of TIFF directories runs in a loop")
        self.seen.add(offset)
        count_size, entry_size, link_size = (8, 20, 8) if self.big else (2, 12, 4)
        count = int.from_bytes(self._read(offset, count_size), "little" if self.order == "<" else "big")
        if not 0 < count <= MOST_TAGS:
            raise UnreadableSlide(f"a TIFF directory with {count} tags; 1 to {MOST_TAGS} are possible")
        self.tags += count
        if self.tags > MOST_TAGS_TOGETHER:
            raise UnreadableSlide(f"the TIFF directories have more than {MOST_TAGS_TOGETHER} tags together")
        at = offset + count_size
        data = self._read(at, count * entry_size + link_size)
        entries: dict[int, _Entry] = {}
        for i in range(count):
            place = i * entry_size
            if self.big:
                tag, kind, values = struct.unpack_from(self.order + "HHQ", data, place)
            else:
                tag, kind, values = struct.unpack_from(self.order + "HHI", data, place)
            if kind not in _TYPES_BIG:
                continue  # an unknown type can only belong to a tag that is not needed here
            inline = entry_size - (12 if self.big else 8)
            bytes_ = values * struct.calcsize("=" + _TYPES_BIG[kind])
            value_at = at + place + entry_size - inline
            if bytes_ > inline:
                (value_at,) = struct.unpack_from(
                    self.order + ("Q" if self.big else "I"), data, place + entry_size - inline
                )
            entries.setdefault(tag, _Entry(kind, values, value_at))
        (following,) = struct.unpack_from(self.order + ("Q" if self.big else "I"), data, count * entry_size)
        return self._image(entries, offset, number), following

    def _image(self, entries: dict[int, _Entry], offset: int, number: int) -> Directory:
        def one(tag: int, default: int | None = None) -> int:
            found = self._numbers(entries, tag, 1)
            if found is None:
                if default is None:
                    raise UnreadableSlide(f"a TIFF directory lacks the tag {tag}, without which no image can be read")
                return default
            return int(found[0])

        width, height = one(_WIDTH), one(_HEIGHT)
        if not (0 < width <= MOST_PIXELS_ACROSS and 0 < height <= MOST_PIXELS_ACROSS):
            raise UnreadableSlide(
                f"a TIFF image of {width} × {height} pixels; 1 to {MOST_PIXELS_ACROSS} a side are possible"
            )
        if one(_DEPTH, 1) != 1:
            raise UnreadableSlide("a TIFF image with a depth; slides are flat")
        samples, planar = one(_SAMPLES, 1), one(_PLANAR, 1)
        bits_of = self._numbers(entries, _BITS, 16)
        bits = 1 if bits_of is None else int(bits_of[0]) if len(set(bits_of.tolist())) == 1 else 0
        if not 0 < samples <= 4096 or not 0 <= bits <= 64:
            raise UnreadableSlide(f"a TIFF image with {samples} samples of {bits} bits a pixel")
        decoded = width * height * samples * max(1, bits) // 8
        if decoded > MOST_DECODED_PER_STORED * self.size:
            raise UnreadableSlide(
                f"a TIFF image of {width} × {height} pixels in a file of {self.size} bytes: more than "
                f"{MOST_DECODED_PER_STORED} bytes of image for each byte stored, which no real slide has"
            )
        tiled = _TILE_WIDTH in entries
        if tiled:
            tile_width, tile_height = one(_TILE_WIDTH), one(_TILE_HEIGHT)
            sides = (tile_width, tile_height)
            if (
                min(sides) < SMALLEST_TILE_SIDE
                or max(sides) > LARGEST_TILE_SIDE
                or tile_width * tile_height > LARGEST_TILE
            ):
                raise UnreadableSlide(f"a TIFF image with tiles of {tile_width} × {tile_height} pixels")
        else:
            tile_width, tile_height = width, min(one(_ROWS_PER_STRIP, height), height)
            if tile_height < 1:
                raise UnreadableSlide(f"a TIFF image with strips of {tile_height} rows")
        segments = -(-width // tile_width) * -(-height // tile_height) * (samples if planar == 2 else 1)
        places = self._segments(entries, _TILE_OFFSETS if tiled else _STRIP_OFFSETS, segments)
        counts = self._segments(entries, _TILE_COUNTS if tiled else _STRIP_COUNTS, segments)
        subsampling = self._numbers(entries, _SUBSAMPLING, 2)
        return Directory(
            number=number,
            offset=offset,
            width=width,
            height=height,
            tile_width=tile_width,
            tile_height=tile_height,
            orientation=one(_ORIENTATION, 1),
            tiled=tiled,
            bits=bits,
            samples=samples,
            sample_format=one(_SAMPLE_FORMAT, 1),
            planar=planar,
            photometric=one(_PHOTOMETRIC, 0),
            compression=one(_COMPRESSION, 1),
            predictor=one(_PREDICTOR, 1),
            subsampling=(2, 2)
            if subsampling is None or len(subsampling) < 2
            else (int(subsampling[0]), int(subsampling[1])),
            subfile_type=one(_SUBFILE, 0),
            alpha=one(_EXTRA, 0),
            resolution=self._resolution(entries),
            unit=one(_UNIT, 2),
            offsets=places,
            counts=counts,
            tables=self._bytes(entries, _TABLES),
            icc=self._bytes(entries, _ICC),
            description=_text(self._bytes(entries, _DESCRIPTION)),
            subdirectories=self._below(entries, number),
        )

    def _numbers(self, entries: dict[int, _Entry], tag: int, most: int) -> npt.NDArray[np.int64] | None:
        """Return up to `most` whole numbers of a tag, or None where the tag is missing, empty or of another type."""
        entry = entries.get(tag)
        if entry is None or entry.type not in _WHOLE or entry.count == 0:
            return None
        code = _TYPES_BIG[entry.type]
        size = struct.calcsize("=" + code)
        if entry.at + entry.count * size > self.size:
            raise UnreadableSlide(f"its TIFF tag {tag} claims {entry.count} values, more than the file can hold")
        data = self._read(entry.at, min(entry.count, most) * size)
        values = np.frombuffer(data, np.dtype(code).newbyteorder(self.order))
        if values.dtype.itemsize == 8 and values.max() > np.iinfo(np.int64).max:
            raise UnreadableSlide(f"the TIFF tag {tag} has the value {values.max()}")
        return values.astype(np.int64)

    def _segments(self, entries: dict[int, _Entry], tag: int, expected: int) -> npt.NDArray[np.int64]:
        entry = entries.get(tag)
        if entry is None or entry.count < expected:
            found = 0 if entry is None else entry.count
            raise UnreadableSlide(f"a TIFF image of {expected} tiles or strips has {found} entries in its tag {tag}")
        values = self._numbers(entries, tag, expected)
        if values is None:
            raise UnreadableSlide(f"the TIFF tag {tag} is not made of whole numbers")
        return values

    def _bytes(self, entries: dict[int, _Entry], tag: int) -> bytes | None:
        entry = entries.get(tag)
        if entry is None or entry.type not in (1, 2, 7) or entry.count == 0:
            return None
        if entry.count > MOST_TEXT:
            raise UnreadableSlide(f"the TIFF tag {tag} has {entry.count} bytes; {MOST_TEXT} are the most")
        return self._read(entry.at, entry.count)

    def _resolution(self, entries: dict[int, _Entry]) -> tuple[float, float] | None:
        found: list[float] = []
        for tag in (_X_RESOLUTION, _Y_RESOLUTION):
            entry = entries.get(tag)
            if entry is None or entry.count < 1 or entry.type not in (5, 11, 12):
                return None
            code = _TYPES_BIG[entry.type]
            values = struct.unpack(self.order + code, self._read(entry.at, struct.calcsize("=" + code)))
            if entry.type == 5:
                found.append(values[0] / values[1] if values[1] else 0.0)
            else:
                found.append(float(values[0]))
        return found[0], found[1]

    def _below(self, entries: dict[int, _Entry], number: int) -> tuple[Directory, ...]:
        entry = entries.get(_SUBDIRECTORIES)
        if number < 0 or entry is None:
            return ()  # levels of a pyramid hang one deep; deeper ones are nobody's
        if entry.count > MOST_SUBDIRECTORIES:
            raise UnreadableSlide(f"a TIFF directory with {entry.count} subdirectories")
        offsets = self._numbers(entries, _SUBDIRECTORIES, MOST_SUBDIRECTORIES)
        return () if offsets is None else tuple(self._directory(int(o), -1)[0] for o in offsets)


def _text(data: bytes | None) -> str:
    """Return a tag's text: ASCII by the standard, UTF-8 in OME-TIFF, anything in old files."""
    data = (data or b"").split(b"\0", 1)[0]
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
