"""Reads the directories of a TIFF file without trusting any of its bytes.

A hostile file of a few kilobytes can claim 2³¹ × 2³¹ pixels, a million directories, or a chain of directories that
forms a loop. Every claim is checked against the size of the file before memory is reserved, so such a file is refused
within milliseconds. Nothing here decodes pixels or relies on the offsets of tiles: a truncated file with intact
directories can be opened, and its missing tiles are damage.

A fault in a directory costs that directory alone: a slide does not need its label, nor every reduced level.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.runtime.files import read_at

MOST_DIRECTORIES: Final = 1000
MOST_TAGS: Final = 500
MOST_TAGS_TOGETHER: Final = 50_000
MOST_TEXT: Final = 16 << 20  # bytes of a description, colour profile or set of JPEG tables
MOST_READ: Final = 64 << 20  # bytes read for all directories together; several may point to the same bytes
MOST_SUBDIRECTORIES: Final = 64
MOST_PIXELS_ACROSS: Final = 1 << 24
LARGEST_TILE: Final = 1 << 26  # pixels
SMALLEST_TILE_SIDE: Final = 8
LARGEST_TILE_SIDE: Final = 1 << 16
MOST_DECODED_PER_STORED: Final = 10_000  # bytes; 1,026 is the most known in an honest file
MOST_SPARSE: Final = 100  # bytes of image per stored byte without compression; the rest is left out as background
FREE_BYTES: Final = 4096  # added to the stored bytes: a small image may be all background

_TYPES: Final = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
_TYPES_BIG: Final = _TYPES | {13: "I", 16: "Q", 17: "q", 18: "Q"}
_INTEGERS: Final = frozenset({1, 3, 4, 6, 8, 9, 13, 16, 17, 18})  # types of integers and offsets

_SUBFILE, _WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 254, 256, 257, 258, 259, 262
_DESCRIPTION, _STRIP_OFFSETS, _ORIENTATION, _SAMPLES, _ROWS_PER_STRIP, _STRIP_COUNTS = 270, 273, 274, 277, 278, 279
_X_RESOLUTION, _Y_RESOLUTION, _PLANAR, _UNIT, _PREDICTOR = 282, 283, 284, 296, 317
_TILE_WIDTH, _TILE_HEIGHT, _TILE_OFFSETS, _TILE_COUNTS, _SUBDIRECTORIES = 322, 323, 324, 325, 330
_NDPI: Final = 65420
_SOFTWARE, _XMP = 305, 700
_KINDS: Final = {34412: "a Zeiss LSM file", 50706: "a raw camera file"} | dict.fromkeys(
    range(33628, 33632), "a MetaMorph STK file"
)
_SENSOR: Final = frozenset({32803, 34892})  # photometric interpretations of the sensors of cameras
_RAW: Final = frozenset({32767, 32769, 32770, 34713, 65535})  # compressions that only raw camera files have
_MAKERS: Final = {
    b"leica-microsystems.com/scn": "Leica",
    b"<iScan": "Ventana",
    b"MedScan": "Trestle",
    b"Philips DP": "Philips",
}
_LOOKED_AT: Final = 16 << 10  # bytes of a text in which a maker is looked for
_EXTRA, _SAMPLE_FORMAT, _TABLES, _SUBSAMPLING, _ICC, _DEPTH = 338, 339, 347, 530, 34675, 32997
_PAGE_NAME, _IMAGEJ_COUNTS, _IMAGEJ = 285, 50838, 50839
_MOST_IMAGEJ_PARTS: Final = 10_000


@dataclass(frozen=True, slots=True, eq=False)
class Directory:
    """One image of a TIFF file.

    Attributes
    ----------
    width, height : int
        Size in pixels.
    tile_width, tile_height : int
        Size of a stored tile in pixels. A strip counts as a tile as wide as the image.
    orientation : int
        1 to display as stored; 2 to 8 to rotate or mirror for display.
    tiled : bool
        False for an image stored in strips.
    byte_order : str
        Of samples with more than one byte: ``<`` little-endian, ``>`` big-endian.
    bits : int
        Bits per sample, or 0 if the samples differ.
    sample_format : int
        1 unsigned integers, 2 signed integers, 3 floating-point numbers, 4 undefined; 0 if the samples differ.
    samples, planar, photometric, compression, predictor, subfile_type : int
        The TIFF tags of these names.
    subsampling : tuple of int
        Chroma subsampling in x and y.
    alpha : int
        The first sample after the colours: 0 unknown, 1 alpha with which the colours are already multiplied, 2 alpha
        with which they are not.
    picked : tuple of int
        Numbers of the samples to use as grey or as red, green and blue, where a channel was chosen from several that a
        pixel has; empty in a file: all in their order.
    resolution : tuple of float or None
        Pixels per `unit` in x and y, or None.
    unit : int
        Unit of the resolution: 1 none, 2 inch, 3 centimetre.
    offsets, counts : numpy.ndarray
        (n,) int64; offset and size of each stored tile in bytes, row by row. They may lie outside the file.
    tables : bytes or None
        The JPEG tables that the tiles share, or None.
    icc : bytes or None
        The ICC colour profile, or None.
    description, page_name : str
        The TIFF tags of these names; empty if there is none.
    imagej : tuple of bytes
        ImageJ's own metadata: a header, and the parts that it lists; empty if there is none.
    subdirectories : tuple of Directory
        The directories below this one (SubIFDs).
    """

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
    byte_order: Literal["<", ">"] = "<"
    picked: tuple[int, ...] = ()
    page_name: str = ""
    imagej: tuple[bytes, ...] = ()

    @property
    def columns(self) -> int:
        """Number of stored tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Number of stored tiles in a column."""
        return -(-self.height // self.tile_height)


class BadDirectory(Exception):
    """A directory cannot be read. Does not leave this package."""


class Oversized(BadDirectory):
    """A directory claims more than any slide has. No library may be asked to read such a file."""


@dataclass(frozen=True, slots=True)
class TiffIndex:
    """The directories of a TIFF file.

    Attributes
    ----------
    base : Directory or BadDirectory
        The first directory, or why it cannot be read.
    others : tuple of Directory
        The other directories that can be read, in the order of the file's chain.
    faults : tuple of BadDirectory
        What is wrong with those that cannot be read, apart from the first.
    kind : str
        What the file is, in words, if only its head is that of a TIFF slide; empty for others.
    maker : str
        Whose scanner wrote the file, if its first image is not simply level 0, so that only OpenSlide can read it;
        empty for others.
    """

    base: Directory | BadDirectory
    others: tuple[Directory, ...]
    faults: tuple[BadDirectory, ...]
    kind: str
    maker: str

    @property
    def oversized(self) -> Oversized | None:
        """Why no library may be asked to read the file; None if one may."""
        return next((fault for fault in (self.base, *self.faults) if isinstance(fault, Oversized)), None)


def is_tiff(head: bytes) -> bool:
    """Tell whether a file that starts with the bytes `head` (at least 4) claims to be a TIFF file."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_index(descriptor: int) -> TiffIndex:
    """Read the directories of an open TIFF file.

    Parameters
    ----------
    descriptor : int
        Descriptor of a regular file. Its position is neither used nor changed.

    Returns
    -------
    TiffIndex
        What can be read of them.

    Raises
    ------
    UnreadableSlide
        The file is not a TIFF file, has no directory, or has more of them than any slide.
    """
    return _Parser(descriptor).index()


