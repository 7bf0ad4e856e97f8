"""Stores whose arrays lie in FastIO memory."""

from __future__ import annotations

import ctypes
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from nuclei_segmentation.shared.clara.fastio import FastIOReader, FastIOWriter, _bytes, release_allocation
from nuclei_segmentation.shared.errors import NucleiError, StoreError
from nuclei_segmentation.shared.store.manifest import Manifest, _checksum
from tests.helpers.clara_job import Job
from tests.helpers.outputs import FILES


def content(*folders: Path) -> dict[Path, str]:
    return {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file()
    }


def array_of(folder: Path, kind: str) -> str:
    return str(json.loads((folder / "manifest.json").read_bytes())["arrays"][kind]["file"])


def in_turn(job: Job, slide: Path, tmp_path: Path, fault: str = "") -> None:
    """Run the three stages, each in a process of its own, on folders that may not be written to."""
    tiles, masks, out = tmp_path / "a" / "0", tmp_path / "b" / "1", tmp_path / "c" / "2"
    kinds = [("slide", slide.parent), ("tiles", tiles), ("masks", masks)]
    for number, (stage, target) in enumerate([("load", tiles), ("filter", masks), ("stitch", out)], 1):
        inputs = [kinds[1]] if stage == "filter" else kinds[:number][::-1]
        before = content(*(folder for _, folder in inputs))
        done = job.stage(stage, inputs, [("result", target)], fault=fault)
        assert done.code == 0, done.err
        assert content(*(folder for _, folder in inputs)) == before


@pytest.mark.parametrize("fault", ["", "address", "thread"])
def test_three_stages_in_turn(job: Job, small_slide: Path, tmp_path: Path, plain: bytes, fault: str) -> None:
    in_turn(job, small_slide, tmp_path, fault)
    assert sorted(path.name for path in (tmp_path / "c" / "2").iterdir()) == FILES
    assert (tmp_path / "c" / "2" / "image.tif").read_bytes() == plain
    for folder, kind in ((tmp_path / "a" / "0", "tiles"), (tmp_path / "b" / "1", "masks")):
        assert array_of(folder, kind).startswith("fastio:nuclei-")
        assert not (folder / f"{kind}.npy").exists()
    assert [job.called(what) for what in ("create", "publish", "get", "free")] == [2, 2, 5, 2]
    described = [call for call in job.calls if call["call"] == "set_type_and_dimensions"]
    assert [(call["type"], call["dimensions"][1:]) for call in described] == [
        ("uint8", [256, 256, 3]),
        ("uint8", [256, 256, 2]),
    ]
    assert list(job.memory.iterdir()) == []  # stitch has freed all of it


def test_shards_in_folders_of_their_own(job: Job, small_slide: Path, tmp_path: Path, plain: bytes) -> None:
    """Each shard publishes memory of its own; stitch finds them by their kind, in two inputs, and frees all of it."""
    slide, tiles = ("slide", small_slide.parent), ("tiles", tmp_path / "tiles")
    assert job.stage("load", [slide], [tiles]).code == 0
    inputs = [slide, tiles]
    for number in (1, 0):
        inputs.append((f"node-{number}", tmp_path / f"node-{number}"))
        done = job.stage("filter", [tiles], inputs[-1:], NUCLEI_SHARD=f"{number}/2")
        assert done.code == 0, done.err
        assert array_of(tmp_path / f"node-{number}" / f"shard-{number}-of-2", "masks").startswith("fastio:nuclei-")
    assert len(list(job.memory.iterdir())) == 3
    done = job.stage("stitch", inputs, [("result", tmp_path / "out")])
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "image.tif").read_bytes() == plain
    assert list(job.memory.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "line"), [("no-context", "has no FastIO context"), ("full", "Error: out of shared memory")]
)
def test_without_fastio_the_arrays_are_files_in_shared_memory(
    job: Job, small_slide: Path, tmp_path: Path, plain: bytes, fault: str, line: str
) -> None:
    done = job.stage("load", [("", small_slide.parent)], [("", tmp_path / "a" / "0")], fault=fault)
    assert done.code == 0, done.err
    assert done.err.count("/dev/shm is used instead") == 1
    assert line in done.err
    assert array_of(tmp_path / "a" / "0", "tiles").startswith("/dev/shm/nuclei-")
    in_turn(job, small_slide, tmp_path, fault)  # load finds its work done
    assert (tmp_path / "c" / "2" / "image.tif").read_bytes() == plain


