"""Zip files larger than 4 GiB, and with more entries than 65,535."""

from __future__ import annotations

import os
import struct
import zipfile
from pathlib import Path

from nuclei_segmentation.operators.stitch.outputs.new_file import NewFile
from nuclei_segmentation.operators.stitch.outputs.zip_file import ZipFile


def test_entries_behind_4_gib(tmp_path: Path) -> None:
    path = tmp_path / "large.zip"
    with NewFile(path) as file:
        archive = ZipFile(file)
        archive.add("first", b"1" * 100)
        file._size = (5 << 30) + 7  # a hole instead of entries that fill 5 GiB
        archive.add("second", b"2" * 100)
        archive.finish()
        file.finish()
    assert path.stat().st_size > 5 << 30
    with zipfile.ZipFile(path) as made:
        assert made.testzip() is None
        assert {name: made.read(name) for name in made.namelist()} == {"first": b"1" * 100, "second": b"2" * 100}
    os.truncate(path, 0)


def test_more_than_65535_entries(tmp_path: Path) -> None:
    path = tmp_path / "many.zip"
    with NewFile(path) as file:
        archive = ZipFile(file)
        archive.add("one", b"1")
        archive._directory *= 65_536
        archive.finish()
        file.finish()
    content = path.read_bytes()
    record = content[content.rindex(b"PK\x06\x06") :]
    assert struct.unpack("<QQ", record[24:40]) == (65_536, 65_536)
    assert struct.unpack("<HH", content[-14:-10]) == (65_535, 65_535), "look into the other record"
    with zipfile.ZipFile(path) as made:
        assert len(made.infolist()) == 65_536


def test_no_entries(tmp_path: Path) -> None:
    with NewFile(tmp_path / "empty.zip") as file:
        ZipFile(file).finish()
        file.finish()
    with zipfile.ZipFile(tmp_path / "empty.zip") as made:
        assert made.namelist() == []
