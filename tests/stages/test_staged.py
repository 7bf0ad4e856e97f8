"""load, filter and stitch, run one after the other through stores, write the bytes of `segmentation`."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuclei_segmentation.operators.commands import run
from nuclei_segmentation.shared.store.manifest import read_manifest
from tests.helpers.slides import glass, tiff, tissue

Prepare = Callable[[np.ndarray, Path], None]
SHARED = Path("/dev/shm")


def smaller_than_a_tile(crop: np.ndarray, folder: Path) -> None:
    corners = [(y, x) for y in range(0, 400, 50) for x in range(0, 550, 50)]
    y, x = min(corners, key=lambda at: crop[at[0] : at[0] + 100, at[1] : at[1] + 150, 1].min())
    tiff(folder / "slide.tif", crop[y : y + 100, x : x + 150], 64)


def damaged(crop: np.ndarray, folder: Path) -> None:
    tiff(folder / "slide.tif", crop, 128)
    with tifffile.TiffFile(folder / "slide.tif") as file:
        places = [file.pages[0].dataoffsets[number] for number in (8, 14)]
        lengths = [file.pages[0].databytecounts[number] for number in (8, 14)]
    with (folder / "slide.tif").open("r+b") as file:
        for place, length in zip(places, lengths, strict=True):
            file.seek(place + length // 3)
            file.write(b"\xff\xd9" * (length // 3))


def with_render_settings(crop: np.ndarray, folder: Path) -> None:
    tissue(crop, folder)
    (folder / "config_render.json").write_bytes(b'{"a": 1}  \n')


CASES: dict[str, tuple[Prepare, list[str], str]] = {
    "plain": (tissue, [], ""),
    "no tissue": (glass, [], ""),
    "overlap": (tissue, ["-t", "128", "-o", "32"], ""),
    "small tiles": (tissue, ["-t", "64"], ""),
    "large tiles": (tissue, ["-t", "512"], ""),
    "no mask": (tissue, [], "mask: none\n"),
    "damaged": (damaged, ["-t", "128"], "damaged: {limit: 0.5}\n"),
    "damaged, tiles of the image's size": (damaged, [], "damaged: {limit: 1}\n"),
    "one small tile": (smaller_than_a_tile, [], "mask: none\n"),
    "fill": (tissue, [], "overlay: {style: fill, color: [255, 0, 0], opacity: 0.5}\n"),
    "render settings": (with_render_settings, [], ""),
    "shared memory": (tissue, [], "store: {shm: true}\n"),
    "shared memory by a variable": (tissue, [], ""),
}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_CLARA_NOSYNCLOCK", "TRUE")
    for name in ("NVIDIA_CLARA_TRTISURI", "NVIDIA_TRITON_HTTPURI", "CLARA_TRITON_URI"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("case", CASES)
def test_staged_and_fused_runs_write_the_same_bytes(
    case: str, crop: np.ndarray, dark_config: Path, tmp_path: Path, alone: None, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    prepare, options, text = CASES[case]
    if case == "shared memory by a variable":
        monkeypatch.setenv("NUCLEI_STORE_SHM", "TRUE")
    slide, config, inputs = (tmp_path / name for name in ("slide", "config", "in"))
    for folder in (slide, config, inputs):
        folder.mkdir()
    prepare(crop, slide)
    (inputs / "slide").symlink_to(slide)

    def do(command: str, read: Path, write: Path, workers: int, batch: int, *more: str) -> str:
        common = (dark_config / "config.yaml").read_text()
        (config / "config.yaml").write_text(f"{common}{text}inference: {{batch: {batch}}}\n")
        arguments = [
            command, "--input-path", str(read), "--output-path", str(write), "--config-path", str(config),
            "-w", str(workers), *more,
        ]  # fmt: skip
        code = run(arguments)
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return shown.out

    fused = do("segmentation", slide, tmp_path / "fused", 2, 4, *options)
    do("load", slide, inputs / "tiles", 3, 1, *options)
    arrays = [read_manifest(inputs / "tiles")]
    do("filter", inputs, inputs / "masks", 1, 3)
    arrays.append(read_manifest(inputs / "masks"))
    staged = do("stitch", inputs, tmp_path / "staged", 2, 1)

    for name in ("image.tif", "config_render.json", "config.meta"):
        one, other = ((tmp_path / run / name).read_bytes() for run in ("fused", "staged"))
        assert one == other, name
    assert sorted(path.name for path in (tmp_path / "staged").iterdir()) == sorted(
        path.name for path in (tmp_path / "fused").iterdir()
    )
    for line in ("tiles", "nuclei", "damaged"):
        assert re.findall(rf"^{line} .*", fused, re.MULTILINE) == re.findall(rf"^{line} .*", staged, re.MULTILINE)
    nuclei = re.search(r"nuclei +[0-9,]+; ([0-9,]+) pixels", staged)
    assert nuclei
    assert (int(nuclei[1].replace(",", "")) == 0) == (case == "no tissue")
    assert ("could not be read" in staged) == case.startswith("damaged")
    for manifest in arrays:
        assert manifest is not None
        large = Path(manifest.arrays[manifest.kind].file)
        assert large.is_absolute() == case.startswith("shared memory")
        assert not large.is_absolute() or not large.exists(), "shared memory was not given back"


def test_the_render_settings_of_the_slide_reach_stitch_through_the_store(
    crop: np.ndarray, dark_config: Path, tmp_path: Path, alone: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """In containers stitch may see only the slide's file; its config_render.json then comes with the tiles."""
    slide, inputs = tmp_path / "slide", tmp_path / "in"
    slide.mkdir()
    (inputs / "slide").mkdir(parents=True)
    with_render_settings(crop, slide)
    shutil.copy(slide / "slide.tif", inputs / "slide")

    def do(command: str, read: Path, write: Path) -> None:
        options = ["--input-path", str(read), "--output-path", str(write), "--config-path", str(dark_config)]
        assert run([command, *options]) == 0, capsys.readouterr().err

    do("load", slide, inputs / "tiles")
    do("filter", inputs, inputs / "masks")
    do("stitch", inputs, tmp_path / "out")
    assert (tmp_path / "out" / "config_render.json").read_bytes() == b'{"a": 1}  \n'
    (slide / "config_render.json").write_text('{"new": 1}')
    do("load", slide, inputs / "tiles")
    do("stitch", inputs, tmp_path / "out")
    assert (tmp_path / "out" / "config_render.json").read_text() == '{"new": 1}'
    (slide / "config_render.json").unlink()
    do("load", slide, inputs / "tiles")
    assert not (inputs / "tiles" / "config_render.json").exists()