def test_arrays_stay_on_the_disk_unless_shared_memory_is_asked_for(
    job: Job, small_slide: Path, dark_config: Path, tmp_path: Path
) -> None:
    job.config = dark_config
    assert job.stage("load", [("", small_slide.parent)], [("", tmp_path / "out")]).code == 0
    assert array_of(tmp_path / "out", "tiles") == "tiles.npy"
    assert job.called("create") == 0


def test_a_store_is_made_again_and_its_old_memory_freed(job: Job, small_slide: Path, tmp_path: Path) -> None:
    for _ in range(2):
        assert job.stage("load", [("", small_slide.parent)], [("", tmp_path / "out")]).code == 0
    assert [job.called(what) for what in ("create", "publish", "free")] == [2, 2, 1]
    assert [f"fastio:{path.name}" for path in job.memory.iterdir()] == [array_of(tmp_path / "out", "tiles")]


def test_memory_of_a_job_that_has_ended(job: Job, small_slide: Path, tmp_path: Path) -> None:
    assert job.stage("load", [("", small_slide.parent)], [("", tmp_path / "tiles")]).code == 0
    for path in job.memory.iterdir():
        path.unlink()
    lost = job.stage("filter", [("", tmp_path / "tiles")], [("", tmp_path / "masks")])
    assert lost.code == 18, lost.err
    assert "store: {shm: false}" in lost.err
    alone = job.stage(
        "filter", [], [], "--input-path", tmp_path / "tiles", "--output-path", tmp_path / "masks",
        NVIDIA_CLARA_NOSYNCLOCK="1",
    )  # fmt: skip
    assert alone.code == 18, alone.err
    assert "which only a stage that NVIDIA's driver starts can read" in alone.err
    again = job.stage("load", [("", small_slide.parent)], [("", tmp_path / "tiles")])
    assert again.code == 0, again.err
    assert job.stage("filter", [("", tmp_path / "tiles")], [("", tmp_path / "masks")]).code == 0


def test_a_slide_without_tissue(job: Job, tmp_path: Path) -> None:
    import tifffile

    (tmp_path / "glass").mkdir()
    slide = tmp_path / "glass" / "glass.tif"
    tifffile.imwrite(slide, np.full((300, 300, 3), 245, np.uint8), tile=(256, 256), photometric="rgb")
    in_turn(job, slide, tmp_path)
    assert list(job.memory.iterdir()) == []


class Memory:
    """An allocation that notes what is done with it, and fails at one call."""

    def __init__(self, fails: str = "") -> None:
        self.bytes, self.calls, self._fails = bytearray(24), [], fails

    def __getattr__(self, name: str) -> object:
        def call(*arguments: object) -> object:
            self.calls.append(name)
            if name == self._fails:
                raise ValueError(name)
            return self.bytes if name == "map" else None

        return call


class Context:
    def __init__(self, memory: Memory | None) -> None:
        self.memory = memory

    def create(self, size: int) -> Memory | None:
        assert size == 24
        return self.memory

    def get(self, name: str) -> Memory | None:
        return self.memory


ITEMS = np.arange(24, dtype=np.uint8).reshape(4, 6)
NAME = "nuclei-" + 32 * "0" + "-tiles"


