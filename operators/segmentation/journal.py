"""The journal of a fused run: the maps computed so far, in one append-only file. A resumed run reads them from there.

The file is `MAGIC` and records: tile id, length of the payload, checksum, payload. The payload is the tile's maps,
compressed with zstd, or empty if they are all zeros. A record counts if it is complete and its checksum is right.
Whatever follows the first record that does not count is cut off.
"""

from __future__ import annotations

import math
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
from nuclei_segmentation.shared.runtime.files import write_all
from nuclei_segmentation.shared.runtime.folder import create_file, open_file

MAGIC = b"nuclei maps 1\n\0\0"
HEADER = struct.Struct("<QII")
SYNC_SECONDS = 5.0
"""How often records are synced. A power cut costs at most this many seconds of inference."""


class Journal(Closing):
    """The maps of one run, by tile id.

    Parameters
    ----------
    path : pathlib.Path
        The file. It is made if it does not exist.
    shape : tuple of int
        (T, T, channels) of every tile's maps.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self._shape = shape
        self._lock = threading.Lock()
        try:
            self._file = open_file(path, os.O_RDWR)
        except FileNotFoundError:
            self._file = create_file(path)
        self._offsets: dict[int, int] = {}
        self._end = self._scan()
        self._synced = time.monotonic()

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def size(self) -> int:
        """Size of the file in bytes."""
        return self._end

    def __contains__(self, tile_id: int) -> bool:
        return tile_id in self._offsets

    def get(self, tile_id: int) -> Pixels | None:
        """Return the maps of a tile, (T, T, channels) uint8; None if the journal does not have them."""
        offset = self._offsets.get(tile_id)
        if offset is None:
            return None
        _, size, _ = HEADER.unpack(os.pread(self._file, HEADER.size, offset))
        if not size:
            return np.zeros(self._shape, np.uint8)
        data = imagecodecs.zstd_decode(os.pread(self._file, size, offset + HEADER.size), out=math.prod(self._shape))
        return np.frombuffer(data, np.uint8).reshape(self._shape)

    def add(self, tile_id: int, maps: Pixels) -> None:
        """Add the maps of a tile.

        Parameters
        ----------
        tile_id : int
            The tile.
        maps : Pixels
            (T, T, channels) uint8.
        """
        # Many maps are all zeros: they get no payload, which saves the time to compress them.
        payload = bytes(imagecodecs.zstd_encode(maps.tobytes(), level=1)) if maps.max() else b""
        record = HEADER.pack(tile_id, len(payload), _checksum(tile_id, payload)) + payload
        with self._lock:
            if self._file < 0:
                return  # a server has answered late, after the end of the run
            write_all(self._file, record, self._end)
            self._offsets[tile_id] = self._end
            self._end += len(record)
            if time.monotonic() - self._synced > SYNC_SECONDS:
                self._synced = time.monotonic()
                os.fdatasync(self._file)

    def close(self) -> None:
        """Sync and close the file; maps that are added later are dropped."""
        with self._lock:
            if self._file >= 0:
                os.fdatasync(self._file)
                os.close(self._file)
                self._file = -1

    def _scan(self) -> int:
        """Find the records that count, cut off what follows them, and return where the next one goes."""
        length = os.fstat(self._file).st_size
        end = len(MAGIC)
        if os.pread(self._file, len(MAGIC), 0) != MAGIC:
            os.ftruncate(self._file, 0)
            write_all(self._file, MAGIC, 0)
            return end
        while end + HEADER.size <= length:
            tile_id, size, checksum = HEADER.unpack(os.pread(self._file, HEADER.size, end))
            payload = os.pread(self._file, size, end + HEADER.size) if size <= length - end else b""
            if len(payload) != size or _checksum(tile_id, payload) != checksum:
                break
            self._offsets[tile_id] = end
            end += HEADER.size + size
        os.ftruncate(self._file, end)
        return end


def _checksum(tile_id: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(tile_id.to_bytes(8, "little")))
