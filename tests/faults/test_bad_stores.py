"""Stores that are broken, forged or in the wrong place: one clear line, the documented exit code."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuclei_segmentation.operators.commands import run
from nuclei_segmentation.shared.store.manifest import COMPLETE
from tests.helpers.command import Done, refused
from tests.helpers.stores import manifest, rewrite

Break = Callable[[Path], None]


@pytest.fixture(scope="module")
def made(small_slide: Path, dark_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a slide and both stores; no test changes it."""
    root = tmp_path_factory.mktemp("made")
    (root / "slide").mkdir()
    shutil.copy(small_slide, root / "slide")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NVIDIA_CLARA_NOSYNCLOCK", "1")
        for command, name in (("load", "tiles"), ("filter", "masks")):
            assert run(arguments(command, root, root / name, dark_config)) == 0
    return root


@pytest.fixture
def inputs(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "in"))


def arguments(command: str, read: Path, write: Path, config: Path) -> list[str]:
    return [
        command, "--input-path", str(read), "--output-path", str(write), "--config-path", str(config), "-w", "2",
        *(["-t", "128"] if command == "load" else []),
    ]  # fmt: skip


@pytest.fixture
def do(
    dark_config: Path, inputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    monkeypatch.setenv("NVIDIA_CLARA_NOSYNCLOCK", "1")

    def start(command: str, write: Path, read: Path = inputs, config: Path = dark_config) -> Done:
        capsys.readouterr()
        code = run(arguments(command, read, write, config))
        shown = capsys.readouterr()
        return Done(code, shown.out, shown.err)

    return start


def with_array(folder: Path, **facts: object) -> None:
    old = manifest(folder)
    arrays = dict(old.arrays)
    arrays[old.kind] = replace(arrays[old.kind], **facts)  # type: ignore[arg-type]
    rewrite(folder, arrays=arrays)


def array(folder: Path) -> Path:
    return folder / f"{manifest(folder).kind}.npy"


def file_at(place: str) -> Break:
    return lambda folder: with_array(folder, file=place)


def flipped(folder: Path) -> None:
    content = bytearray(array(folder).read_bytes())
    content[-5] ^= 1
    array(folder).write_bytes(content)


def truncated(folder: Path) -> None:
    os.truncate(array(folder), array(folder).stat().st_size - 1)


def pickled(folder: Path) -> None:
    np.save(array(folder), np.array([print, "x"], object), allow_pickle=True)


def other_type(folder: Path) -> None:
    np.save(array(folder), np.load(array(folder)).astype(np.int16))


def fortran(folder: Path) -> None:
    np.save(array(folder), np.asfortranarray(np.load(array(folder))))


def pipe(name: str) -> Break:
    def make(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def as_pipe(folder: Path) -> None:
    pipe(array(folder).name)(folder)


def as_link(folder: Path) -> None:
    array(folder).rename(folder / "elsewhere")
    array(folder).symlink_to(folder / "elsewhere")


def as_loop(folder: Path) -> None:
    path = array(folder)
    path.unlink()
    path.symlink_to(path.name)


def as_folder(folder: Path) -> None:
    path = array(folder)
    path.unlink()
    path.mkdir()


def huge(folder: Path) -> None:
    rewrite(folder, n=2**31 - 1)


def huge_shape(folder: Path) -> None:
    with_array(folder, shape=(2**31 - 1, 2**31 - 1, 2**31 - 1, 3))


def other_shape(folder: Path) -> None:
    with_array(folder, shape=(25, 128, 128, 3))


def no_json(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(b"\xff\0")


def no_arrays(folder: Path) -> None:
    rewrite(folder, arrays={})


def deep_json(folder: Path) -> None:
    (folder / "manifest.json").write_text("[" * 100_000)


def long_number(folder: Path) -> None:
    text = (folder / "manifest.json").read_text().replace('"objective": null', f'"objective": 1{"0" * 400}')
    (folder / "manifest.json").write_text(text)


def newer(folder: Path) -> None:
    text = re.sub('"version": *"[0-9.]+"', '"version": "2.0"', (folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(text)


def large_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 5 << 30)


def ledger_of_another(folder: Path) -> None:
    rewrite(folder, generation="0" * 32)


def ledger_names_too_much(folder: Path) -> None:
    facts = struct.pack("<IIQ", 10_000, 0, 1)
    with (folder / "ledger").open("ab") as file:
        file.write(facts + zlib.crc32(facts).to_bytes(4, "little"))


def complete_is_deep(folder: Path) -> None:
    (folder / COMPLETE).write_text("[" * 100_000)


BROKEN: dict[str, tuple[Break, str]] = {
    "flipped bit": (flipped, "is corrupt (its checksum differs)"),
    "truncated": (truncated, "is truncated"),
    "pickled": (pickled, "is not the array"),
    "other type": (other_type, "is not the array"),
    "Fortran order": (fortran, "is not the array"),
    "pipe": (as_pipe, "is not a regular file"),
    "link": (as_link, "it is a link"),
    "loop of links": (as_loop, "it is a link"),
    "folder": (as_folder, "is not a regular file"),
    "absolute path": (file_at("/etc/passwd"), "neither"),
    "path above": (file_at("../slide/small.tif"), "neither"),
    "the folder above": (file_at(".."), "neither"),
    "somebody's shared memory": (file_at("/dev/shm/nuclei-" + "0" * 32 + "-tiles.npy"), "neither"),
    "huge n": (huge, '"n" is'),
    "huge shape": (huge_shape, "does not fit"),
    "other shape": (other_shape, "does not fit"),
    "no array": (no_arrays, "lacks"),
    "deep JSON": (deep_json, "is not JSON"),
    "long number": (long_number, "make the store again"),
    "no JSON": (no_json, "is not JSON"),
    "newer version": (newer, "version 2.0; this program reads 1.x"),
    "manifest of 5 GiB": (large_manifest, "has more than"),
    "manifest is a pipe": (pipe("manifest.json"), "is not a regular file"),
    "ledger is a pipe": (pipe("ledger"), "is not a regular file"),
    "COMPLETE is a pipe": (pipe(COMPLETE), "is not a regular file"),
    "COMPLETE is deep JSON": (complete_is_deep, "is not JSON"),
    "ledger of another store": (ledger_of_another, "belongs to another store"),
    "ledger names what there is not": (ledger_names_too_much, "names tile 10000 of"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["tiles", "masks"])
@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_store_is_named(do: Callable[..., Done], inputs: Path, tmp_path: Path, kind: str, case: str) -> None:
    breaks, words = BROKEN[case]
    breaks(inputs / kind)
    done = do("filter" if kind == "tiles" else "stitch", tmp_path / "out")
    refused(done, 18, words)
    assert str(inputs / kind) in done.err
    out = tmp_path / "out"
    assert not (out / "image.tif").exists()
    assert not (out / COMPLETE).exists()


def test_a_store_of_another_slide_or_of_other_tiles(
    do: Callable[..., Done], inputs: Path, tmp_path: Path, sample_slide: Path
) -> None:
    other = manifest(inputs / "tiles")
    rewrite(inputs / "tiles", slide=replace(other.slide, width=701))
    refused(do("stitch", tmp_path / "out"), 18, "another slide")
    rewrite(inputs / "tiles", slide=other.slide, key="other")
    refused(do("stitch", tmp_path / "out"), 18, "another tile store")
    (inputs / "slide" / "small.tif").unlink()
    shutil.copy(sample_slide, inputs / "slide")
    refused(do("stitch", tmp_path / "out"), 18, "of another slide, small.tif, not of the cmu_small_region.svs")


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("command", ["filter", "stitch", "segmentation"])
@pytest.mark.parametrize("kind", ["tiles", "masks"])
def test_the_input_is_never_the_output(
    do: Callable[..., Done], inputs: Path, dark_config: Path, tmp_path: Path, command: str, kind: str, overwrite: bool
) -> None:
    if command == "filter" and kind == "masks":
        return  # that is its own result
    (tmp_path / "config.yaml").write_text((dark_config / "config.yaml").read_text() + f"overwrite: {overwrite}\n")
    before = {path: path.read_bytes() for path in (inputs / kind).iterdir()}
    refused(do(command, inputs / kind, config=tmp_path), 13, "tile store" if kind == "tiles" else "map store")
    assert {path: path.read_bytes() for path in (inputs / kind).iterdir()} == before


def test_a_store_of_the_other_kind_is_in_the_way(do: Callable[..., Done], inputs: Path) -> None:
    refused(do("load", inputs / "masks"), 13, "holds a map store", "overwrite: true")


@pytest.mark.parametrize("command", ["load", "filter", "stitch"])
def test_an_output_that_cannot_be_written(do: Callable[..., Done], command: str) -> None:
    refused(do(command, Path("/proc/nuclei")), 13, "cannot write")


def test_a_manifest_that_is_somebody_elses_is_kept(do: Callable[..., Done], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "my web page"}')
    refused(do("load", out), 13, "is not the manifest of a store")
    assert json.loads((out / "manifest.json").read_text()) == {"name": "my web page"}
    assert [path.name for path in out.iterdir()] == ["manifest.json"]


def test_a_manifest_of_somebody_else_beside_the_stores_does_no_harm(
    do: Callable[..., Done], inputs: Path, tmp_path: Path
) -> None:
    (inputs / "manifest.json").write_text('{"name": "my web page"}')
    done = do("stitch", tmp_path / "out")
    assert done.code == 0, done.err


@pytest.mark.parametrize("size", [4, 24, 64, 400, 700])
@pytest.mark.parametrize("command", ["load", "filter"])
def test_a_full_disk(do: Callable[..., Done], tmp_path: Path, command: str, size: int) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(disk)]
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.strip()}")
    try:
        done = do(command, disk / "out")
        if done.code == 0:
            assert size == 700
            assert (disk / "out" / COMPLETE).exists()
            return
        refused(done, 14, "no space left", "free")
        left = [path.name for path in (disk / "out").iterdir()] if (disk / "out").exists() else []
        assert set(left) <= {".run"}, "something half-written was left"
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert do(command, disk / "out").code == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)
