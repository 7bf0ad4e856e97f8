"""What every store must be: the format of docs/stores.md, on a disk and in shared memory."""

from __future__ import annotations

import json
import re
import struct
import zlib
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import xxhash

from nuclei_segmentation.shared.errors import InputError, StoreError
from nuclei_segmentation.shared.runtime.waiting import WaitLimit
from nuclei_segmentation.shared.store.ledger import DAMAGED
from nuclei_segmentation.shared.store.manifest import COMPLETE, Manifest, read_manifest
from tests.helpers.stores import SHARED, Maker, schema

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", ["tiles", "masks"])
@pytest.mark.parametrize("n", [0, 1, 5])
def test_a_store_is_read_as_it_was_written(maker: Maker, kind: str, n: int) -> None:
    maker.kind, maker.n = kind, n
    assert maker.make() == n
    with maker.reader() as reader:
        assert reader.count == n
        assert reader.tile_positions.shape == (n, 2)
        for item in range(n):
            items, damaged = reader.read(item, item + 1)
            np.testing.assert_array_equal(items[0], maker.value(item))
            assert not damaged.any()
    assert not (maker.folder / ".run").exists()


@pytest.mark.parametrize("kind", ["tiles", "masks"])
@pytest.mark.parametrize("n", [0, 5])
def test_the_manifest_keeps_its_schema(maker: Maker, kind: str, n: int) -> None:
    maker.kind, maker.n = kind, n
    maker.make()
    jsonschema.Draft202012Validator.check_schema(schema())
    document = json.loads((maker.folder / "manifest.json").read_bytes())
    jsonschema.validate(document, schema(), jsonschema.Draft202012Validator)
    named = schema()["properties"]
    assert isinstance(named, dict)
    assert set(document) == set(named), "every key is in the schema, and the other way round"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", "2.0"), ("kind", "pixels"), ("generation", "x"), ("tile", 17), ("n", -1), ("n", 1.5), ("slide", []),
        ("model", 1), ("crc32", None), ("arrays", {}), ("mask", 3), ("overlap", -16), ("run", None),
    ],
)  # fmt: skip
def test_what_the_schema_refuses_is_refused_by_the_program(on_disk: Maker, path: str, value: object) -> None:
    on_disk.make()
    document = json.loads((on_disk.folder / "manifest.json").read_bytes()) | {path: value}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema(), jsonschema.Draft202012Validator)
    with pytest.raises(StoreError):
        Manifest.from_json(json.dumps(_signed(document)).encode(), Path("m"))


def test_a_later_minor_version_may_say_more(on_disk: Maker) -> None:
    on_disk.make()
    document = json.loads((on_disk.folder / "manifest.json").read_bytes())
    document |= {"version": "1.7", "colour": "of a later version"}
    document["arrays"]["embedding"] = {"file": "x.zarr", "dtype": "float16"}
    (on_disk.folder / "manifest.json").write_text(json.dumps(_signed(document)))
    jsonschema.validate(_signed(document), schema(), jsonschema.Draft202012Validator)
    assert on_disk.content()


@pytest.mark.parametrize("version", ["2.0", "0.9", "10.0", 1, None])
def test_another_major_version_is_refused_with_both_versions(on_disk: Maker, version: object) -> None:
    on_disk.make()
    document = json.loads((on_disk.folder / "manifest.json").read_bytes()) | {"version": version}
    (on_disk.folder / "manifest.json").write_text(json.dumps(_signed(document)))
    if version == 1:  # a number, not the text that we write; what it means is clear
        assert on_disk.content()
        return
    with pytest.raises(StoreError, match=rf"manifest.json has version {version}; this program reads 1\.x"):
        on_disk.content()


def test_plain_numpy_maps_the_arrays(maker: Maker) -> None:
    maker.make()
    array = np.load(maker.array, mmap_mode="r", allow_pickle=False)
    assert (array.dtype, array.shape) == (np.uint8, (5, 16, 16, 3))
    np.testing.assert_array_equal(array[3], maker.value(3))
    index = np.load(maker.folder / "index.npy", mmap_mode="r", allow_pickle=False)
    assert index.dtype == np.dtype("<i4")
    assert index.tolist() == [[0, column] for column in range(5)]
    assert np.load(maker.folder / "tissue.npy", allow_pickle=False).dtype == np.bool_


def test_an_array_that_numpy_itself_wrote_will_do(on_disk: Maker) -> None:
    on_disk.make()
    before = on_disk.content()
    for path in on_disk.folder.glob("*.npy"):
        np.save(path, np.load(path))
    assert on_disk.content() == before