def test_the_memory_is_the_bare_array() -> None:
    memory = Memory()
    with FastIOWriter(Context(memory), NAME, (4, 6), "uint8") as writer:
        writer.put(2, ITEMS[2:])
        writer.put(0, ITEMS[:2])
        writer.seal()
        writer.put(0, ITEMS[2:])  # an answer that comes too late
    assert bytes(memory.bytes) == ITEMS.tobytes()
    assert memory.calls == ["set_type_and_dimensions", "map", "unmap", "publish", "release"]
    reading = Memory()
    reading.bytes = memory.bytes
    with FastIOReader(Context(reading), f"fastio:{NAME}", (4, 6), "uint8") as reader:
        np.testing.assert_array_equal(reader.get(0, 4), ITEMS)
    assert reading.calls == ["map", "unmap", "release"]


def test_what_was_not_published_is_freed() -> None:
    memory = Memory()
    with FastIOWriter(Context(memory), NAME, (4, 6), "uint8") as writer:
        writer.put(0, ITEMS)
    assert memory.calls == ["set_type_and_dimensions", "map", "unmap", "free"]


@pytest.mark.parametrize("fails", ["set_type_and_dimensions", "map"])
def test_whatever_fails_at_first_only_means_other_memory(fails: str) -> None:
    memory = Memory(fails)
    assert FastIOWriter.make(Context(memory), NAME, (4, 6), "uint8") is None
    assert memory.calls[-1] == "free"
    assert FastIOWriter.make(Context(None), NAME, (4, 6), "uint8") is None
    assert FastIOWriter.make(object(), NAME, (4, 6), "uint8") is None


def test_memory_that_cannot_be_published_is_an_error() -> None:
    with (
        FastIOWriter(Context(Memory("publish")), NAME, (4, 6), "uint8") as writer,
        pytest.raises(NucleiError, match=r"ValueError: publish.*shm: false"),
    ):
        writer.seal()


@pytest.mark.parametrize("context", [None, Context(None), Context(Memory("map")), object()])
def test_memory_that_cannot_be_had(context: object) -> None:
    with pytest.raises(StoreError, match="shm: false"):
        FastIOReader(context, f"fastio:{NAME}", (4, 6), "uint8")
    release_allocation(context, f"fastio:{NAME}")


@pytest.mark.parametrize("wrong", ["truncated", "more"])
def test_memory_of_another_size(wrong: str) -> None:
    memory = Memory()
    shape = (5, 6) if wrong == "truncated" else (2, 6)
    if wrong == "truncated":
        with pytest.raises(StoreError):
            FastIOReader(Context(memory), f"fastio:{NAME}", shape, "uint8")
        assert memory.calls == ["map", "unmap", "release"]
    else:  # whole pages may have been given
        FastIOReader(Context(memory), f"fastio:{NAME}", shape, "uint8").close()


def test_whatever_map_returns() -> None:
    memory = (ctypes.c_ubyte * 6)(*range(6))
    address = ctypes.addressof(memory)
    for mapped in (
        memory, memoryview(memory), bytearray(range(6)), np.arange(6, dtype=np.uint8), address,
        ctypes.c_void_p(address), ctypes.cast(address, ctypes.POINTER(ctypes.c_uint8)),
    ):  # fmt: skip
        assert np.frombuffer(_bytes(mapped, 6), np.uint8, 6).tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "file",
    ["fastio:", "fastio:x", f"fastio:{NAME}.npy", f"fastio:../{NAME}", f"fastio:{NAME.replace('tiles', 'index')}"],
)
def test_a_manifest_names_memory_of_stores_only(job: Job, small_slide: Path, tmp_path: Path, file: str) -> None:
    assert job.stage("load", [("", small_slide.parent)], [("", tmp_path / "out")]).code == 0
    path = tmp_path / "out" / "manifest.json"
    good = path.read_bytes()
    Manifest.from_json(good, path)
    document = json.loads(good)
    document["arrays"]["tiles"]["file"] = file
    document["crc32"] = _checksum(document)
    with pytest.raises(StoreError, match=r'"file" of array "tiles"'):
        Manifest.from_json(json.dumps(document).encode(), path)
