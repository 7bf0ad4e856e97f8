"""Bad input of every class: one clear line, the documented exit code, nothing half-written."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import tifffile
from onnx import TensorProto, helper

from tests.helpers.command import NAME, Done, Run, command, environment, refused
from tests.helpers.outputs import size_of_journal

Prepare = Callable[[Path, Path], None]


def missing(folder: Path, slide: Path) -> None:
    folder.rmdir()


def empty(folder: Path, slide: Path) -> None:
    (folder / "notes.txt").write_text("x")
    (folder / ".hidden.svs").write_text("x")


def two(folder: Path, slide: Path) -> None:
    shutil.copy(slide, folder / "first.tif")
    shutil.copy(slide, folder / "second.tif")


def directory(folder: Path, slide: Path) -> None:
    (folder / "x.svs").mkdir()


def fifo(folder: Path, slide: Path) -> None:
    os.mkfifo(folder / "x.svs")


def dangling(folder: Path, slide: Path) -> None:
    (folder / "x.svs").symlink_to(folder / "gone.svs")


def text(folder: Path, slide: Path) -> None:
    (folder / "x.svs").write_text("This is not a slide.\n")


def zero_bytes(folder: Path, slide: Path) -> None:
    (folder / "x.svs").touch()


def only_a_header(folder: Path, slide: Path) -> None:
    (folder / "x.tif").write_bytes(slide.read_bytes()[:8])


def directory_cut_off(folder: Path, slide: Path) -> None:
    data = slide.read_bytes()
    first = struct.unpack("<I", data[4:8])[0]
    (folder / "x.tif").write_bytes(data[: first + 20])


def claims_two_billion(folder: Path, slide: Path) -> None:
    """Write a TIFF of a few hundred bytes that claims 2³¹ - 1 by 2³¹ - 1 pixels."""
    side = 2**31 - 1
    entries = [
        (256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 6), (277, 3, 1, 3),
        (322, 4, 1, 256), (323, 4, 1, 256), (324, 4, 1, 200), (325, 4, 1, 10),
    ]  # fmt: skip
    data = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    data += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    (folder / "x.tif").write_bytes(data.ljust(1024, b"\0"))


@pytest.mark.parametrize(
    ("prepare", "code"),
    [
        (missing, 10), (empty, 10), (two, 10), (directory, 10), (fifo, 10), (dangling, 10),
        (text, 11), (zero_bytes, 11), (only_a_header, 11), (directory_cut_off, 11), (claims_two_billion, 11),
    ],
)  # fmt: skip
def test_an_input_that_is_no_slide(
    run: Run, arguments: list[str], small_slide: Path, tmp_path: Path, prepare: Prepare, code: int
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    prepare(folder, small_slide)
    done = run(*arguments, "--input-path", folder)
    refused(done, code, str(folder) if code == 10 else "x.")
    assert not (tmp_path / "out").exists()


def test_a_truncated_slide_has_more_damage_than_allowed(
    run: Run, arguments: list[str], crop: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    tifffile.imwrite(
        folder / "big.tif",
        np.tile(crop, (3, 3, 1)),
        tile=(240, 240),
        photometric="rgb",
        compression="jpeg",
        metadata=None,
    )
    data = (folder / "big.tif").read_bytes()
    (folder / "big.tif").write_bytes(data[: len(data) // 2])
    done = run(*arguments, "--input-path", folder)
    assert done.code in (11, 12)
    refused(done, done.code)
    assert not (tmp_path / "out" / "image.tif").exists()


@pytest.fixture
def damaged(crop: np.ndarray, tmp_path: Path) -> Path:
    """A folder with a slide of 2100 x 1500 pixels of which one stored tile is no JPEG any more."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    path = folder / "slide.tif"
    tifffile.imwrite(
        path, np.tile(crop, (3, 3, 1)), tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None
    )
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[20], file.pages[0].databytecounts[20]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\xff" * count)
    return folder


