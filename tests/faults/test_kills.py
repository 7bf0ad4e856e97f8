"""Killed at every single write, force and rename of every stage, the next run ends with the same bytes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from nuclei_segmentation.shared.store import release_shared_memory
from nuclei_segmentation.shared.store.manifest import read_manifest
from tests.helpers.command import ROOT, Run, environment


@pytest.fixture(scope="module")
def tiny_slide(crop: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six tiles of 64 pixels; a config_render.json lies beside it."""
    folder = tmp_path_factory.mktemp("tiny")
    tifffile.imwrite(
        folder / "tiny.tif", crop[100:220, 200:390], tile=(64, 64), photometric="rgb", compression="jpeg",
        compressionargs={"level": 90}, resolution=(20000, 20000), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip
    (folder / "config_render.json").write_text("{}")
    return folder


@pytest.fixture(scope="module", params=["disk", "shared memory"])
def config(request: pytest.FixtureRequest, dark_config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("config")
    text = (dark_config / "config.yaml").read_text() + "mask: none\n"
    if request.param == "shared memory":
        text += "store: {shm: true}\n"
    (folder / "config.yaml").write_text(text)
    return folder


def killed_everywhere(
    tmp_path: Path,
    arguments: list[str],
    *,
    restore: list[str] | None = None,
    shard: str = "",
    beside: Path | None = None,
) -> dict[str, Any]:
    output = tmp_path / "out"
    job = {
        "arguments": [*arguments, "--output-path", str(output)],
        "output": str(output / shard), "log": str(tmp_path / "log"), "restore": restore or [],
        "beside": str(beside or ""),
    }  # fmt: skip
    number, _, count = shard.removeprefix("shard-").partition("-of-")
    done = subprocess.run(
        [sys.executable, "-m", "tests.helpers.kills"], input=json.dumps(job), capture_output=True, text=True, cwd=ROOT,
        check=False, env=environment(
            NVIDIA_CLARA_NOSYNCLOCK="TRUE", OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1",
            NUCLEI_SHARD=f"{number}/{count}" if shard else "",
        ),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert not found["problems"], found["problems"][0]
    return found


def options(config: Path, folder: Path) -> list[str]:
    return ["--input-path", str(folder), "--config-path", str(config), "-t", "64", "-w", "1"]


@pytest.fixture
def inputs(run: Run, tiny_slide: Path, config: Path, tmp_path: Path) -> Path:
    """A folder with the slide, and a tile store and a map store in its subfolders."""
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "slide").symlink_to(tiny_slide)
    alone = {"NVIDIA_CLARA_NOSYNCLOCK": "1"}
    for command, read, name in (("load", tiny_slide, "tiles"), ("filter", folder, "masks")):
        done = run(command, *options(config, read), "--output-path", folder / name, **alone)
        assert done.code == 0, done.err
    return folder


def arrays_of(folder: Path) -> list[str]:
    """Return the arrays in shared memory of the stores in a folder."""
    found = [read_manifest(path.parent) for path in sorted(folder.rglob("manifest.json"))]
    return [
        facts.file for one in found if one for facts in one.arrays.values() if facts.file.startswith("/dev/shm/nuclei-")
    ]


def test_load_killed_at_every_step_ends_with_the_same_bytes(tiny_slide: Path, config: Path, tmp_path: Path) -> None:
    found = killed_everywhere(tmp_path, ["load", *options(config, tiny_slide)])
    assert found["tiles"] == 6
    assert found["resumed"] == 6
    assert found["steps"] > 20


def test_filter_killed_at_every_step_ends_with_the_same_bytes(inputs: Path, config: Path, tmp_path: Path) -> None:
    try:
        found = killed_everywhere(tmp_path, ["filter", *options(config, inputs)])
    finally:
        for kind in ("tiles", "masks"):
            manifest = read_manifest(inputs / kind)
            assert manifest is not None
            release_shared_memory(manifest)
    assert found["tiles"] == 6
    assert found["resumed"] == 6
    assert found["steps"] > 20


def given_back(inputs: Path) -> None:
    for folder in inputs.rglob("manifest.json"):
        manifest = read_manifest(folder.parent)
        assert manifest is not None
        release_shared_memory(manifest)


def test_a_shard_of_filter(inputs: Path, config: Path, tmp_path: Path) -> None:
    try:
        found = killed_everywhere(tmp_path, ["filter", *options(config, inputs)], shard="shard-1-of-2")
    finally:
        given_back(inputs)
    assert found["tiles"] == 3
    assert found["resumed"] == 3
    assert found["steps"] > 20


def test_a_shard_that_replaces_another_division(run: Run, inputs: Path, config: Path, tmp_path: Path) -> None:
    """The others' files are gone at the end, whenever it was killed; they are on the disk, to be put back each time."""
    old, folder = tmp_path / "old", tmp_path / "config"
    folder.mkdir()
    text = (config / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text.replace("shm: true", "shm: false"))
    for number in range(3):
        variables = {"NVIDIA_CLARA_NOSYNCLOCK": "1", "NUCLEI_SHARD": f"{number}/3"}
        done = run("filter", *options(folder, inputs), "--output-path", old, **variables)
        assert done.code == 0, done.err
    (folder / "config.yaml").write_text(text + "overwrite: true\n")
    try:
        arguments = ["filter", *options(folder, inputs)]
        found = killed_everywhere(tmp_path, arguments, shard="shard-0-of-2", beside=old)
    finally:
        given_back(inputs)
    assert found["tiles"] == 3
    assert found["steps"] > 50


def test_stitch_of_shards(run: Run, inputs: Path, config: Path, tmp_path: Path) -> None:
    whole = read_manifest(inputs / "masks")
    assert whole is not None
    release_shared_memory(whole)
    shutil.rmtree(inputs / "masks")
    for number in range(2):
        variables = {"NVIDIA_CLARA_NOSYNCLOCK": "1", "NUCLEI_SHARD": f"{number}/2"}
        done = run("filter", *options(config, inputs), "--output-path", inputs / "masks", **variables)
        assert done.code == 0, done.err
    arrays = arrays_of(inputs)
    try:
        found = killed_everywhere(tmp_path, ["stitch", *options(config, inputs)], restore=arrays)
    finally:
        for path in arrays:
            Path(path).unlink(missing_ok=True)
    assert found["steps"] > 20


def test_stitch_killed_at_every_step_ends_with_the_same_bytes(inputs: Path, config: Path, tmp_path: Path) -> None:
    arrays = arrays_of(inputs)
    try:
        found = killed_everywhere(tmp_path, ["stitch", *options(config, inputs)], restore=arrays)
    finally:
        for path in arrays:
            Path(path).unlink(missing_ok=True)
    assert found["steps"] > 20


def test_segmentation_killed_at_every_step_ends_with_the_same_bytes(
    tiny_slide: Path, dark_config: Path, tmp_path: Path
) -> None:
    found = killed_everywhere(tmp_path, ["segmentation", *options(dark_config, tiny_slide)])
    assert found["steps"] > 20
