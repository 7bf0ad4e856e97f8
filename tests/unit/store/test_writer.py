"""The writer's promises: to who puts from many threads, to who shares its folder, when the disk fails."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from nuclei_segmentation.shared.clara.render_config import RENDER
from nuclei_segmentation.shared.errors import NoSpace, OutputError, StoreError
from nuclei_segmentation.shared.runtime import resources
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.store import StoreFolder, release_shared_memory, writer
from nuclei_segmentation.shared.store.clean import NAMES
from nuclei_segmentation.shared.store.manifest import read_manifest
from tests.helpers.outputs import left_by_image, unfinished
from tests.helpers.stores import Maker


def test_many_threads_put_and_all_is_there(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "COMMIT_BYTES", 3000)
    with StoreFolder(maker.folder) as held:
        held.claim("tiles", "key", "", overwrite=False)
        with maker.write(held) as store:

            def work(first: int) -> None:
                for item in range(first, maker.n, 2):
                    store.put([item], maker.value(item)[np.newaxis])

            threads = [threading.Thread(target=work, args=(first,)) for first in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            store.finish({"damaged": 0})
        store.put([0], np.zeros((1, 16, 16, 3), np.uint8))  # too late: a server may answer after the end
        held.finish()
    with maker.reader() as reader:
        np.testing.assert_array_equal(reader.read(0, 5)[0], np.stack([maker.value(item) for item in range(5)]))


def test_what_was_put_is_named_soon_though_nobody_puts_more(maker: Maker) -> None:
    """Who reads the store waits for it; and a kill must not cost it."""
    with StoreFolder(maker.folder) as held:
        held.claim("tiles", "key", "", overwrite=False)
        with maker.write(held) as store, maker.reader(WaitLimit(60)) as reader:
            store.put([3], maker.value(3)[np.newaxis])
            reader.wait_for(3, 4)
            np.testing.assert_array_equal(reader.read(3, 4)[0][0], maker.value(3))


def test_a_failed_sync_is_told_and_never_tried_again(on_disk: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file system here can be made to fail one; after a real one, the next would succeed without the data."""
    calls = 0

    def fail(file: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise OSError(5, "Input/output error")

    with StoreFolder(on_disk.folder) as held:
        held.claim("tiles", "key", "", overwrite=False)
        store = on_disk.write(held)
        monkeypatch.setattr(os, "fdatasync", fail)
        store.put([0, 1], np.stack([on_disk.value(0), on_disk.value(1)]))
        end = time.monotonic() + 60
        while not calls and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)  # the thread that made the call takes note
        with pytest.raises(OutputError, match="Input/output error"):
            store.put([2], on_disk.value(2)[np.newaxis])
        with pytest.raises(OutputError, match="Input/output error"):
            store.finish({})
        store.close()
        assert calls == 1
    assert (on_disk.folder / "ledger").stat().st_size == 32, "nothing was named"