def test_a_damaged_tile_is_hatched_counted_and_listed(
    run: Run, arguments: list[str], dark_config: Path, damaged: Path, tmp_path: Path
) -> None:
    """Tile 20 of 9 a row: row 2, column 2."""
    (tmp_path / "config.yaml").write_text((dark_config / "config.yaml").read_text() + "damaged: {limit: 0.05}\n")
    done = run(*arguments, "--input-path", damaged, "--config-path", tmp_path)
    assert done.code == 0, done.err
    assert "could not be read, hatched: x 512 to 767, y 512 to 767" in done.err
    assert "1 places could not be read" in done.out or "1 place could not be read" in done.out
    image = tifffile.imread(tmp_path / "out" / "image.tif", level=0)
    assert image[512:768, 512:768].std() > 40
    refused(run(*arguments, "--input-path", damaged, "--output-path", tmp_path / "strict"), 12, "damaged.limit")
    assert not (tmp_path / "strict" / "image.tif").exists()


def test_flipped_bits_end_in_a_result_or_a_clear_line(
    run: Run, arguments: list[str], small_slide: Path, tmp_path: Path
) -> None:
    data = bytearray(small_slide.read_bytes())
    chance = np.random.default_rng(5)
    with tifffile.TiffFile(small_slide) as file:
        spans = list(zip(file.pages[0].dataoffsets, file.pages[0].databytecounts, strict=True))
    for number in range(8):
        folder = tmp_path / f"in{number}"
        folder.mkdir()
        flipped = bytearray(data)
        for offset, count in spans:
            flipped[offset + int(chance.integers(count))] ^= 1 << int(chance.integers(8))
        (folder / "flipped.tif").write_bytes(flipped)
        done = run(*arguments, "--input-path", folder, "--output-path", tmp_path / f"out{number}")
        assert done.code in (0, 11, 12)
        if done.code:
            refused(done, done.code)
            assert not (tmp_path / f"out{number}" / "image.tif").exists()


def test_a_slide_that_changes_during_the_run(run: Run, arguments: list[str], small_slide: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(small_slide, folder / "x.tif")
    with subprocess.Popen(
        command(*arguments, "--input-path", folder, "-t", "16"), stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        while process.poll() is None and not size_of_journal(tmp_path / "out"):
            time.sleep(0.001)
        with (folder / "x.tif").open("ab") as file:
            file.write(b"more")
        _, told = process.communicate()
    refused(Done(process.returncode, "", told), 11, "changed while it was read")
    assert not (tmp_path / "out" / "image.tif").exists()


def test_an_output_that_cannot_be_written(run: Run, arguments: list[str], small_slide: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused(run(*arguments, "--output-path", tmp_path / "file" / "out"), 13, "cannot write")
    refused(run(*arguments, "--output-path", "/proc/out"), 13, "cannot write")
    refused(run(*arguments, "--output-path", small_slide.parent), 13, "is the input folder")
    assert [path.name for path in small_slide.parent.iterdir()] == ["small.tif"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"mounting a small file system needs root: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_too_small_is_refused_before_the_work(run: Run, arguments: list[str], tiny_disk: Path) -> None:
    done = run(*arguments, "--output-path", tiny_disk / "out")
    refused(done, 14, "free", "needs up to")


def test_a_disk_that_fills_up_during_the_work(run: Run, arguments: list[str], tiny_disk: Path) -> None:
    """Noise, of which the model makes noise: its maps do not compress, and take more than was set aside for them."""
    folder = tiny_disk.parent / "noise"
    folder.mkdir()
    noise = np.random.default_rng(1).integers(0, 256, (1024, 1024, 3), np.uint8)
    tifffile.imwrite(folder / "noise.tif", noise, tile=(256, 256), photometric="rgb", metadata=None)
    (folder / "config.yaml").write_text((Path(arguments[6]) / "config.yaml").read_text() + "mask: none\n")
    noisy = [*arguments, "--input-path", folder, "--output-path", tiny_disk / "out", "--config-path", folder]
    subprocess.run(["mount", "-o", "remount,size=1100k", str(tiny_disk)], check=True)
    needs = re.search(r"needs up to ([0-9.]+) MiB", run(*noisy).err)
    assert needs
    size = int(float(needs[1]) * 1024) + 200
    subprocess.run(["mount", "-o", f"remount,size={size}k", str(tiny_disk)], check=True)
    refused(run(*noisy), 14, "no space left")
    assert [path.name for path in (tiny_disk / "out").iterdir()] == [".run"]
    subprocess.run(["mount", "-o", f"remount,size={size + 2500}k", str(tiny_disk)], check=True)
    done = run(*noisy)
    assert done.code == 0, "with room for the maps too, the run goes on"
    assert "already inferred" in done.err


def test_a_bad_configuration_names_all_its_errors(run: Run, arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("overlay: {colour: red}\njpeg: {quality: 200}\nspeed: high\n")
    done = run(*arguments, "--config-path", tmp_path)
    refused(done, 2, "overlay.colour", "jpeg.quality", "speed", lines=3)
    assert not (tmp_path / "out").exists()


def test_a_missing_model(run: Run, arguments: list[str], tmp_path: Path) -> None:
    refused(run(*arguments, "-m", "other"), 15, "other", NAME)
    assert list((tmp_path / "out").iterdir()) == []


def make_model(folder: Path, output: list[object], node: onnx.NodeProto, *constants: onnx.TensorProto) -> None:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT), node], "m",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)], list(constants),
    )  # fmt: skip
    path = folder / "models" / NAME / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    (folder / "config.yaml").write_text(f"models: {{repository: {folder / 'models'}}}\n")