@dataclass(slots=True)
class _Entry:
    """One tag of a directory."""

    type: int
    count: int
    at: int  # where in the file its values start


class _Known(NamedTuple):
    """A directory that was read, without those below it."""

    image: Directory | BadDirectory
    entries: dict[int, _Entry]
    following: int  # where the next one lies, or 0


@dataclass(slots=True)
class _Parser:
    descriptor: int
    size: int = 0
    order: Literal["<", ">"] = "<"
    big: bool = False
    first: int = 0  # where the first directory lies
    known: dict[int, _Known] = field(default_factory=dict)  # by where they lie: one may be listed several times
    tags: int = 0
    read: int = 0
    ndpi: bool = False  # Hamamatsu's variant of TIFF, with offsets of 64 bits that are stored in part
    faults: list[BadDirectory] = field(default_factory=list)
    kind: str = ""
    maker: str = ""

    def index(self) -> TiffIndex:
        self.size = os.fstat(self.descriptor).st_size
        head = read_at(self.descriptor, 16, 0)
        if len(head) < 8 or not is_tiff(head):
            raise UnreadableSlide("it is not a TIFF file")
        self.order = "<" if head[:1] == b"I" else ">"
        self.big = head[2:4] in (b"+\0", b"\0+")
        if self.big:
            if len(head) < 16:
                raise UnreadableSlide("the file is truncated: it ends within the TIFF header")
            width, _, offset = struct.unpack(self.order + "HHQ", head[4:16])
            if width != 8:
                raise UnreadableSlide(f"the BigTIFF header gives offsets {width} bytes; they must have 8")
        else:
            (offset,) = struct.unpack(self.order + "I", head[4:8])
            wide = struct.unpack(self.order + "Q", head[4:12])[0] if len(head) >= 12 else 0
            for first in (wide, offset):
                if self._is_ndpi(first):
                    self.ndpi, offset = True, first
                    break
        if not offset:
            raise UnreadableSlide("the TIFF file contains no image")
        self.first = offset
        chain: dict[int, Directory | BadDirectory] = {}
        while offset and offset not in chain:  # a chain that comes back to a directory ends there
            if len(chain) >= MOST_DIRECTORIES:
                raise UnreadableSlide(f"the TIFF file has more than {MOST_DIRECTORIES} directories")
            known = self._look_up(offset)
            chain[offset] = self._with_subdirectories(known)
            offset = known.following
        found = list(chain.values())
        others = tuple(directory for directory in found[1:] if isinstance(directory, Directory))
        self.faults += [fault for fault in found[1:] if isinstance(fault, BadDirectory)]
        kind = "a raw camera file" if head[:4] == b"II*\0" and head[8:12] == b"CR\2\0" else self.kind
        return TiffIndex(found[0], others, tuple(dict.fromkeys(self.faults)), kind, self.maker)

    def _is_ndpi(self, offset: int) -> bool:
        """Tell whether the first directory, at `offset`, has the tag by which OpenSlide knows a Hamamatsu file."""
        if not 0 < offset < self.size:
            return False
        data = read_at(self.descriptor, min(2 + 12 * MOST_TAGS, self.size - offset), offset)
        count = int.from_bytes(data[:2], "little" if self.order == "<" else "big")
        return any(
            data[at : at + 2] == struct.pack(self.order + "H", _NDPI)
            for at in range(2, min(len(data), 2 + 12 * count), 12)
        )

    def _read(self, offset: int, count: int) -> bytes:
        if offset < 0 or count < 0 or offset + count > self.size:
            raise BadDirectory(
                f"the file is truncated: a TIFF directory points to byte {offset + count} of {self.size}"
            )
        self.read += count
        if self.read > MOST_READ:
            raise UnreadableSlide(f"the TIFF directories have more than {MOST_READ} bytes in all")
        data = read_at(self.descriptor, count, offset)
        if len(data) != count:
            raise BadDirectory("the file became shorter while it was read")
        return data

    def _look_up(self, offset: int) -> _Known:
        """Return the directory at `offset`, which is read but once, however often the file lists it."""
        if offset not in self.known:
            try:
                entries, following = self._entries(offset)
            except BadDirectory as fault:  # where the next directory lies cannot be told either
                self.known[offset] = _Known(fault, {}, 0)
            else:
                self.known[offset] = _Known(self._directory(entries, offset == self.first), entries, following)
        return self.known[offset]

    def _directory(self, entries: dict[int, _Entry], is_first: bool) -> Directory | BadDirectory:
        """Return the image of a directory, or what is wrong with it."""
        try:
            return self._image(entries, is_first)
        except BadDirectory as fault:
            return fault

    def _entries(self, offset: int) -> tuple[dict[int, _Entry], int]:
        """Return the tags of the directory at `offset`, and the offset of the next one (0 if there is none)."""
        count_size, entry_size, link_size = (8, 20, 8) if self.big else (2, 12, 8 if self.ndpi else 4)
        count = int.from_bytes(self._read(offset, count_size), "little" if self.order == "<" else "big")
        if not 0 < count <= MOST_TAGS:
            raise BadDirectory(f"a TIFF directory has {count} tags; 1 to {MOST_TAGS} are allowed")
        self.tags += count
        if self.tags > MOST_TAGS_TOGETHER:
            raise UnreadableSlide(f"the TIFF directories have more than {MOST_TAGS_TOGETHER} tags in all")
        at = offset + count_size
        data = self._read(at, count * entry_size + link_size)
        entries: dict[int, _Entry] = {}
        for i in range(count):
            start = i * entry_size
            if self.big:
                tag, kind, values = struct.unpack_from(self.order + "HHQ", data, start)
            else:
                tag, kind, values = struct.unpack_from(self.order + "HHI", data, start)
            if kind not in _TYPES_BIG:
                continue  # only tags that are not needed here have other types
            inline = entry_size - (12 if self.big else 8)
            bytes_ = values * struct.calcsize("=" + _TYPES_BIG[kind])
            value_at = at + start + entry_size - inline
            if bytes_ > inline:
                (value_at,) = struct.unpack_from(
                    self.order + ("Q" if self.big else "I"), data, start + entry_size - inline
                )
                if self.ndpi:  # the values lie before their directory; only the lower half of the offset is stored
                    value_at |= offset >> 32 << 32
                    value_at -= 1 << 32 if value_at > max(offset, (1 << 32) - 1) else 0
            entries.setdefault(tag, _Entry(kind, values, value_at))
        (following,) = struct.unpack_from(self.order + ("Q" if link_size == 8 else "I"), data, count * entry_size)
        self._recognise(entries)
        return entries, following

    def _recognise(self, entries: dict[int, _Entry]) -> None:
        """Note what the tags of a directory say about the file."""
        for tag, kind in _KINDS.items():
            if tag in entries:
                self.kind = self.kind or kind
        for tag, values in ((_PHOTOMETRIC, _SENSOR), (_COMPRESSION, _RAW)):
            with suppress(BadDirectory):  # the directory itself will be refused
                number = self._numbers(entries, tag, 1)
                if number is not None and int(number[0]) in values:
                    self.kind = self.kind or "a raw camera file"
        for tag in (_DESCRIPTION, _SOFTWARE, _XMP):
            entry = entries.get(tag)
            if entry is not None and entry.count and 0 < entry.at < self.size:
                text = self._read(entry.at, min(entry.count, self.size - entry.at, _LOOKED_AT))
                self.maker = next((maker for mark, maker in _MAKERS.items() if mark in text), self.maker)

    def _image(self, entries: dict[int, _Entry], is_first: bool) -> Directory:
        def integer(tag: int, default: int | None = None) -> int:
            values = self._numbers(entries, tag, 1)
            if values is None:
                if default is None:
                    raise BadDirectory(f"a TIFF directory lacks the required tag {tag}")
                return default
            return int(values[0])

        width, height = integer(_WIDTH), integer(_HEIGHT)
        if not (0 < width <= MOST_PIXELS_ACROSS and 0 < height <= MOST_PIXELS_ACROSS):
            kind = BadDirectory if min(width, height) == 0 else Oversized
            raise kind(f"a TIFF image has {width} × {height} pixels; 1 to {MOST_PIXELS_ACROSS} per side are allowed")
        if integer(_DEPTH, 1) != 1:
            raise BadDirectory("a TIFF image is three-dimensional, which is not supported")
        samples, planar = integer(_SAMPLES, 1), integer(_PLANAR, 1)

        def of_all_samples(tag: int, default: int) -> int:
            values = self._numbers(entries, tag, 4096)
            return default if values is None else int(values[0]) if (values == values[0]).all() else 0

        bits = of_all_samples(_BITS, 1)
        if not 0 < samples <= 4096 or not 0 <= bits <= 64:
            raise Oversized(f"a TIFF image has {samples} samples of {bits} bits per pixel")
        decoded = width * height * samples * max(1, bits) // 8
        if decoded > MOST_DECODED_PER_STORED * self.size:
            raise Oversized(
                f"a TIFF image has {width} × {height} pixels in a file of {self.size} bytes; more than "
                f"{MOST_DECODED_PER_STORED} bytes of image per byte of the file are not allowed"
            )
        tiled = _TILE_WIDTH in entries
        if tiled:
            tile_width, tile_height = integer(_TILE_WIDTH), integer(_TILE_HEIGHT)
            sides = (tile_width, tile_height)
            if (
                min(sides) < SMALLEST_TILE_SIDE
                or max(sides) > LARGEST_TILE_SIDE
                or tile_width * tile_height > LARGEST_TILE
            ):
                raise Oversized(f"a TIFF image has unsupported tiles of {tile_width} × {tile_height} pixels")
        else:
            tile_width, tile_height = width, min(integer(_ROWS_PER_STRIP, height), height)
            if tile_height < 1:
                raise BadDirectory(f"a TIFF image has strips of {tile_height} rows")
        segments = -(-width // tile_width) * -(-height // tile_height) * (samples if planar == 2 else 1)
        # Some writers, and so libtiff, use the tags of tiles for strips, or those of strips for tiles.
        offsets = self._segments(entries, (_TILE_OFFSETS, _STRIP_OFFSETS), tiled, segments)
        counts = self._segments(entries, (_TILE_COUNTS, _STRIP_COUNTS), tiled, segments)
        compression = integer(_COMPRESSION, 1)
        stored = self.size if self.ndpi else self._stored(offsets, counts)
        if decoded > (MOST_DECODED_PER_STORED if compression != 1 else MOST_SPARSE) * (stored + FREE_BYTES):
            kind = Oversized if is_first else BadDirectory
            raise kind(
                f"a TIFF image has {width} × {height} pixels, but its tiles or strips have only {stored} bytes in all, "
                "which cannot hold them"
            )
        subsampling = self._numbers(entries, _SUBSAMPLING, 2)
        return Directory(
            width=width,
            height=height,
            tile_width=tile_width,
            tile_height=tile_height,
            orientation=integer(_ORIENTATION, 1),
            tiled=tiled,
            bits=bits,
            samples=samples,
            sample_format=of_all_samples(_SAMPLE_FORMAT, 1),
            planar=planar,
            photometric=integer(_PHOTOMETRIC, 0),
            compression=compression,
            predictor=integer(_PREDICTOR, 1),
            subsampling=(2, 2)
            if subsampling is None or len(subsampling) < 2
            else (int(subsampling[0]), int(subsampling[1])),
            subfile_type=integer(_SUBFILE, 0),
            alpha=integer(_EXTRA, 0),
            resolution=self._resolution(entries),
            unit=integer(_UNIT, 2),
            offsets=offsets,
            counts=counts,
            tables=self._bytes(entries, _TABLES),
            icc=self._bytes(entries, _ICC),
            description=_text(self._bytes(entries, _DESCRIPTION)),
            byte_order=self.order,
            page_name=self._page_name(entries),
            imagej=self._imagej(entries),
        )

    def _numbers(self, entries: dict[int, _Entry], tag: int, most: int) -> npt.NDArray[np.int64] | None:
        """Return up to `most` integers of a tag, or None if the tag is missing, empty or of another type."""
        entry = entries.get(tag)
        if entry is None or entry.type not in _INTEGERS or entry.count == 0:
            return None
        code = _TYPES_BIG[entry.type]
        size = struct.calcsize("=" + code)
        if entry.at + entry.count * size > self.size:
            raise Oversized(f"the TIFF tag {tag} claims {entry.count} values, more than the file can hold")
        data = self._read(entry.at, min(entry.count, most) * size)
        values = np.frombuffer(data, np.dtype(code).newbyteorder(self.order))
        if values.dtype.itemsize == 8 and values.max() > np.iinfo(np.int64).max:
            raise BadDirectory(f"the TIFF tag {tag} has the value {values.max()}, which is too large")
        if values.min() < 0:
            raise BadDirectory(f"the TIFF tag {tag} has the value {values.min()}, which is negative")
        return values.astype(np.int64)

    def _segments(
        self, entries: dict[int, _Entry], tags: tuple[int, int], tiled: bool, expected: int
    ) -> npt.NDArray[np.int64]:
        """Return the values of the first of two tags if the image is tiled, else of the second; or of the other one."""
        proper, other = tags if tiled else tags[::-1]
        tag = other if proper not in entries and other in entries else proper
        entry = entries.get(tag)
        if entry is None or entry.count < expected:
            count = 0 if entry is None else entry.count
            raise BadDirectory(f"a TIFF image has {expected} tiles or strips, but its tag {tag} has {count} values")
        values = self._numbers(entries, tag, expected)
        if values is None:
            raise BadDirectory(f"the values of the TIFF tag {tag} are not integers")
        return values

    def _stored(self, offsets: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> int:
        """Return how many bytes of the file tiles or strips have; those that several share count once."""
        in_file = (counts > 0) & (offsets <= self.size - np.minimum(counts, self.size))
        _, first = np.unique(offsets[in_file], return_index=True)
        return int(np.minimum(counts[in_file][first], self.size).sum())

    def _bytes(self, entries: dict[int, _Entry], tag: int) -> bytes | None:
        entry = entries.get(tag)
        if entry is None or entry.type not in (1, 2, 7) or entry.count == 0:
            return None
        if entry.count > MOST_TEXT:
            raise Oversized(f"the TIFF tag {tag} has {entry.count} bytes; at most {MOST_TEXT} are allowed")
        return self._read(entry.at, entry.count)

    def _page_name(self, entries: dict[int, _Entry]) -> str:
        try:
            return _text(self._bytes(entries, _PAGE_NAME))
        except UnreadableSlide:
            return ""  # the image can be read without

    def _imagej(self, entries: dict[int, _Entry]) -> tuple[bytes, ...]:
        try:
            counts = self._numbers(entries, _IMAGEJ_COUNTS, _MOST_IMAGEJ_PARTS)
            data = self._bytes(entries, _IMAGEJ) if counts is not None else None
        except UnreadableSlide:
            return ()  # it only names channels; the image can be read without
        if counts is None or data is None:
            return ()
        ends = np.cumsum(counts)
        return tuple(data[int(end - count) : int(end)] for count, end in zip(counts, ends, strict=True))

    def _resolution(self, entries: dict[int, _Entry]) -> tuple[float, float] | None:
        resolution: list[float] = []
        for tag in (_X_RESOLUTION, _Y_RESOLUTION):
            entry = entries.get(tag)
            if entry is None or entry.count < 1 or entry.type not in (5, 11, 12):
                return None
            code = _TYPES_BIG[entry.type]
            values = struct.unpack(self.order + code, self._read(entry.at, struct.calcsize("=" + code)))
            if entry.type == 5:
                resolution.append(values[0] / values[1] if values[1] else 0.0)
            else:
                resolution.append(float(values[0]))
        return resolution[0], resolution[1]

    def _with_subdirectories(self, known: _Known) -> Directory | BadDirectory:
        """Return a directory of the chain with those below it: levels are at most one step below their image."""
        if not isinstance(known.image, Directory):
            return known.image
        try:
            offsets = self._numbers(known.entries, _SUBDIRECTORIES, MOST_SUBDIRECTORIES)
        except BadDirectory as fault:
            self.faults.append(fault)
            offsets = None
        found: list[Directory] = []
        for offset in () if offsets is None else dict.fromkeys(offsets.tolist()):  # one listed twice is one
            image = self._look_up(offset).image
            if isinstance(image, Directory):
                found.append(image)
            else:
                self.faults.append(image)
        return replace(known.image, subdirectories=tuple(found))


def _text(data: bytes | None) -> str:
    """Decode the text of a tag: ASCII by the standard, UTF-8 in OME-TIFF, anything else in old files."""
    data = (data or b"").split(b"\0", 1)[0]
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
