"""The ledger of a store: which items are there, with their checksums. It only ever grows.

A header (`MAGIC` and the store's generation), then records of 16 bytes, little-endian: item, flags, CRC-32 of the
item's bytes, CRC-32 of the record's first 12 bytes. A record is written after its item is durable. Items come in any
order. What a kill left of the last record does not count, and is cut off when the store's writer comes back.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import imagecodecs

from shared.closing import Closing
from shared.disk import writing
from shared.errors import StoreError
from shared.store.array import Array, write_all

FILE = "ledger"
MAGIC = b"nuclei ledger 1\n"
HEADER = len(MAGIC) + 16
DAMAGED = 1
"""Flag: part of the item's pixels could not be read from the slide."""

_RECORD = struct.Struct("<IIII")
_FACTS = struct.Struct("<III")


class Entry(NamedTuple):
    """What the ledger says of an item."""

    item: int
    flags: int
    checksum: int


def checksum(item: Array) -> int:
    """Return the CRC-32 of an item's bytes, as zlib has it; this one is four times faster."""
    return int(imagecodecs.deflate_crc32(item.data))  # type: ignore[arg-type] # it takes any buffer


class LedgerWriter(Closing):
    """Appends to a ledger.

    Parameters
    ----------
    path
        The file.
    generation
        The store's, 32 hexadecimal digits.
    create
        Begin a new one, else go on with the one that is there.

    Attributes
    ----------
    entries
        What it held when it was opened, by item.
    """

    def __init__(self, path: Path, generation: str, *, create: bool) -> None:
        self._path = path
        self.entries: dict[int, Entry] = {}
        with writing(path):
            if create:
                path.unlink(missing_ok=True)
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                self._end = HEADER
                write_all(self._file, MAGIC + bytes.fromhex(generation), 0)
                os.fdatasync(self._file)
                return
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        content = path.read_bytes()
        check_header(path, content, generation)
        entries, self._end = parse(content[HEADER:], HEADER)
        self.entries = {entry.item: entry for entry in entries}
        with writing(path):
            os.ftruncate(self._file, self._end)

    def append(self, entries: Iterable[Entry]) -> None:
        """Write records, and force them to the disk. One thread at a time."""
        data = b"".join(_RECORD.pack(*entry, zlib.crc32(_FACTS.pack(*entry))) for entry in entries)
        with writing(self._path):
            write_all(self._file, data, self._end)
            os.fdatasync(self._file)
        self._end += len(data)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class LedgerReader(Closing):
    """Follows a ledger while it grows.

    Parameters
    ----------
    path
        The file.
    generation
        The store's.
    """

    def __init__(self, path: Path, generation: str) -> None:
        self._path = path
        try:
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened: {error.strerror}; make the store again") from error
        check_header(path, os.pread(self._file, HEADER, 0), generation)
        self._end = HEADER
        self.entries: dict[int, Entry] = {}

    def poll(self) -> int:
        """Take in what is new; return how many items that was."""
        data = os.pread(self._file, max(0, os.fstat(self._file).st_size - self._end), self._end)
        entries, self._end = parse(data, self._end)
        before = len(self.entries)
        self.entries.update((entry.item, entry) for entry in entries)
        return len(self.entries) - before

    def why_incomplete(self, items: int) -> str:
        """Return what is wrong with the ledger of a finished store of so many items; empty if nothing is."""
        missing = next((item for item in range(items) if item not in self.entries), None)
        if missing is None:
            return ""
        record = (self._end - HEADER) // _RECORD.size
        return f"{self._path}: no valid record of tile {missing}; record {record} is damaged, or missing"

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def check_header(path: Path, content: bytes, generation: str) -> None:
    """Raise `StoreError` unless a ledger begins as one of that generation does."""
    if content[: len(MAGIC)] != MAGIC:
        raise StoreError(f"{path} is not a ledger; make the store again")
    if content[len(MAGIC) : HEADER] != bytes.fromhex(generation):
        raise StoreError(f"{path} belongs to another store than the manifest beside it; make the store again")


def parse(data: bytes, place: int) -> tuple[list[Entry], int]:
    """Return the records up to the first that is not valid, and the place in the file behind them."""
    found = []
    for start in range(0, len(data) - _RECORD.size + 1, _RECORD.size):
        *facts, check = _RECORD.unpack_from(data, start)
        if zlib.crc32(_FACTS.pack(*facts)) != check:
            break
        found.append(Entry(*facts))
    return found, place + len(found) * _RECORD.size
