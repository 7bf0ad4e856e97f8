"""The ledger of a store: the list of finished items, with their checksums. It only grows.

The file is a header (`MAGIC` and the store's generation) and records of 20 bytes, little-endian: item, flags, XXH3-64
of the item's bytes, CRC-32 of the record's first 16 bytes. A record is written after its item is durable. Items come in
any order; if an item has several records, the last one counts. A last record that a kill has cut short does not count,
and the next writer removes it.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import xxhash

from nuclei_segmentation.shared.errors import StoreError
from nuclei_segmentation.shared.runtime.closing import Closing
from nuclei_segmentation.shared.runtime.disk import writing
from nuclei_segmentation.shared.runtime.file_system import sync_file
from nuclei_segmentation.shared.runtime.files import read_at, write_all, write_file
from nuclei_segmentation.shared.runtime.lock import Check
from nuclei_segmentation.shared.store.array import Array
from nuclei_segmentation.shared.store.files import open_store_file

FILE = "ledger"
MAGIC = b"nuclei ledger 1\n"
HEADER = len(MAGIC) + 16
DAMAGED = 1
"""Flag: some of the item's pixels could not be read from the slide."""
MISSING = 2
"""Flag: the item is to be made again; its bytes were found to be corrupt."""

_RECORD = struct.Struct("<IIQI")
_READ = 65536 * _RECORD.size  # bytes at a time
_RECORDS_PER_ITEM, _RECORDS_BESIDES = 100, 10_000  # an item gets one more each time that it is made again
_CHECKED = struct.Struct("<IIQ")


class Entry(NamedTuple):
    """One record of the ledger: item, flags, and XXH3-64 of the item's bytes."""

    item: int
    flags: int
    checksum: int


def checksum(item: Array) -> int:
    """Return the XXH3-64 of an item's bytes.

    It is three times as fast as the fastest CRC-32, and runs without the interpreter lock. Reading a tile takes 200 µs;
    the checksum must cost little in comparison (Collet, "xxHash", 2012-2026, github.com/Cyan4973).
    """
    return xxhash.xxh3_64_intdigest(item.data)


