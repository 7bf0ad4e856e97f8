"""Stored JPEG tiles of a TIFF file to RGB pixels.

TIFF keeps the quantisation and Huffman tables that all tiles share apart from the tiles, and says in a tag of its own
whether three components are RGB or YCbCr, whatever the markers inside the JPEG data say. Here both are put into the
tile's header, so that a plain JPEG decoder reads it: libjpeg-turbo, through simplejpeg, which unlike other bindings
reports the warnings that libjpeg prints and forgets. A flipped bit or a lost end mostly shows as such a warning only,
over pixels that look like an image; OpenSlide treats them as errors for the same reason.

The pixels are those of OpenSlide, byte for byte: the same library, the slow integer transform, fancy upsampling.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import simplejpeg  # type: ignore[import-untyped]  # it has no stubs

from nuclei_segmentation.shared.batches import Pixels

GREY, RGB, YCBCR = 1, 2, 6  # TIFF's numbers for the photometric interpretation
MOST_SCANS: Final = 100  # of a progressive JPEG; each costs a pass over the tile

_PROGRESSIVE: Final = 0xC2
_EOI, _SOS, _DHT, _DQT, _DRI, _COM = 0xD9, 0xDA, 0xC4, 0xDB, 0xDD, 0xFE
_FRAMES: Final = frozenset({0xC0, 0xC1, _PROGRESSIVE})  # and baseline and extended: all that libjpeg decodes here
_COLOUR: Final = {  # Adobe's marker, whose last byte says whether there is a colour transform
    GREY: b"",
    RGB: b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00",
    YCBCR: b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01",
}


class BadJpeg(Exception):
    """The tile cannot be decoded, or only to pixels that are not the slide's. Never leaves this package."""


class JpegDecoder:
    """Decodes the tiles of one TIFF directory. Any thread may use it at any time.

    Parameters
    ----------
    tables : bytes or None
        The directory's shared JPEG tables, or None.
    photometric : int
        `RGB` or `YCBCR`: what the three stored components are; or `GREY`: there is one.
    width, height : int
        Size of a tile in pixels. A JPEG of another size is bad, not cropped.

    Raises
    ------
    BadJpeg
        The shared tables are broken.
    """

    def __init__(self, tables: bytes | None, photometric: int, width: int, height: int) -> None:
        self._head = b"\xff\xd8" + _COLOUR[photometric]
        if tables:
            parts, _, _ = _parts(tables)
            # A restart interval holds for one image only: libjpeg forgets it at the start of the tile's own data.
            self._head += b"".join(part for part in parts if part[1] in (_DHT, _DQT))
        self._width, self._height = width, height
        self._last = b"", b""
        # The frame header from the size on; behind the number of components comes their sampling.
        self._frame = (
            height.to_bytes(2, "big") + width.to_bytes(2, "big") + (b"\x01" if photometric == GREY else b"\x03")
        )

    def decode(self, segment: bytes, out: Pixels | None = None) -> Pixels:
        """Return a tile's pixels.

        Parameters
        ----------
        segment : bytes
            The stored bytes.
        out : numpy.ndarray or None, optional
            (height, width, 3) uint8, C-contiguous; takes the pixels. None: a new array.

        Returns
        -------
        numpy.ndarray
            (height, width, 3) uint8 RGB.

        Raises
        ------
        BadJpeg
            Anything is wrong with it.
        """
        # A buffer of our own: the decoder's size check is then ours, and never its allocation.
        pixels = np.empty((self._height, self._width, 3), np.uint8) if out is None else out
        try:
            simplejpeg.decode_jpeg(self._whole(segment), "RGB", buffer=pixels)
        except ValueError as error:
            raise BadJpeg(str(error)) from None
        return pixels

    def decode_scaled(self, segment: bytes, factor: int) -> Pixels:
        """Return a tile's pixels, made smaller while decoding.

        Parameters
        ----------
        segment : bytes
            The stored bytes.
        factor : int
            1, 2, 4 or 8.

        Returns
        -------
        numpy.ndarray
            (⌈height / factor⌉, ⌈width / factor⌉, 3) uint8 RGB.

        Raises
        ------
        BadJpeg
            Anything is wrong with it.
        """
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(
                self._whole(segment),
                "RGB",
                min_height=-(-self._height // factor),
                min_width=-(-self._width // factor),
                min_factor=factor,
            )
        except ValueError as error:
            raise BadJpeg(str(error)) from None
        if pixels.shape != (-(-self._height // factor), -(-self._width // factor), 3):
            raise BadJpeg(f"the decoder made {pixels.shape} of it")
        return pixels

    def _whole(self, segment: bytes) -> bytes:
        """Return the tile as a JPEG image that stands alone."""
        stored, checked = self._last
        if stored and segment.startswith(stored) and segment[len(stored) : len(stored) + 2] == b"\xff\xda":
            return checked + segment[len(stored) :]
        parts, frame, scan = _parts(segment)
        if frame is None or scan is None:
            raise BadJpeg("no image in it")
        if frame[5:10] != self._frame:
            size = (int.from_bytes(frame[7:9], "big"), int.from_bytes(frame[5:7], "big"))
            raise BadJpeg(f"{size[0]} × {size[1]} pixels in a tile of {self._width} × {self._height}")
        if frame[1] == _PROGRESSIVE:
            if segment.count(b"\xff\xda", scan) > MOST_SCANS:
                raise BadJpeg(f"more than {MOST_SCANS} scans")
        else:
            # The next tile mostly begins with the same bytes. One tuple, set in one step: threads may do it at once.
            self._last = segment[:scan], b"".join((self._head, *parts))
        return b"".join((self._head, *parts, segment[scan:]))


def _parts(data: bytes) -> tuple[list[bytes], bytes | None, int | None]:
    """Split a JPEG header.

    Returns
    -------
    tuple
        The markers that matter for decoding, in their order, with the frame header, and where the first scan starts.
        Application markers and comments are left out: some of them would set the colour space.
    """
    if data[:2] != b"\xff\xd8":
        raise BadJpeg("not a JPEG image")
    parts: list[bytes] = []
    frame = None
    at, end = 2, len(data)
    while at + 4 <= end:
        if data[at] != 0xFF:
            raise BadJpeg("a marker is missing")
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes before a marker are allowed
            at += 1
            continue
        if marker == _SOS:
            return parts, frame, at
        if marker == _EOI:
            break
        after = at + 2 + (data[at + 2] << 8 | data[at + 3])
        if after > end:
            raise BadJpeg("a header that does not end")
        if marker in _FRAMES:
            frame = data[at:after]
            if len(frame) < 10 or frame[4] != 8:
                raise BadJpeg("not 8 bits a sample")
            parts.append(frame)
        elif marker in (_DHT, _DQT, _DRI):
            parts.append(data[at:after])
        elif not (0xE0 <= marker <= 0xEF or marker == _COM):
            raise BadJpeg(f"a marker {marker:#x} that is not supported")
        at = after
    return parts, frame, None
