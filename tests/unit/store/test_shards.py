"""Shards of a store: what their manifests may say, and how they are read as one while they come."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.shared.errors import OutputError, StoreError, WaitedTooLong
from nuclei_segmentation.shared.runtime import waiting
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.shard import Shard
from nuclei_segmentation.shared.store import Manifest, ShardedReader, ShardMetadata, ShardSet, StoreFolder, StoreWriter
from nuclei_segmentation.shared.store.ledger import DAMAGED
from nuclei_segmentation.shared.store.manifest import COMPLETE, FILE, read_manifest
from nuclei_segmentation.shared.store.shard_folders import conflicting_stores, shard_folders
from tests.helpers.outputs import left_by_image
from tests.helpers.stores import Maker, manifest_of, schema, value

TOTAL = 5
WHOLE = Shard(0, 1)


@dataclass
class ShardMaker(Maker):
    """Makes one shard of the masks of `TOTAL` tiles, in its folder in `folder`."""

    kind: str = "masks"
    shard: Shard = WHOLE

    @property
    def first(self) -> int:
        return self.shard.range(TOTAL)[0]

    @property
    def own(self) -> range:
        return range(*self.shard.range(TOTAL))

    def write_shard(self, held: StoreFolder) -> StoreWriter:
        n = len(self.own)
        facts = ShardMetadata(self.shard.number, self.shard.count, self.first, TOTAL)
        index = np.array([(0, column) for column in self.own] or [(0, 0)], np.int32)
        manifest = replace(manifest_of(n, "masks"), shard=facts)
        return StoreWriter(held.path, held.work, manifest, {"index": index}, {}, shared=self.shared, check=held.check)

    def put(self, items: range, *, finish: bool) -> None:
        with StoreFolder(self.folder, self.shard) as held:
            assert held.claim("masks", "key", "", overwrite=False)
            with self.write_shard(held) as store:
                for item in items:
                    store.put([item - self.first], value(item, 2)[np.newaxis], DAMAGED if item == 3 else 0)
                if finish:
                    store.finish({"damaged": 0})
                    held.finish()


@pytest.fixture(params=["disk", "shared memory"])
def shards(request: pytest.FixtureRequest, tmp_path: Path, ours: None) -> Callable[[int], list[ShardMaker]]:
    def makers(count: int) -> list[ShardMaker]:
        shm = request.param == "shared memory"
        return [ShardMaker(tmp_path, shm, shard=Shard(number, count)) for number in range(count)]

    return makers


def shard_set_in(folder: Path, limit: float | None = None) -> tuple[ShardSet, WaitLimit]:
    wait_limit = WaitLimit(limit)
    return ShardSet(Settings(input_path=folder), wait_limit, lambda _: ""), wait_limit


def read_all(reader: ShardedReader, batch: int) -> None:
    """Read all masks, ranges ahead of what is read as stitch does, and compare them."""
    asked = list(reader.ranges(batch))
    assert [item for span in asked for item in range(*span)] == list(range(TOTAL))
    assert all(stop - start <= batch for start, stop in asked)
    for start, stop in reversed(asked):
        items, damaged = reader.read(start, stop)
        for item in range(start, stop):
            np.testing.assert_array_equal(items[item - start], value(item, 2))
            assert damaged[item - start] == (item == 3)


@pytest.mark.parametrize("batch", [1, 2, 100])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_shards_are_read_as_one(
    shards: Callable[[int], list[ShardMaker]], tmp_path: Path, count: int, batch: int
) -> None:
    for maker in shards(count):
        maker.put(maker.own, finish=True)
        document = json.loads((tmp_path / maker.shard.folder / FILE).read_bytes())
        jsonschema.validate(document, schema(), jsonschema.Draft202012Validator)
    shard_set, wait_limit = shard_set_in(tmp_path)
    assert shard_set.complete
    with ShardedReader(shard_set, wait_limit) as reader:
        assert reader.count == TOTAL
        read_all(reader, batch)
        reader.wait_until_complete()


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_few_files_are_open_however_many_shards_there_are(
    shards: Callable[[int], list[ShardMaker]], tmp_path: Path
) -> None:
    for maker in shards(40):
        maker.put(maker.own, finish=True)
    before = open_files()
    shard_set, wait_limit = shard_set_in(tmp_path)
    with ShardedReader(shard_set, wait_limit) as reader:
        for span in reader.ranges(1):
            reader.read(*span)
            assert open_files() - before <= 6
    assert open_files() == before


class Clock:
    """Time that passes only when somebody waits; then the next thing happens."""

    def __init__(self, steps: Iterator[None]) -> None:
        self.now, self.steps = 0.0, steps

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        next(self.steps, None)
        self.now += waiting.STEP_SECONDS


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
def test_work_on_any_shard_is_progress(
    shards: Callable[[int], list[ShardMaker]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: list[int]
) -> None:
    """One shard after the other, a tile now and then: in whatever order, who reads does not give up."""
    makers = shards(3)

    def steps() -> Iterator[None]:
        for number in order:
            maker = makers[number]
            for item in maker.own:
                maker.put(range(maker.first, item + 1), finish=item == maker.own[-1])
                yield
                yield

    monkeypatch.setattr(waiting, "time", Clock(steps()))
    shard_set, wait_limit = shard_set_in(tmp_path, 3.5)
    with ShardedReader(shard_set, wait_limit) as reader:
        read_all(reader, 2)
        reader.wait_until_complete()
    assert shard_set.complete
    assert wait_limit.waited >= 3, "no longer than four steps at a time, but often"


def test_without_any_work_it_gives_up_and_names_the_shard(
    shards: Callable[[int], list[ShardMaker]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers = shards(2)
    makers[0].put(makers[0].own, finish=True)
    monkeypatch.setattr(waiting, "time", Clock(iter(())))
    shard_set, wait_limit = shard_set_in(tmp_path, 5)
    with (
        ShardedReader(shard_set, wait_limit) as reader,
        pytest.raises(WaitedTooLong, match=f"map store of shard 1/2 in {tmp_path}"),
    ):
        list(reader.ranges(1))
    makers[1].put(makers[1].own, finish=True)
    (tmp_path / makers[0].shard.folder / COMPLETE).unlink()
    shard_set, wait_limit = shard_set_in(tmp_path, 5)
    with ShardedReader(shard_set, wait_limit) as reader:
        read_all(reader, 1)
        with pytest.raises(WaitedTooLong, match="shard-0-of-2"):
            reader.wait_until_complete()


def test_who_waits_leaves_a_shard_aside_that_does_not_go_with_the_others(
    shards: Callable[[int], list[ShardMaker]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    makers = shards(3)
    for maker in makers:
        maker.put(maker.own, finish=True)
    path = tmp_path / makers[0].shard.folder / FILE
    right = read_manifest(path.parent)
    assert right is not None
    path.write_bytes(replace(right, key="another").to_json())

    def steps() -> Iterator[None]:
        yield
        path.write_bytes(right.to_json())
        yield

    monkeypatch.setattr(waiting, "time", Clock(steps()))
    shard_set, wait_limit = shard_set_in(tmp_path, 60)
    assert sorted(shard_set.stores) == [1, 2]
    assert "shard 0/3 in" in shard_set.awaited(0)
    assert "another model" in shard_set.awaited(0)
    with ShardedReader(shard_set, wait_limit) as reader:
        read_all(reader, 2)


@given(
    st.fixed_dictionaries({key: st.integers(-2, 12) | st.none() | st.text() for key in ShardMetadata.__slots__}),
    st.integers(0, 6),
)
def test_a_manifest_says_of_its_shard_what_its_tiles_are_or_is_refused(facts: dict[str, object], n: int) -> None:
    document = json.loads(replace(manifest_of(n, "masks"), generation="0" * 32).to_json())
    shape = [max(1, n), 16, 16, 2]
    document["arrays"] = {
        "masks": document["arrays"]["masks"] | {"file": "masks.npy", "shape": shape},
        "index": {"file": "index.npy", "shape": [max(1, n), 2], "dtype": "int32", "channels": [], "crc32": 0},
    }
    document["shard"] = facts
    try:
        found = Manifest.from_json(signed(document), Path("m"))
    except StoreError:
        number, count, first, total = facts.values()
        whole = all(isinstance(fact, int) for fact in (number, count, first, total))
        assert not whole or not (
            0 <= number < count and total <= 6 and Shard(number, count).range(total) == (first, first + n)  # type: ignore[operator, arg-type]
        )
        return
    assert found.shard is not None
    assert (found.shard.first, found.shard.first + found.n) == found.shard.shard.range(found.total)
    jsonschema.validate(document, schema(), jsonschema.Draft202012Validator)


def test_stores_of_version_1_0_had_no_shards(on_disk: Maker) -> None:
    on_disk.make()
    document = json.loads((on_disk.folder / FILE).read_bytes()) | {"version": "1.0"}
    del document["shard"]
    jsonschema.validate(document, schema(), jsonschema.Draft202012Validator)
    (on_disk.folder / FILE).write_bytes(signed(document))
    assert on_disk.content()


def test_tiles_have_no_shards(on_disk: Maker) -> None:
    on_disk.make()
    on_disk.rewrite(shard=ShardMetadata(0, 1, 0, 5))
    with pytest.raises(StoreError, match='"shard" is 0 of 1, in a tile store'):
        on_disk.content()


def test_what_may_not_lie_beside_what(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("shard-0-of-2", "shard-1-of-2", "shard-0-of-3", "shard-1-of-3")]
    for folder in (*folders, tmp_path / "shard-9-of-3", tmp_path / "other"):
        folder.mkdir()
    for folder in folders[:3]:
        (folder / FILE).touch()
    assert [folder for _, folder in shard_folders(tmp_path)] == folders
    assert conflicting_stores(tmp_path, None) == folders[:3], "of an empty folder nobody takes notice"
    assert conflicting_stores(tmp_path, Shard(1, 2)) == folders[2:3]
    assert conflicting_stores(tmp_path, Shard(0, 4)) == folders[:3]
    (tmp_path / ".run").mkdir()
    assert conflicting_stores(tmp_path, Shard(1, 3)) == [tmp_path, *folders[:2]]
    assert conflicting_stores(tmp_path, None) == folders[:3]


def test_what_a_dead_run_left_without_any_work_is_not_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "shard-0-of-2" / ".run").mkdir(parents=True)
    (tmp_path / "shard-0-of-2" / ".run" / "lock").write_text("{}")
    with StoreFolder(tmp_path, Shard(0, 3)) as held:
        assert held.claim("masks", "key", "", overwrite=False)
    assert not (tmp_path / "shard-0-of-2").exists()
    left_by_image(tmp_path)
    with (
        StoreFolder(tmp_path, Shard(0, 3)) as held,
        pytest.raises(OutputError, match="unfinished run of stitch or segmentation"),
    ):
        held.claim("masks", "key", "", overwrite=True)


def signed(document: dict[str, object]) -> bytes:
    from nuclei_segmentation.shared.store.manifest import _checksum

    return json.dumps(document | {"crc32": _checksum(document)}).encode()
