"""The journal of a fused run: the maps computed so far, in one append-only file. A resumed run reads them from there.

The file is `MAGIC` and records: tile id, length of the payload, checksum, payload. The payload is the tile's maps,
compressed with zstd, or empty if they are all zeros. A record counts if it is complete and its checksum is right.
Whatever follows the first record that does not count is cut off.
"""

from __future__ import annotations

import logging
import math
import os
import struct
import threading
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import imagecodecs
import numpy as np

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.errors import OutputError
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.file_system import sync_file
from nuclei_segmentation.shared.runtime.files import read_at, write_all
from nuclei_segmentation.shared.runtime.folder import create_file, open_file

log = logging.getLogger(__name__)

MAGIC = b"nuclei maps 1\n\0\0"
HEADER = struct.Struct("<QII")
SYNC_SECONDS = 5.0
"""How often records are synced. A power cut costs at most this many seconds of inference."""


class _Record(NamedTuple):
    """A tile's id, and its maps, compressed."""

    tile_id: int
    payload: bytes


class Journal(Closing):
    """The maps of one run, by tile id.

    Parameters
    ----------
    path : pathlib.Path
        The file. It is made if it does not exist.
    shape : tuple of int
        (T, T, channels) of every tile's maps.

    Raises
    ------
    NoSpace
        The disk is full.
    OutputError
        The file cannot be read or written.
    """

    def __init__(self, path: Path, shape: tuple[int, int, int]) -> None:
        self._path, self._shape = path, shape
        self._lock = threading.Lock()
        with writing(path):
            try:
                self._file = open_file(path, os.O_RDWR)
            except FileNotFoundError:
                self._file = create_file(path)
        self._offsets: dict[int, int] = {}
        try:
            self._end = self._scan()
        except BaseException:
            os.close(self._file)
            raise
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
        """Return the maps of a tile, (T, T, channels) uint8; None if the journal does not have them.

        Nor does it have them if they can no longer be read as they were written: they are then inferred again.
        """
        offset = self._offsets.get(tile_id)
        if offset is None:
            return None
        try:
            record = self._record(offset)
            if record is None:
                log.warning("%s has changed at byte %d; a tile is inferred again", self._path, offset)
                return None
            if not record.payload:
                return np.zeros(self._shape, np.uint8)
            data = imagecodecs.zstd_decode(record.payload, out=math.prod(self._shape))
            return np.frombuffer(data, np.uint8).reshape(self._shape)
        except (OSError, imagecodecs.ZstdError, ValueError) as error:  # ValueError: maps of another size
            log.warning("%s cannot be read at byte %d (%s); a tile is inferred again", self._path, offset, error)
            return None

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
                sync_file(self._file, data_only=True)

    def close(self) -> None:
        """Sync and close the file; maps that are added later are dropped."""
        with self._lock:
            if self._file >= 0:
                sync_file(self._file, data_only=True)
                os.close(self._file)
                self._file = -1

    def _scan(self) -> int:
        """Find the records that count, cut off what follows them, and return where the next one goes."""
        end = len(MAGIC)
        try:
            ours = read_at(self._file, len(MAGIC), 0) == MAGIC
            while ours and (record := self._record(end)) is not None:
                self._offsets[record.tile_id] = end
                end += HEADER.size + len(record.payload)
        except OSError as error:  # nothing is cut off: what follows may be sound
            raise OutputError(
                f"{self._path}, the maps of an earlier run, cannot be read at byte {end}: {error.strerror}; run the "
                "same command again, use another output folder, or delete this file to infer everything again"
            ) from error
        with writing(self._path):
            os.ftruncate(self._file, end if ours else 0)
            if not ours:
                write_all(self._file, MAGIC, 0)
        return end

    def _record(self, offset: int) -> _Record | None:
        """Return the record at a place in the file; None if it does not count."""
        header = read_at(self._file, HEADER.size, offset)
        if len(header) < HEADER.size:
            return None
        tile_id, size, checksum = HEADER.unpack(header)
        if size > os.fstat(self._file).st_size - offset - HEADER.size:
            return None  # memory is reserved for no more than the file has
        payload = read_at(self._file, size, offset + HEADER.size)
        return _Record(tile_id, payload) if _checksum(tile_id, payload) == checksum else None


def _checksum(tile_id: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(tile_id.to_bytes(8, "little")))
