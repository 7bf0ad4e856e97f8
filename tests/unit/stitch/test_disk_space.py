from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nuclei_segmentation.operators.stitch.pyramid import disk_space
from nuclei_segmentation.operators.stitch.pyramid.disk_space import open_reserved, reserve
from nuclei_segmentation.operators.stitch.pyramid.spool import Spool
from nuclei_segmentation.shared.errors import NoSpace, OutputError


def test_reserve_allocates_the_space_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old content")
    reserve(path, 3_000_000)
    assert path.read_bytes() == bytes(3_000_000)
    assert path.stat().st_blocks * 512 >= 3_000_000


def test_reserving_more_than_the_disk_has_raises_no_space_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, offset: int, size: int) -> None:
        """Fail as the kernel does. The kernel itself first takes all there is, and other tests find the disk full."""
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoSpace, match=r"file: .* needed, .* free"):
        reserve(tmp_path / "file", 1 << 50)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_raises_no_space_whichever_call_meets_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_space, "open_file", lambda _, flags: os.open("/dev/full", flags))
    full = tmp_path / "full"
    with pytest.raises(NoSpace), open_reserved(full, 7) as file:
        file.write(bytes(3 << 20))
    file = open_reserved(full, 7)
    file.write(b"kept in the buffer")
    with pytest.raises(NoSpace):
        file.flush()
    with pytest.raises(NoSpace):
        file.close()


def test_a_missing_folder_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="absent"):
        reserve(tmp_path / "absent" / "file", 1)


def test_spool_returns_each_level_in_order_and_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "spool"
    with Spool(path, 100, 3) as spool:
        spool.append(2, [b"c0"])
        spool.append(1, [b"b0", b"", b"b2" * 1000])
        spool.append(2, [b"c1"])
        assert list(spool.segments(0)) == []
        assert list(spool.segments(1)) == [b"b0", b"", b"b2" * 1000]
        assert list(spool.segments(2)) == [b"c0", b"c1"]
        assert path.exists()
    assert not path.exists()


def test_spool_of_a_run_that_ended_early_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Spool(tmp_path / "spool", 10, 1):
        raise KeyboardInterrupt
    assert (tmp_path / "spool").exists()
