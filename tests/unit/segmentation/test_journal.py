"""The journal: what was added is there after any kill; what is torn or flipped is not."""

from __future__ import annotations

import os
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.operators.segmentation.journal import HEADER, MAGIC, Journal

SHAPE = (16, 16, 2)


def maps(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, np.uint8)


def test_maps_come_back_as_they_went_in_also_after_reopening(tmp_path: Path) -> None:
    with Journal(tmp_path / "maps", SHAPE) as journal:
        assert journal.get(3) is None
        for index in (3, 0, 7):
            journal.add(index, maps(index))
    with Journal(tmp_path / "maps", SHAPE) as journal:
        assert len(journal) == 3
        assert 7 in journal
        assert 1 not in journal
        for index in (3, 0, 7):
            found = journal.get(index)
            assert found is not None
            np.testing.assert_array_equal(found, maps(index))
        assert journal.get(1) is None


def test_maps_of_zeros_take_no_room(tmp_path: Path) -> None:
    with Journal(tmp_path / "maps", SHAPE) as journal:
        for index in range(10):
            journal.add(index, np.zeros(SHAPE, np.uint8))
        assert journal.size == len(MAGIC) + 10 * HEADER.size
    with Journal(tmp_path / "maps", SHAPE) as journal:
        assert len(journal) == 10
        found = journal.get(7)
        assert found is not None
        np.testing.assert_array_equal(found, np.zeros(SHAPE, np.uint8))


def test_many_threads_may_add_and_get(tmp_path: Path) -> None:
    with Journal(tmp_path / "maps", SHAPE) as journal, ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda index: journal.add(index, maps(index)), range(200)))
        found = list(threads.map(journal.get, range(200)))
    for index, one in enumerate(found):
        assert one is not None
        np.testing.assert_array_equal(one, maps(index))


def test_cut_anywhere_it_holds_the_whole_records_and_takes_new_ones(tmp_path: Path) -> None:
    with Journal(tmp_path / "whole", SHAPE) as journal:
        ends = [len(MAGIC)]
        for index in range(3):
            journal.add(index, maps(index))
            ends.append((tmp_path / "whole").stat().st_size)
    data = (tmp_path / "whole").read_bytes()
    for length in [*range(len(MAGIC) + 2), *(end + step for end in ends for step in (-1, 0, 1, HEADER.size + 1))]:
        path = tmp_path / "cut"
        path.write_bytes(data[: max(0, length)])
        with Journal(path, SHAPE) as journal:
            assert len(journal) == sum(end <= length for end in ends[1:])
            journal.add(9, maps(9))
        with Journal(path, SHAPE) as journal:
            found = journal.get(9)
            assert found is not None
            np.testing.assert_array_equal(found, maps(9))


@given(place=st.integers(0, 3000), flip=st.integers(1, 255))
def test_a_flipped_byte_never_gives_wrong_maps(tmp_path_factory: object, place: int, flip: int) -> None:
    folder = tmp_path_factory.mktemp("journal")  # type: ignore[attr-defined]  # a pytest.TempPathFactory
    with Journal(folder / "maps", SHAPE) as journal:
        for index in range(4):
            journal.add(index, maps(index))
    data = bytearray((folder / "maps").read_bytes())
    data[place % len(data)] ^= flip
    (folder / "maps").write_bytes(data)
    with Journal(folder / "maps", SHAPE) as journal:
        for index in range(4):
            found = journal.get(index)
            if found is not None:
                np.testing.assert_array_equal(found, maps(index))


def test_maps_that_changed_or_cannot_be_read_any_more_are_not_there(tmp_path: Path) -> None:
    """They are inferred again. Nothing that was on the disk is taken for maps unseen."""
    with Journal(tmp_path / "maps", SHAPE) as journal:
        journal.add(1, maps(1))
        after_first = journal.size
        journal.add(2, maps(2))
        journal.add(3, np.zeros(SHAPE, np.uint8))
        with (tmp_path / "maps").open("r+b") as file:
            file.seek(len(MAGIC) + HEADER.size + 20)
            file.write(b"changed")
        assert journal.get(1) is None
        found = journal.get(2)
        assert found is not None
        np.testing.assert_array_equal(found, maps(2))
        os.truncate(tmp_path / "maps", after_first + HEADER.size + 10)
        assert journal.get(2) is None
        assert journal.get(3) is None


def test_records_that_are_sound_but_no_maps(tmp_path: Path) -> None:
    def record(tile_id: int, payload: bytes) -> bytes:
        checksum = zlib.crc32(payload, zlib.crc32(tile_id.to_bytes(8, "little")))
        return HEADER.pack(tile_id, len(payload), checksum) + payload

    small = bytes(imagecodecs.zstd_encode(bytes(10)))
    large = bytes(imagecodecs.zstd_encode(bytes(1 << 20)))
    (tmp_path / "maps").write_bytes(MAGIC + record(1, b"no zstd") + record(2, small) + record(3, large))
    with Journal(tmp_path / "maps", SHAPE) as journal:
        assert len(journal) == 3
        assert [journal.get(index) for index in (1, 2, 3)] == [None, None, None]


def test_a_length_that_is_not_there_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "maps").write_bytes(MAGIC + HEADER.pack(1, 0xFFFFFFFF, 0))
    tracemalloc.start()
    try:
        with Journal(tmp_path / "maps", SHAPE) as journal:
            assert len(journal) == 0
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