@pytest.mark.parametrize("name", [*NAMES[1:], RENDER])
def test_a_file_of_somebody_else_is_in_the_way_and_kept(maker: Maker, name: str) -> None:
    maker.folder.mkdir()
    (maker.folder / name).write_text("precious")
    (maker.folder / "notes.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=f"{name} is in the way"):
            maker.make(overwrite=overwrite)
    assert sorted(path.name for path in maker.folder.iterdir()) == sorted([name, "notes.txt"])
    assert (maker.folder / name).read_text() == "precious"


def test_other_files_in_the_folder_stay(maker: Maker) -> None:
    maker.folder.mkdir()
    (maker.folder / "notes.txt").write_text("x")
    (maker.folder / "tiles").mkdir()
    maker.make()
    maker.make(key="other", overwrite=True)
    assert {"notes.txt", "tiles"} < {path.name for path in maker.folder.iterdir()}


def test_another_store_is_kept_unless_it_may_be_replaced(maker: Maker) -> None:
    maker.make()
    before, old = maker.content(), maker.array
    with pytest.raises(OutputError, match=r"another tile store \(of a\.svs\)"):
        maker.make(key="other")
    kind = Maker(maker.folder, maker.shared, kind="masks")
    with pytest.raises(OutputError, match="holds a tile store"):
        kind.make()
    assert maker.content() == before
    assert kind.make(overwrite=True) == 5
    assert not (maker.folder / "tissue.npy").exists()
    assert not (maker.folder / "tiles.npy").exists()
    assert old == maker.folder / "tiles.npy" or not old.exists(), "shared memory was not given back"


def test_an_unfinished_image_in_the_folder_is_kept(on_disk: Maker) -> None:
    left_by_image(on_disk.folder, maps="hours of work")
    with pytest.raises(OutputError, match="unfinished run of stitch or segmentation"):
        on_disk.make(overwrite=True)
    maps = unfinished(on_disk.folder, "maps")
    assert maps is not None
    assert maps.read_text() == "hours of work"


def test_a_finished_store_is_given_to_the_next_run(maker: Maker) -> None:
    maker.make(run="one")
    generation = read_manifest(maker.folder).generation  # type: ignore[union-attr]
    assert maker.make(run="two") == 0
    manifest = read_manifest(maker.folder)
    assert manifest is not None
    assert (manifest.run, manifest.generation) == ("two", generation)


def test_who_reads_notices_that_the_store_is_another(maker: Maker) -> None:
    maker.make()
    manifest = read_manifest(maker.folder)
    with maker.reader() as reader:
        maker.make(key="other", overwrite=True)
        with pytest.raises(StoreError, match="was replaced while it was read"):
            reader.wait_until_complete()
    from nuclei_segmentation.shared.store import StoreReader

    assert manifest is not None
    with pytest.raises(StoreError, match="was replaced while it was read"):
        StoreReader(maker.folder, manifest, WaitLimit(None))


def test_a_store_on_a_read_only_folder_is_read(maker: Maker) -> None:
    maker.make()
    for path in (*maker.folder.iterdir(), maker.folder):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert maker.content()
    finally:
        maker.folder.chmod(0o755)


def test_shared_memory_that_would_not_fit_is_refused_beforehand(
    tmp_path: Path, ours: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = Maker(tmp_path / "store", shared=True)
    maker.make()
    before = maker.content()
    groups = tmp_path / "groups"
    groups.mkdir()
    (groups / "memory.max").write_text("1000000\n")
    (groups / "memory.current").write_text("999000\n")
    (groups / "memory.stat").write_text("anon 5\ninactive_file 100\nactive_file 200\n")
    monkeypatch.setattr(resources, "_CGROUPS", groups)
    assert resources.memory_left() == 1300
    maker.make(key="as large", overwrite=True)  # what it replaces makes room for it
    Maker(maker.folder, shared=True).make(overwrite=True)
    assert maker.content() == before
    other = Maker(tmp_path / "other", shared=True)
    with pytest.raises(NoSpace, match=r"may use 1\.3 KiB more memory, the store in /dev/shm needs 3\.8 KiB"):
        other.make()
    assert not list(other.folder.iterdir())
    (groups / "memory.max").write_text("max\n")
    assert resources.memory_left() is None
    assert other.make() == 5


def test_memory_groups_of_the_first_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setattr(resources, "_CGROUPS", tmp_path)
    (folder / "memory.usage_in_bytes").write_text("700\n")
    (folder / "memory.stat").write_text("inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 10\n")
    (folder / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert resources.memory_left() is None
    (folder / "memory.limit_in_bytes").write_text("1000\n")
    assert resources.memory_left() == 340


def test_only_what_is_its_own_is_given_back(tmp_path: Path, ours: None) -> None:
    one, two = Maker(tmp_path / "one", shared=True), Maker(tmp_path / "two", shared=True)
    one.make(items=range(2))
    two.make()
    left, other = one.array, two.array
    one.make(key="other", overwrite=True)
    assert not left.exists()
    assert other.exists()
    (tmp_path / "copy").mkdir()
    shutil.copytree(two.folder, tmp_path / "copy", dirs_exist_ok=True)
    manifest = read_manifest(two.folder)
    assert manifest is not None
    release_shared_memory(manifest)
    assert not other.exists()
    assert two.make() == 5, "what was given back is made again"