class LedgerWriter(Closing):
    """Appends to a ledger.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    generation : str
        The store's generation, 32 hexadecimal digits.
    items : int
        How many items the store has when it is complete.
    create : bool
        Whether to begin a new ledger. Otherwise the ledger must exist, and is continued in a copy that takes its place:
        an earlier run that was taken for dead may wake up, and write to the file that it has open.
    work : pathlib.Path
        The work folder, on the same file system.
    check : callable
        Called before the copy is renamed.

    Attributes
    ----------
    entries : dict of int to Entry
        The records that the ledger had when it was opened, by item.

    Raises
    ------
    NoSpace
        The disk is full.
    OutputError
        The file cannot be written.
    StoreError
        The file that should exist is missing, is not a ledger, or belongs to another store.
    """

    def __init__(self, path: Path, generation: str, items: int, work: Path, check: Check, *, create: bool) -> None:
        self._path = path
        self.entries: dict[int, Entry] = {}
        if create:
            with writing(path):
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                self._end = HEADER
                write_all(self._file, MAGIC + bytes.fromhex(generation), 0)
                sync_file(self._file, data_only=True)
            return
        with LedgerReader(path, generation, items) as reader:
            reader.poll()
            self.entries, self._end = reader.entries, reader.end
            content = reader.content()
        with writing(path):
            write_file(path, content, work / f"{path.name}.part", check)
        self._file = open_store_file(path, os.O_RDWR)

    def append(self, entries: Iterable[Entry]) -> None:
        """Write records and sync them. One thread at a time may call this."""
        data = b"".join(_RECORD.pack(*entry, zlib.crc32(_CHECKED.pack(*entry))) for entry in entries)
        with writing(self._path):
            write_all(self._file, data, self._end)
            sync_file(self._file, data_only=True)
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
    path : pathlib.Path
        The file.
    generation : str
        The store's generation, 32 hexadecimal digits.
    items : int
        How many items the store has when it is complete.

    Attributes
    ----------
    entries : dict of int to Entry
        The records read so far, by item.
    end : int
        Where the last valid record ends, in bytes.

    Raises
    ------
    StoreError
        The file is missing, is not a ledger, or belongs to another store.
    """

    def __init__(self, path: Path, generation: str, items: int) -> None:
        self._path, self._items, self._generation = path, items, generation
        try:
            self._file = open_store_file(path)
        except OSError as error:
            raise StoreError(f"{path} cannot be opened: {error.strerror}; make the store again") from error
        try:
            _check_header(path, self._read(HEADER, 0), generation)
        except BaseException:
            os.close(self._file)
            raise
        self.end = HEADER
        self.entries: dict[int, Entry] = {}

    def poll(self) -> int:
        """Read new records, and return how many there were.

        Raises
        ------
        StoreError
            A record names an item that the store does not have, there are too many records, or the file cannot be read.
        """
        self._follow()
        size, before = os.fstat(self._file).st_size, self.end
        if size > HEADER + _RECORD.size * (_RECORDS_BESIDES + _RECORDS_PER_ITEM * self._items):
            raise StoreError(
                f"{self._path} has {size} bytes, too many for the records of {self._items} tiles; make the store again"
            )
        while self.end < size:
            data = self._read(min(size - self.end, _READ), self.end)
            found = parse(data)
            for entry in found:
                if entry.item >= self._items:
                    raise StoreError(f"{self._path} names tile {entry.item} of {self._items}; make the store again")
                if entry.flags & MISSING:
                    self.entries.pop(entry.item, None)
                else:
                    self.entries[entry.item] = entry
            self.end += len(found) * _RECORD.size
            if len(found) * _RECORD.size < _READ:
                break
        return (self.end - before) // _RECORD.size

    def content(self) -> bytes:
        """Return the file up to the end of the last valid record."""
        return self._read(self.end, 0)

    def why_incomplete(self) -> str:
        """Return why the ledger does not name all items; an empty text if it does."""
        if len(self.entries) == self._items:
            return ""
        missing = next(item for item in range(self._items) if item not in self.entries)
        record = (self.end - HEADER) // _RECORD.size
        return f"{self._path} has no valid record of tile {missing}; record {record} is corrupt or missing"

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _follow(self) -> None:
        """Open the file that a resumed run has put in the place of this one; it begins with the same records.

        If it is the ledger of another store, the manifest tells that too, and the reader notices.
        """
        try:
            if os.path.samestat(self._path.lstat(), os.fstat(self._file)):
                return
            file = open_store_file(self._path)
        except (FileNotFoundError, NotADirectoryError):
            return
        if os.pread(file, HEADER, 0) == MAGIC + bytes.fromhex(self._generation):
            file, self._file = self._file, file
        os.close(file)

    def _read(self, length: int, offset: int) -> bytes:
        try:
            return read_at(self._file, max(0, length), offset)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be read: {error.strerror}; make the store again") from error


def records(path: Path) -> int:
    """Return about how many records a ledger has, judged by its length; 0 if there is no such file."""
    try:
        return max(0, path.stat().st_size - HEADER) // _RECORD.size
    except OSError:
        return 0


def parse(data: bytes) -> list[Entry]:
    """Return the records before the first that is incomplete or invalid."""
    found = []
    for start in range(0, len(data) - _RECORD.size + 1, _RECORD.size):
        *checked, crc32 = _RECORD.unpack_from(data, start)
        if zlib.crc32(_CHECKED.pack(*checked)) != crc32:
            break
        found.append(Entry(*checked))
    return found


def _check_header(path: Path, content: bytes, generation: str) -> None:
    if content[: len(MAGIC)] != MAGIC:
        raise StoreError(f"{path} is not a ledger; make the store again")
    if content[len(MAGIC) : HEADER] != bytes.fromhex(generation):
        raise StoreError(f"{path} belongs to another store than the manifest in its folder; make the store again")
