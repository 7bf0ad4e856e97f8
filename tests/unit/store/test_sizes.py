"""What a store's files may claim: memory is not taken for more than they can have."""

from __future__ import annotations

import os
import stat
import tracemalloc
from pathlib import Path

import pytest

from nuclei_segmentation.shared.errors import StoreError
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.ledger import Entry, LedgerReader, LedgerWriter
from nuclei_segmentation.shared.store.manifest import read_manifest
from tests.helpers.stores import Maker

GENERATION = "0" * 32


def test_a_sparse_ledger_of_gigabytes_is_refused_without_memory(on_disk: Maker) -> None:
    on_disk.make()
    os.truncate(on_disk.folder / ledger.FILE, 8 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(StoreError, match="has 8589934592 bytes, too many for the records of 5 tiles"):
            on_disk.content()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("number", [65535, 65536, 65537, 200_000])
def test_a_long_ledger_is_read_in_parts(tmp_path: Path, number: int) -> None:
    path = tmp_path / "ledger"
    with LedgerWriter(path, GENERATION, number, tmp_path, lambda: None, create=True) as writer:
        writer.append(Entry(item, 0, item) for item in range(number))
        with LedgerReader(path, GENERATION, number) as reader:
            assert reader.poll() == number
            assert reader.poll() == 0
            writer.append([Entry(3, ledger.DAMAGED, 1)])
            assert reader.poll() == 1
            assert reader.entries[3] == Entry(3, ledger.DAMAGED, 1)
            assert len(reader.entries) == number
            assert reader.why_incomplete() == ""


def test_only_this_user_may_open_an_array_in_shared_memory(tmp_path: Path, ours: None) -> None:
    before = os.umask(0)
    try:
        maker = Maker(tmp_path / "store", shared=True)
        maker.make()
    finally:
        os.umask(before)
    manifest = read_manifest(maker.folder)
    assert manifest is not None
    array = Path(manifest.arrays["tiles"].file)
    assert array.parent == Path("/dev/shm")
    assert stat.S_IMODE(array.stat().st_mode) == 0o600
    assert stat.S_IMODE((maker.folder / "index.npy").stat().st_mode) == 0o666
