"""filter in shards: whatever their number, order and folders, stitch writes the bytes of an undivided run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuclei_segmentation.operators.commands import run as run_here
from nuclei_segmentation.shared.result import SUMMARY
from nuclei_segmentation.shared.settings.shard import Shard
from nuclei_segmentation.shared.store import ledger
from nuclei_segmentation.shared.store.manifest import COMPLETE, FILE
from tests.helpers.command import Done, refused
from tests.helpers.outputs import FILES, names
from tests.helpers.slides import glass, tissue
from tests.helpers.stores import manifest, rewrite

Do = Callable[..., Done]


@pytest.fixture(scope="module")
def made(crop: np.ndarray, dark_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide, its tiles, and in ``out`` the image of an undivided run. Tests do not change it."""
    root = tmp_path_factory.mktemp("made")
    (root / "slide").mkdir()
    tissue(crop, root / "slide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NVIDIA_CLARA_NOSYNCLOCK", "1")
        assert run_here(arguments("load", root, root / "tiles", dark_config)) == 0
        assert run_here(arguments("segmentation", root / "slide", root / "out", dark_config)) == 0
    return root


@pytest.fixture
def inputs(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "in", ignore=shutil.ignore_patterns("out")))


def arguments(command: str, read: Path, write: Path, config: Path) -> list[str]:
    return [
        command, "--input-path", str(read), "--output-path", str(write), "--config-path", str(config), "-w", "2",
        *(["-t", "128"] if command in ("load", "segmentation") else []),
    ]  # fmt: skip


