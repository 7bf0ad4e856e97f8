"""The file in shared memory that an array is mapped from."""

import uuid
from pathlib import Path

import numpy as np
import pytest

from nuclei_segmentation.operators.filter.inference.triton.mapped_files import MappedFiles

SHM = Path("/dev/shm")


@pytest.fixture
def path():
    file = SHM / f"test-nuclei-{uuid.uuid4().hex}-tiles.npy"
    yield file
    file.unlink(missing_ok=True)


def content(found, size):
    """Return what another process reads where an array was found."""
    file, offset = found
    return (SHM / file.name).read_bytes()[offset : offset + size]


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_views_of_a_mapped_file_are_found(path, mode):
    tiles = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    np.save(path, tiles)
    mapped, files = np.load(path, mmap_mode=mode), MappedFiles()
    for view in (
        mapped,
        mapped[4:6],
        mapped[3:][2:4],
        np.ascontiguousarray(mapped[7:8]),
        mapped[5],
        mapped[1:2].view(),
    ):
        assert content(files.find(view), view.nbytes) == view.tobytes()
    assert files.find(mapped)[0].has_its_name


def test_a_map_that_begins_in_the_middle_of_a_file(path):
    path.write_bytes(np.random.default_rng(0).bytes(50_000))
    part = np.memmap(path, np.uint8, "r", offset=12_345, shape=(300, 100))
    assert content(MappedFiles().find(part[200:]), 10_000) == part[200:].tobytes()


def test_other_arrays_are_not_found(path, tmp_path):
    tiles = np.zeros((3, 16, 16, 3), np.uint8)
    np.save(path, tiles)
    np.save(tmp_path / "elsewhere.npy", tiles)
    files, mapped = MappedFiles(), np.load(path, mmap_mode="r")
    assert files.find(tiles) is None
    assert files.find(np.array(mapped)) is None
    assert files.find(mapped[[0, 2]]) is None
    assert files.find(np.load(path, mmap_mode="c")) is None
    assert files.find(np.load(tmp_path / "elsewhere.npy", mmap_mode="r")) is None


def test_a_file_whose_name_another_file_has_taken(path):
    np.save(path, np.zeros((3, 16, 16, 3), np.uint8))
    mapped, files = np.load(path, mmap_mode="r"), MappedFiles()
    file, _ = files.find(mapped)
    path.unlink()
    assert MappedFiles().find(mapped) is None
    np.save(path, np.ones((3, 16, 16, 3), np.uint8))
    assert MappedFiles().find(mapped) is None
    assert not file.has_its_name