def test_the_recipe_of_the_documentation(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/stores.md has a few lines of plain Python that check a store; here they are run."""
    recipe = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "stores.md").read_text(), re.DOTALL)
    assert recipe
    maker.make()
    monkeypatch.chdir(maker.folder)
    exec(recipe[1], {})
    number = 4 * 768 + 5 + 128
    content = bytearray(maker.array.read_bytes())
    content[number] ^= 1
    maker.array.write_bytes(content)
    with pytest.raises(AssertionError, match="4"):
        exec(recipe[1], {})


def test_the_ledger_is_laid_out_as_documented(maker: Maker) -> None:
    maker.make()
    content = (maker.folder / "ledger").read_bytes()
    manifest = read_manifest(maker.folder)
    assert manifest is not None
    assert content[:16] == b"nuclei ledger 1\n"
    assert content[16:32].hex() == manifest.generation
    records = [struct.unpack("<IIQI", content[at : at + 20]) for at in range(32, len(content), 20)]
    assert [item for item, *_ in records] == list(range(5))
    for item, flags, digest, check in records:
        assert (flags, digest) == (0, xxhash.xxh3_64_intdigest(maker.value(item).tobytes()))
        assert check == zlib.crc32(struct.pack("<IIQ", item, flags, digest))


def test_damaged_places_travel_along(maker: Maker) -> None:
    from nuclei_segmentation.shared.store import StoreFolder

    with StoreFolder(maker.folder) as held:
        held.claim("tiles", "key", "", overwrite=False)
        with maker.write(held) as store:
            store.put([4, 0, 1], np.stack([maker.value(item) for item in (4, 0, 1)]), [0, DAMAGED, 0])
            store.put([2, 3], np.stack([maker.value(item) for item in (2, 3)]), DAMAGED)
            store.finish({"damaged": 3})
        held.finish()
    with maker.reader() as reader:
        items, damaged = reader.read(0, 5)
        assert damaged.tolist() == [True, False, True, True, False]
        for item in range(5):
            np.testing.assert_array_equal(items[item], maker.value(item))
    assert maker.make() == 3, "what could not be read is tried again: it may be a better copy by now"
    with maker.reader() as reader:
        assert not reader.damaged(0, 5).any()


def test_an_incomplete_store_is_refused_by_who_does_not_wait(maker: Maker) -> None:
    maker.make(items=range(3))
    with pytest.raises(InputError, match=r"not complete \(3 of 5 tiles\).*NVIDIA_CLARA_NOSYNCLOCK"):
        maker.reader()
    with maker.reader(WaitLimit(5)) as reader:
        assert [reader.has(item, item + 1) for item in range(5)] == [True] * 3 + [False] * 2


def test_shared_memory_is_named_for_its_store_and_readable_by_its_name(tmp_path: Path, ours: None) -> None:
    maker = Maker(tmp_path / "store", shared=True)
    maker.make()
    manifest = read_manifest(maker.folder)
    assert manifest is not None
    assert maker.array == SHARED / f"nuclei-{manifest.generation}-tiles.npy"
    maker.array.unlink()
    with pytest.raises(StoreError, match=r"shared memory.*--ipc=host"):
        maker.reader()


@pytest.mark.parametrize("name", ["manifest.json", "index.npy", "tissue.npy", "ledger", COMPLETE, "tiles.npy"])
def test_any_flipped_bit_is_refused_or_changes_nothing(maker: Maker, name: str) -> None:
    maker.make()
    path = maker.array if name == "tiles.npy" else maker.folder / name
    before, content = maker.content(), path.read_bytes()
    places = range(len(content)) if len(content) < 2000 else [*range(140), *range(140, len(content), 97)]
    for place in places:
        broken = bytearray(content)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        try:
            read, message = maker.content(), None
        except StoreError as error:
            read, message = b"", str(error)
        assert read == before if message is None else str(path) in message or str(maker.folder / "ledger") in message
    path.write_bytes(content)
    assert maker.content() == before


@pytest.mark.parametrize("name", ["manifest.json", "index.npy", "tissue.npy", "ledger", "tiles.npy"])
def test_any_truncation_is_refused_and_made_good_by_the_next_run(maker: Maker, name: str) -> None:
    maker.make()
    before, array = maker.content(), maker.array
    for length in (0, 1, 31, 40, 100, 130, 200):
        path = maker.array if name == "tiles.npy" else maker.folder / name
        content = path.read_bytes()
        path.write_bytes(content[: min(length, len(content) - 1)])
        with pytest.raises(StoreError, match=re.escape(str(path))):
            maker.content()
        old = array
        maker.make(overwrite=name == "manifest.json")
        assert maker.content() == before
        array = maker.array
        assert array == old or not old.exists(), "shared memory was not given back"


def test_a_wrong_tile_is_named_and_alone_made_again(maker: Maker) -> None:
    maker.make()
    before = maker.content()
    content = bytearray(maker.array.read_bytes())
    content[128 + 2 * 768 + 100] ^= 4
    with maker.array.open("r+b") as file:
        file.write(content)
    with pytest.raises(StoreError, match=f"{re.escape(str(maker.array))}: tile 2 is corrupt"):
        maker.content()
    assert maker.make() == 1
    assert maker.content() == before
    assert maker.make() == 0


def _signed(document: dict[str, object]) -> dict[str, object]:
    rest = {key: value for key, value in document.items() if key != "crc32"}
    crc = zlib.crc32(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode())
    return rest | ({"crc32": crc} if document.get("crc32") is not None else {})
