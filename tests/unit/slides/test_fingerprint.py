"""The fingerprint of a slide, and the state of its files."""

from __future__ import annotations

import os

import pytest

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.slides import fingerprint, stat_of


def test_the_same_bytes_under_another_name_and_date(tmp_path):
    a, b = tmp_path / "a.svs", tmp_path / "folder" / "b.tif"
    b.parent.mkdir()
    for path in (a, b):
        path.write_bytes(b"slide" * 1000)
    os.utime(b, (1, 1))
    assert fingerprint(a) == fingerprint(b)
    assert len(fingerprint(a)) == 64
    b.write_bytes(b"slide" * 999)
    assert fingerprint(a) != fingerprint(b)


@pytest.mark.parametrize("at", [0, (1 << 20) - 1, 1 << 20, -1, -(1 << 20)])
def test_a_change_in_a_sampled_part_of_a_large_file(tmp_path, at):
    path = tmp_path / "large.svs"
    with path.open("wb") as file:
        file.truncate(300 << 20)
    before = fingerprint(path)
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        file.write(b"\1")
    assert fingerprint(path) != before


@pytest.mark.parametrize("size", [0, 1, 6 << 20, (6 << 20) + 1, (6 << 20) + 70_000])
def test_a_file_of_any_size_has_a_fingerprint(tmp_path, size):
    path = tmp_path / "any.svs"
    with path.open("wb") as file:
        file.truncate(size)
    assert fingerprint(path) == fingerprint(path)


def test_all_files_of_a_slide_count(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s.mrxs").write_bytes(b"x")
    (tmp_path / "s" / "Data.dat").write_bytes(b"one")
    before, stat = fingerprint(tmp_path / "s.mrxs"), stat_of(tmp_path / "s.mrxs")
    (tmp_path / "s" / "Data.dat").write_bytes(b"two")
    assert fingerprint(tmp_path / "s.mrxs") != before
    (tmp_path / "s" / "More.dat").write_bytes(b"")
    assert stat_of(tmp_path / "s.mrxs") != stat


def test_a_change_is_noticed(tmp_path):
    path = tmp_path / "a.svs"
    path.write_bytes(b"slide")
    before = stat_of(path)
    assert stat_of(path) == before
    path.write_bytes(b"slide2")
    grown = stat_of(path)
    assert grown != before
    other = tmp_path / "b"
    other.write_bytes(b"slide2")
    os.utime(other, ns=(grown.modified_ns, grown.modified_ns))
    other.rename(path)
    assert stat_of(path) != grown
    path.unlink()
    with pytest.raises(UnreadableSlide, match="No such file"):
        stat_of(path)
    with pytest.raises(UnreadableSlide, match="No such file"):
        fingerprint(path)
