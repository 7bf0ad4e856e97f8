"""Decodes stored JPEG tiles of a TIFF file to RGB pixels.

A TIFF file keeps the quantisation and Huffman tables that all tiles share outside the tiles. Here they are inserted
into the header of a tile, so that a plain JPEG decoder can read it: libjpeg-turbo, through simplejpeg. Unlike other
bindings, simplejpeg reports the warnings that libjpeg prints and ignores. Often a warning is the only sign of a flipped
bit or of missing data, while the pixels still look like an image. OpenSlide treats warnings as errors for the same
reason.

Whether three components are RGB or YCbCr, a TIFF tag says, and often the JPEG data say it too. Where the two disagree,
the JPEG data are right: the tag is copied from one file to the next by programs that never decode a tile. The evidence,
strongest first: a JFIF or Adobe marker in the tile; one in the shared tables; components that are named R, G and B;
chroma of a lower resolution, which RGB never has; and last the tag.

Where the tag is right, the pixels equal those of OpenSlide, byte for byte: the same library, with the slow integer
transform and fancy upsampling. (OpenSlide believes the tag alone.)
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # it has no stubs

from nuclei_segmentation.shared.batches import Pixels

GREY, RGB, YCBCR = 1, 2, 6  # TIFF's numbers for the photometric interpretation
MOST_SCANS: Final = 100  # in a progressive JPEG; each takes a pass over the tile

_PROGRESSIVE: Final = 0xC2
_EOI, _SOS, _DHT, _DQT, _DRI, _COM = 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xFE
_JFIF, _ADOBE = 0xE0, 0xEE  # application markers 0 and 14
_FRAMES: Final = frozenset({0xC0, 0xC1, _PROGRESSIVE})  # with baseline and extended: all kinds that are decoded here
_COLOUR: Final = {  # Adobe's marker; its last byte tells whether the colours are transformed
    GREY: b"",
    RGB: b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00",
    YCBCR: b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01",
}


class BadJpeg(Exception):
    """A tile cannot be decoded correctly. Does not leave this package."""


class _Header(NamedTuple):
    """The header of a JPEG image, or of the tables that several share."""

    parts: list[bytes]
    """The marker segments that decoding needs, in order. Application markers and comments are omitted, since some of
    them would set the colour space."""
    frame: bytes | None
    """The frame header, which is one of the parts."""
    scan: int | None
    """Where in the data the first scan starts."""
    colours: int | None
    """`RGB` or `YCBCR`, as an application marker says, if there is one."""


class JpegDecoder:
    """Decodes the tiles of one TIFF directory. Several threads may use it at the same time.

    Parameters
    ----------
    tables : bytes or None
        The JPEG tables that all tiles of the directory share, or None.
    photometric : int
        `RGB` or `YCBCR` for three stored components, `GREY` for one. Of the first two, the JPEG data may know better.
    width, height : int
        Size of a tile in pixels. A JPEG of another size is an error.

    Raises
    ------
    BadJpeg
        The shared tables are broken.
    """

    def __init__(self, tables: bytes | None, photometric: int, width: int, height: int) -> None:
        self._photometric, self._tables, self._colours = photometric, b"", None
        if tables:
            header = _header(tables)
            # A restart interval applies to one image only: libjpeg resets it at the start of the tile's own data.
            self._tables = b"".join(part for part in header.parts if part[1] in (_DHT, _DQT))
            self._colours = header.colours
        self._width, self._height = width, height
        self._last_header = b"", b""
        # The frame header from the size on, up to the number of components. Their sampling, which follows, may vary.
        self._frame = (
            height.to_bytes(2, "big") + width.to_bytes(2, "big") + (b"\x01" if photometric == GREY else b"\x03")
        )

    def decode(self, segment: bytes, out: Pixels | None = None) -> Pixels:
        """Decode a tile.

        Parameters
        ----------
        segment : bytes
            The stored bytes of the tile.
        out : numpy.ndarray or None, optional
            (height, width, 3) uint8, C-contiguous; receives the pixels. None: a new array.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8 RGB.

        Raises
        ------
        BadJpeg
            The tile cannot be decoded correctly.
        """
        # A buffer of the expected size keeps the decoder from allocating memory for the size that the image claims.
        pixels = np.empty((self._height, self._width, 3), np.uint8) if out is None else out
        try:
            simplejpeg.decode_jpeg(self._standalone(segment), "RGB", buffer=pixels)
        except ValueError as error:
            raise BadJpeg(str(error)) from None
        return pixels

    def decode_scaled(self, segment: bytes, factor: int) -> Pixels:
        """Decode a tile at a reduced size.

        Parameters
        ----------
        segment : bytes
            The stored bytes of the tile.
        factor : int
            The downsample: 1, 2, 4 or 8.

        Returns
        -------
        numpy.ndarray
            (⌈height / factor⌉, ⌈width / factor⌉, 3) uint8 RGB.

        Raises
        ------
        BadJpeg
            The tile cannot be decoded correctly.
        """
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(
                self._standalone(segment),
                "RGB",
                min_height=-(-self._height // factor),
                min_width=-(-self._width // factor),
                min_factor=factor,
            )
        except ValueError as error:
            raise BadJpeg(str(error)) from None
        if pixels.shape != (-(-self._height // factor), -(-self._width // factor), 3):
            raise BadJpeg(f"it was decoded to the shape {pixels.shape}")
        return pixels

    def colours(self, segment: bytes) -> int:
        """Return what the components of a tile are: `GREY`, `RGB` or `YCBCR`.

        Parameters
        ----------
        segment : bytes
            The stored bytes of the tile.

        Raises
        ------
        BadJpeg
            The header of the tile is broken.
        """
        return self._colours_of(_header(segment))

    def _colours_of(self, header: _Header) -> int:
        if self._photometric == GREY:
            return GREY
        stated = header.colours or self._colours
        if stated is not None or header.frame is None:
            return stated or self._photometric
        components = header.frame[10:]  # three bytes each: name, sampling, quantisation table
        if components[0::3] == b"RGB":
            return RGB
        return YCBCR if len(set(components[1::3])) > 1 else self._photometric

    def _standalone(self, segment: bytes) -> bytes:
        """Return the tile as a complete JPEG image."""
        stored, checked = self._last_header
        if stored and segment.startswith(stored) and segment[len(stored) : len(stored) + 2] == b"\xff\xda":
            return checked + segment[len(stored) :]
        header = _header(segment)
        frame, scan = header.frame, header.scan
        if frame is None or scan is None:
            raise BadJpeg("it contains no image")
        if frame[5:10] != self._frame:
            size = (int.from_bytes(frame[7:9], "big"), int.from_bytes(frame[5:7], "big"))
            raise BadJpeg(f"an image of {size[0]} × {size[1]} pixels in a tile of {self._width} × {self._height}")
        head = b"".join((b"\xff\xd8", _COLOUR[self._colours_of(header)], self._tables, *header.parts))
        if frame[1] == _PROGRESSIVE:
            if segment.count(b"\xff\xda", scan) > MOST_SCANS:
                raise BadJpeg(f"it has more than {MOST_SCANS} scans")
        else:
            # The next tile usually has the same header. The tuple is replaced in one step, which is safe among threads.
            self._last_header = segment[:scan], head
        return head + segment[scan:]


def _header(data: bytes) -> _Header:
    """Split a JPEG header."""
    if data[:2] != b"\xff\xd8":
        raise BadJpeg("it is not a JPEG image")
    parts: list[bytes] = []
    frame = jfif = adobe = None
    at, end = 2, len(data)
    while at + 4 <= end:
        if data[at] != 0xFF:
            raise BadJpeg("a marker is missing")
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes before a marker are allowed
            at += 1
            continue
        if marker == _SOS:
            return _Header(parts, frame, at, jfif or adobe)  # where both are there, libjpeg believes JFIF, as we do
        if marker == _EOI:
            break
        after = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if after > end:
            raise BadJpeg("its header is incomplete")
        content = data[at + 4 : after]
        if marker in _FRAMES:
            frame = data[at:after]
            if len(frame) < 10 or frame[4] != 8:
                raise BadJpeg("it does not have 8 bits per sample")
            parts.append(frame)
        elif marker in (_DHT, _DQT, _DRI):
            parts.append(data[at:after])
        elif marker == _JFIF and content.startswith(b"JFIF\0"):
            jfif = YCBCR
        elif marker == _ADOBE and content.startswith(b"Adobe") and len(content) >= 12:
            adobe = YCBCR if content[11] else RGB
        elif not (0xE0 <= marker <= 0xEF or marker == _COM):
            raise BadJpeg(f"the marker {marker:#x} is not supported")
        at = after
    return _Header(parts, frame, None, jfif or adobe)
