"""Maps inferred so far, in one append-only file: what a restarted run need not infer again.

The file starts with `MAGIC`; then come records: tile number, payload length, checksum, payload: the tile's maps, zstd,
or nothing where they are all zeros. A record counts only if it is whole and its checksum holds; what follows the first
one that does not is cut off.
"""

from __future__ import annotations

import os
import struct
import threading
import time
import zlib
from pathlib import Path

import imagecodecs
import numpy as np

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.runtime.closing import Closing

MAGIC = b"nuclei maps 1\n\0\0"
HEADER = struct.Struct("<QII")
SYNC_SECONDS = 5.0
"""How often records are forced to the disk. After a power cut, at most so many seconds of inference are lost."""


class Journal(Closing):
    """The maps of one run.

    Parameters
    ----------
    path : pathlib.Path
        The file; made if it does not exist.
    shape : tuple of int
        (T, T, C) of every tile's maps.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._places: dict[int, int] = {}
        self._end = self._scan()
        self._synced = time.monotonic()

    def __len__(self) -> int:
        return len(self._places)

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self._end

    def __contains__(self, tile_id: int) -> bool:
        return tile_id in self._places

    def get(self, tile_id: int) -> Pixels | None:
        """Return the (T, T, C) uint8 maps of a tile, or None if they are not kept."""
        place = self._places.get(tile_id)
        if place is None:
            return None
        _, size, _ = HEADER.unpack(os.pread(self._file, HEADER.size, place))
        if not size:
            return np.zeros(self._shape, np.uint8)
        data = imagecodecs.zstd_decode(os.pread(self._file, size, place + HEADER.size), out=self._size())
        return np.frombuffer(data, np.uint8).reshape(self._shape)

    def add(self, tile_id: int, maps: Pixels) -> None:
        """Keep the (T, T, C) uint8 maps of a tile."""
        # maps of zeros, of which there are many, need no payload, and no time for it
        payload = bytes(imagecodecs.zstd_encode(maps.tobytes(), level=1)) if maps.max() else b""
        record = HEADER.pack(tile_id, len(payload), _checksum(tile_id, payload)) + payload
        with self._lock:
            if self._file < 0:
                return  # a late answer of a server, when the run has ended already
            _write(self._file, record, self._end)
            self._places[tile_id] = self._end
            self._end += len(record)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._synced = time.monotonic()
                os.fdatasync(self._file)

    def close(self) -> None:
        """Force everything to the disk and close the file; what is added later is dropped."""
        with self._lock:
            if self._file >= 0:
                os.fdatasync(self._file)
                os.close(self._file)
                self._file = -1

    def _size(self) -> int:
        return int(np.prod(self._shape))

    def _scan(self) -> int:
        """Find the whole records, cut off what follows them, and return where the next one goes."""
        length = os.fstat(self._file).st_size
        end = len(MAGIC)
        if os.pread(self._file, len(MAGIC), 0) != MAGIC:
            os.ftruncate(self._file, 0)
            _write(self._file, MAGIC, 0)
            return end
        while end + HEADER.size <= length:
            tile_id, size, checksum = HEADER.unpack(os.pread(self._file, HEADER.size, end))
            payload = os.pread(self._file, size, end + HEADER.size) if size <= length - end else b""
            if len(payload) != size or _checksum(tile_id, payload) != checksum:
                break
            self._places[tile_id] = end
            end += HEADER.size + size
        os.ftruncate(self._file, end)
        return end


def _checksum(tile_id: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(tile_id.to_bytes(8, "little")))


def _write(file: int, data: bytes, place: int) -> None:
    """Write all of `data`; a write to a disk that is nearly full may take only a part of it."""
    while data:
        done = os.pwrite(file, data, place)
        data, place = data[done:], place + done