@pytest.fixture
def do(
    dark_config: Path, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Do:
    """Run a command in this process without waiting; filter infers a shard if one is given."""
    monkeypatch.setenv("NVIDIA_CLARA_NOSYNCLOCK", "1")
    folder = tmp_path / "config"
    folder.mkdir()

    def start(command: str, shard: str = "", *, write: Path | None = None, text: str = "", run: str = "") -> Done:
        write = write or {"load": inputs / "tiles", "filter": inputs / "masks", "stitch": tmp_path / "out"}[command]
        (folder / "config.yaml").write_text((dark_config / "config.yaml").read_text() + text)
        monkeypatch.setenv("NUCLEI_SHARD", shard)
        monkeypatch.setenv("NUCLEI_RUN_ID", run)
        capsys.readouterr()
        code = run_here(arguments(command, inputs, write, folder))
        shown = capsys.readouterr()
        return Done(code, shown.out, shown.err)

    return start


def good(done: Done) -> Done:
    assert done.code == 0, done.err
    return done


def content(folder: Path) -> dict[str, bytes]:
    """Return the files in a folder, but for the summary, in which times differ from run to run."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != SUMMARY}


def nuclei(folder: Path) -> int:
    return int(json.loads((folder / SUMMARY).read_text())["nuclei"])


@pytest.fixture
def in_shards(do: Do, inputs: Path) -> Callable[[int], Path]:
    def make(count: int) -> Path:
        for number in range(count):
            good(do("filter", f"{number}/{count}"))
        return inputs / "masks"

    return make


@pytest.mark.parametrize("shm", [False, True], ids=["disk", "shared memory"])
@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_any_number_of_shards_gives_the_same_files(
    do: Do, inputs: Path, made: Path, tmp_path: Path, count: int, shm: bool
) -> None:
    text = f"store: {{shm: {str(shm).lower()}}}\n"
    for number in reversed(range(count)):  # their order does not matter to stitch
        done = good(do("filter", f"{number}/{count}", text=text))
        assert f"shard {number}/{count}, " in done.err
    folders = [inputs / "masks" / Shard(number, count).folder for number in range(count)]
    assert sorted(inputs.joinpath("masks").iterdir()) == sorted(folders)
    shards, tiles = [manifest(folder) for folder in folders], manifest(inputs / "tiles")
    assert 3 < tiles.n < 40
    index = [np.load(folder / "index.npy")[: shard.n] for folder, shard in zip(folders, shards, strict=True)]
    np.testing.assert_array_equal(np.concatenate(index), np.load(inputs / "tiles" / "index.npy"))
    arrays = [folder / shard.arrays["masks"].file for folder, shard in zip(folders, shards, strict=True)]
    assert len(set(arrays)) == count
    assert all((path.parent == Path("/dev/shm")) == shm and path.exists() for path in arrays)
    before = [content(folder) for folder in folders]

    good(do("stitch", text=text))
    assert content(tmp_path / "out") == content(made / "out"), "image.tif and its two files"
    assert nuclei(tmp_path / "out") == nuclei(made / "out") > 10, "a nucleus on a border of shards counts once"
    assert [path for path in arrays if path.exists() == shm] == [], "shared memory is given back, files are kept"
    for folder, files in zip(folders, before, strict=True):
        assert COMPLETE in files
        assert not (folder / ".run").exists()
        assert content(folder) == files


def test_shards_of_a_slide_without_tissue_are_empty(
    do: Do, inputs: Path, tmp_path: Path, in_shards: Callable[[int], Path], crop: np.ndarray
) -> None:
    glass(crop, inputs / "slide")
    good(do("load", text="overwrite: true\n"))
    masks = in_shards(3)
    assert [manifest(folder).n for folder in sorted(masks.iterdir())] == [0, 0, 0]
    assert "0 pixels" in good(do("stitch")).out
    undivided = tmp_path / "undivided"
    shutil.rmtree(masks)
    good(do("filter"))
    good(do("stitch", write=undivided))
    assert content(undivided) == content(tmp_path / "out")


def test_shards_from_separate_folders_can_be_linked_into_one(do: Do, inputs: Path, made: Path, tmp_path: Path) -> None:
    (inputs / "masks").mkdir()
    for number in range(3):
        good(do("filter", f"{number}/3", write=tmp_path / f"node-{number}"))
        (shard,) = (tmp_path / f"node-{number}").iterdir()
        (inputs / "masks" / shard.name).symlink_to(shard)
    good(do("stitch"))
    assert content(tmp_path / "out") == content(made / "out")
    refused(do("filter", text="overwrite: true\n"), 13, "shard-0-of-3 holds", "it is a link: remove the link")
    assert all((inputs / "masks" / f"shard-{number}-of-3" / COMPLETE).exists() for number in range(3))


def test_the_first_of_two_undivided_stores_is_used(do: Do, inputs: Path, made: Path, tmp_path: Path) -> None:
    good(do("filter"))
    good(do("filter", write=inputs))
    good(do("stitch"))
    assert content(tmp_path / "out") == content(made / "out")


def test_a_shard_is_resumed_and_touches_no_other(
    do: Do, inputs: Path, made: Path, tmp_path: Path, in_shards: Callable[[int], Path]
) -> None:
    masks = in_shards(3)
    shard, others = masks / "shard-1-of-3", [masks / "shard-0-of-3", masks / "shard-2-of-3"]
    before, array = [content(folder) for folder in others], (shard / "masks.npy").read_bytes()
    generation, n = manifest(shard).generation, manifest(shard).n
    (shard / COMPLETE).unlink()  # as if it had been killed when its ledger had two tiles
    os.truncate(shard / ledger.FILE, ledger.HEADER + 2 * 20 + 7)
    refused(do("stitch"), 10, "shard-1-of-3 is not complete (2 of ", "run filter with NUCLEI_SHARD=1/3 to its end")
    done = good(do("filter", "1/3"))
    assert f"{n - 2} tiles to infer, 2 already inferred" in done.err
    assert "2 of them kept from an earlier run" in done.out
    assert manifest(shard).generation == generation
    assert (shard / "masks.npy").read_bytes() == array
    assert [content(folder) for folder in others] == before
    assert "already done" in good(do("filter", "1/3")).err
    good(do("stitch"))
    assert content(tmp_path / "out") == content(made / "out")
    assert "already done" in good(do("stitch")).err


def test_a_wrong_tile_is_named_with_its_shard_and_only_that_shard_is_rewritten(
    do: Do, made: Path, tmp_path: Path, in_shards: Callable[[int], Path]
) -> None:
    shard = in_shards(3) / "shard-2-of-3"
    array = bytearray((shard / "masks.npy").read_bytes())
    array[-5] ^= 1
    (shard / "masks.npy").write_bytes(array)
    refused(do("stitch"), 18, f"{shard / 'masks.npy'}: tile {manifest(shard).n - 1} is corrupt")
    assert "1 tile to infer" in good(do("filter", "2/3")).err
    good(do("stitch"))
    assert content(tmp_path / "out") == content(made / "out")


def test_a_missing_shard_is_named(do: Do, inputs: Path, tmp_path: Path, in_shards: Callable[[int], Path]) -> None:
    refused(do("stitch"), 10, "no map store", f"-v <folder that filter wrote>:{inputs}/masks:ro")
    masks = in_shards(3)
    shutil.rmtree(masks / "shard-1-of-3")
    words = f"the maps in {masks} are in 3 shards, of which 1/3 is missing; run filter with NUCLEI_SHARD=1/3"
    refused(do("stitch"), 10, words)
    shutil.rmtree(masks / "shard-0-of-3")
    refused(do("stitch"), 10, "of which 0/3 and 1 more are missing; run filter with NUCLEI_SHARD=0/3")
    assert not (tmp_path / "out" / "image.tif").exists()
    (masks / "shard-0-of-3").mkdir()
    (masks / "shard-0-of-3" / FILE).write_text("{")
    refused(do("stitch"), 18, f"{masks / 'shard-0-of-3' / FILE} is not JSON")


def of_another_run(masks: Path) -> None:
    rewrite(masks / "shard-1-of-3", run="yesterday")


def with_another_model(masks: Path) -> None:
    rewrite(masks / "shard-1-of-3", key="another")


def of_other_tiles(masks: Path) -> None:
    rewrite(masks / "shard-1-of-3", source="others")


def of_another_slide(masks: Path) -> None:
    slide = manifest(masks / "shard-1-of-3").slide
    rewrite(masks / "shard-1-of-3", slide=replace(slide, width=slide.width + 128))


def twice(masks: Path) -> None:
    shutil.copytree(masks / "shard-1-of-3", masks.parent / "shard-1-of-3")


def of_another_number(masks: Path) -> None:
    facts = manifest(masks / "shard-1-of-3")
    assert facts.shard is not None
    other = replace(facts.shard, count=2, number=0, first=0, total=2 * facts.n)
    folder = shutil.copytree(masks / "shard-1-of-3", masks / "shard-0-of-2")
    rewrite(Path(folder), shard=other)


def with_a_range_of_its_own(masks: Path) -> None:
    facts = manifest(masks / "shard-1-of-3")
    assert facts.shard is not None
    rewrite(masks / "shard-1-of-3", shard=replace(facts.shard, first=0))


def with_an_undivided_one(masks: Path) -> None:
    facts = manifest(masks / "shard-1-of-3")
    assert facts.shard is not None
    shape = (facts.total, *facts.arrays["masks"].shape[1:])
    index = replace(facts.arrays["index"], shape=(facts.total, 2))
    arrays = {"masks": replace(facts.arrays["masks"], shape=shape), "index": index}
    shutil.copytree(masks / "shard-1-of-3", masks, dirs_exist_ok=True)
    rewrite(masks, shard=None, n=facts.total, arrays=arrays)


AGAIN = "run filter again with NUCLEI_SHARD=1/3"
MIXED: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "another run": (of_another_run, ["shard 1/3 in", "belongs to run yesterday", "to run (unnamed)", AGAIN]),
    "another model": (with_another_model, ["shard 1/3 in", "another model, settings or version", AGAIN]),
    "other tiles": (of_other_tiles, ["shard-1-of-3 does not fit", "another tile store", AGAIN]),
    "another slide": (of_another_slide, ["shard-1-of-3", "does not fit", AGAIN]),
    "twice": (twice, ["shard 1/3 exists twice", "remove one"]),
    "two numbers": (of_another_number, ["shard-0-of-2 does not fit", "or remove it"]),
    "another range": (with_a_range_of_its_own, ["shard-1-of-3", '"shard" and "n" do not fit']),
    "undivided as well": (with_an_undivided_one, ["holds all maps", "a shard of them; remove one of the two"]),
}


@pytest.mark.parametrize("case", MIXED)
def test_shards_that_do_not_belong_together_are_refused(
    do: Do, tmp_path: Path, in_shards: Callable[[int], Path], case: str
) -> None:
    breaks, words = MIXED[case]
    masks = in_shards(3)
    breaks(masks)
    refused(do("stitch"), 18, *words)
    assert not (tmp_path / "out" / "image.tif").exists()


def test_shards_of_two_shard_sets_are_not_mixed(
    do: Do, inputs: Path, tmp_path: Path, in_shards: Callable[[int], Path]
) -> None:
    """filter would not write them into one folder, but a person may move them there."""
    masks = in_shards(3)
    good(do("filter", "1/2", write=tmp_path / "elsewhere"))
    shutil.move(tmp_path / "elsewhere" / "shard-1-of-2", masks)
    refused(do("stitch"), 18, "shard 1/2 in", "does not go with shard 0/3", "remove those of one of the two")
    shutil.rmtree(masks / "shard-0-of-3")
    shutil.rmtree(masks / "shard-2-of-3")
    refused(do("stitch"), 18, "all shards must be of the same division")


def test_another_shard_set_in_the_same_folder_is_refused_or_replaced(
    do: Do, inputs: Path, made: Path, tmp_path: Path, in_shards: Callable[[int], Path]
) -> None:
    masks = in_shards(2)
    before = {folder: content(folder) for folder in masks.iterdir()}
    for shard, words in (("2/3", "conflicts with shard 2/3"), ("", "conflicts with a store of all tiles")):
        refused(do("filter", shard), 13, f"{masks / 'shard-0-of-2'} holds a store that {words}", "overwrite: true")
    assert {folder: content(folder) for folder in masks.iterdir()} == before
    (masks / "shard-0-of-2" / "notes.txt").write_text("somebody's")
    for number in range(3):
        good(do("filter", f"{number}/3", text="overwrite: true\nstore: {shm: true}\n"))
    assert names(masks / "shard-0-of-2") == ["notes.txt"], "files of others are not touched"
    assert not (masks / "shard-1-of-2").exists()
    arrays = [Path(manifest(masks / f"shard-{number}-of-3").arrays["masks"].file) for number in range(3)]
    assert all(path.exists() for path in arrays)

    good(do("filter", text="overwrite: true\n"))
    assert not any(path.exists() for path in arrays), "shared memory was not given back"
    assert sorted(path.name for path in masks.iterdir() if path.is_dir()) == ["shard-0-of-2"]
    refused(do("filter", "0/1"), 13, f"{masks} holds a store that conflicts with shard 0/1")
    assert not (masks / "shard-0-of-1").exists()
    good(do("filter", "0/1", text="overwrite: true\n"))
    assert sorted(names(masks)) == ["shard-0-of-1", "shard-0-of-2"]
    good(do("stitch"))
    assert content(tmp_path / "out") == content(made / "out")


def test_stitch_reads_a_shard_in_a_folder_named_for_another_one(do: Do, in_shards: Callable[[int], Path]) -> None:
    """The folders were renamed by hand. stitch goes by the manifests; filter does not mistake one shard for another."""
    masks = in_shards(2)
    (masks / "shard-0-of-2").rename(masks / "x")
    (masks / "shard-1-of-2").rename(masks / "shard-0-of-2")
    (masks / "x").rename(masks / "shard-1-of-2")
    good(do("stitch"))
    refused(do("filter", "0/2"), 13, "holds another map store")


def test_the_image_is_not_written_into_a_folder_that_holds_a_store(do: Do, in_shards: Callable[[int], Path]) -> None:
    masks = in_shards(2)
    for write in (masks, masks / "shard-0-of-2"):
        refused(do("stitch", write=write), 13, "holds the map store to read")
    other = Path(shutil.copytree(masks, masks.parent / "other"))
    for command in ("stitch", "segmentation"):
        refused(do(command, write=other), 13, f"{other} holds a map store; the image needs a folder of its own")
    refused(
        do("load", write=other), 13, f"{other / 'shard-0-of-2'} holds a store that conflicts with a store of all tiles"
    )


def test_segmentation_refuses_a_shard_while_load_and_stitch_ignore_it(do: Do, inputs: Path, tmp_path: Path) -> None:
    done = do("segmentation", "0/2", write=tmp_path / "out")
    refused(done, 2, "not shard 0/2 of it: unset NUCLEI_SHARD")
    done = do("segmentation", write=tmp_path / "out", text="shard: 1/2\n")
    refused(done, 2, "not shard 1/2 of it")
    assert not (tmp_path / "out").exists()
    assert "load reads all tiles, whatever NUCLEI_SHARD" in good(do("load", "0/2")).err
    for number in range(2):
        good(do("filter", text=f"shard: {number}/2\n"))
    assert "stitch draws all shards, whatever NUCLEI_SHARD" in good(do("stitch", "0/2")).err
    assert names(tmp_path / "out") == FILES


def test_a_wrong_shard_variable_is_refused(do: Do, inputs: Path) -> None:
    refused(do("filter", "3/3"), 2, "NUCLEI_SHARD: '3/3' is not I/N, shard I of N counted from 0")
    assert not (inputs / "masks").exists()


def test_the_manifest_says_which_tiles_a_shard_holds(in_shards: Callable[[int], Path], inputs: Path) -> None:
    masks, n = in_shards(2), manifest(inputs / "tiles").n
    found = [json.loads((masks / f"shard-{number}-of-2" / FILE).read_bytes()) for number in range(2)]
    assert [one["shard"] for one in found] == [
        {"number": 0, "count": 2, "first": 0, "total": n}, {"number": 1, "count": 2, "first": n // 2, "total": n}
    ]  # fmt: skip
    assert [one["n"] for one in found] == [n // 2, n - n // 2]
    assert found[0]["key"] == found[1]["key"]
