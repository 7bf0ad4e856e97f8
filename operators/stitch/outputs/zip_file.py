"""Zip files that are the same on every machine: `zipfile` compresses with whichever zlib the machine has."""

from __future__ import annotations

import struct
import zlib

from nuclei_segmentation.operators.stitch.outputs.gzip_file import deflated
from nuclei_segmentation.operators.stitch.outputs.new_file import NewFile

_DATE = 0, 0x21  # time and date as MS-DOS had them: midnight, 1 January 1980, the first there is
_DEFLATED = 8
_UNIX = 3 << 8
_RIGHTS = 0o100644 << 16
_VERSION, _VERSION_64 = 20, 45
_LIMIT, _MANY = 0xFFFFFFFF, 0xFFFF


class ZipFile:
    """Writes entries to a file, one after the other. In memory it keeps some hundred bytes for each.

    Parameters
    ----------
    file : NewFile
        The file. It stays open.
    """

    def __init__(self, file: NewFile) -> None:
        self._file = file
        self._directory: list[bytes] = []

    def add(self, name: str, content: bytes | bytearray) -> None:
        """Write an entry.

        Parameters
        ----------
        name : str
            Its name, in ASCII.
        content : bytes or bytearray
            Less than 4 GiB.
        """
        offset, data, encoded = self._file.tell(), deflated(content), name.encode("ascii")
        facts = struct.pack("<HHHHLLL", 0, _DEFLATED, *_DATE, zlib.crc32(content), len(data), len(content))
        extra = struct.pack("<HHQ", 1, 8, offset) if offset >= _LIMIT else b""
        version = _VERSION_64 if extra else _VERSION
        self._file.write(struct.pack("<4sH", b"PK\x03\x04", _VERSION) + facts + struct.pack("<HH", len(encoded), 0))
        self._file.write(encoded)
        self._file.write(data)
        self._directory.append(
            struct.pack("<4sHH", b"PK\x01\x02", _UNIX | version, version)
            + facts
            + struct.pack("<HHHHHLL", len(encoded), len(extra), 0, 0, 0, _RIGHTS, min(offset, _LIMIT))
            + encoded
            + extra
        )

    def finish(self) -> None:
        """Write the directory of the entries."""
        start, count = self._file.tell(), len(self._directory)
        directory = b"".join(self._directory)
        self._file.write(directory)
        end = self._file.tell()
        if start >= _LIMIT or count >= _MANY:
            self._file.write(
                struct.pack(
                    "<4sQHHLLQQQQ",
                    *(b"PK\x06\x06", 44, _UNIX | _VERSION_64, _VERSION_64, 0, 0, count, count, len(directory), start),
                )
                + struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
            )
        few = min(count, _MANY)
        self._file.write(
            struct.pack("<4sHHHHLLH", b"PK\x05\x06", 0, 0, few, few, len(directory), min(start, _LIMIT), 0)
        )