def test_a_model_that_answers_with_no_probabilities(run: Run, arguments: list[str], tmp_path: Path) -> None:
    make_model(tmp_path, ["n", "h", "w", 3], helper.make_node("Identity", ["f"], ["y"]))  # 0 to 255
    refused(run(*arguments, "--config-path", tmp_path), 15, NAME)


def test_a_model_that_answers_with_not_a_number(run: Run, arguments: list[str], tmp_path: Path) -> None:
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    make_model(tmp_path, ["n", "h", "w", 3], helper.make_node("Mod", ["f", "zero"], ["y"], fmod=1), zero)
    refused(run(*arguments, "--config-path", tmp_path), 15)


def test_a_model_file_that_is_none(run: Run, arguments: list[str], tmp_path: Path) -> None:
    path = tmp_path / "models" / NAME / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x08\x09 not a model")
    (tmp_path / "config.yaml").write_text(f"models: {{repository: {tmp_path / 'models'}}}\n")
    refused(run(*arguments, "--config-path", tmp_path), 15, "model.onnx")


def test_a_triton_that_is_not_there_is_an_error_and_no_reason_to_infer_elsewhere(
    run: Run, arguments: list[str], dark_config: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text((dark_config / "config.yaml").read_text() + "inference: {retries: 1}\n")
    done = run(*arguments, "--config-path", tmp_path, NVIDIA_CLARA_TRTISURI="127.0.0.1:9")
    refused(done, 16, "127.0.0.1:9", "NVIDIA_CLARA_TRTISURI")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_address_that_is_none(run: Run, arguments: list[str], tmp_path: Path) -> None:
    refused(run(*arguments, NVIDIA_CLARA_TRTISURI="https://gpu"), 2, "host:port")
    assert not (tmp_path / "out").exists()


def test_a_render_configuration_of_a_gigabyte_is_not_copied(
    run: Run, arguments: list[str], small_slide: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(small_slide, folder)
    with (folder / "config_render.json").open("wb") as file:
        file.truncate(1 << 30)
    done = run(*arguments, "--input-path", folder)
    refused(done, 10, "config_render.json")
    assert not (tmp_path / "out" / "image.tif").exists()
