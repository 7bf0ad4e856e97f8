"""A fused run: slide in, three files out; the same bytes however it is run."""

from __future__ import annotations

import json
import re
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np
import openslide
import pytest
import pyvips
import tifffile

from tests.helpers.command import Run
from tests.helpers.outputs import FILES, digest, names
from tests.helpers.slides import tissue_like


def test_slide_in_three_files_out(run: Run, arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments)
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == FILES
    meta = json.loads((tmp_path / "out" / "config.meta").read_text())
    assert (meta["density"], meta["settings"]) == ("image.tif", "config_render.json")
    json.loads((tmp_path / "out" / "config_render.json").read_text())


def test_the_log_says_what_the_run_needs_and_the_summary_what_it_did(
    run: Run, arguments: list[str], tmp_path: Path
) -> None:
    done = run(*arguments)
    assert re.search(r"6 tiles of 256, \d with tissue: about .* at most .* of memory and .* of disk", done.err)
    assert "no config_render.json beside the slide" in done.err
    for fact in ("small.tif", "700 x 500", "0.5 µm", "nuclei", "peak memory", "load", "filter", "stitch", "QuPath"):
        assert fact in done.out
    assert str(tmp_path / "out" / "image.tif") in done.out


def test_three_readers_open_the_image_and_agree(
    run: Run, arguments: list[str], tmp_path: Path, crop: np.ndarray
) -> None:
    assert run(*arguments).code == 0
    path = tmp_path / "out" / "image.tif"
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions == ((700, 500), (350, 250), (175, 125))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.5)
        seen = np.asarray(slide.read_region((0, 0), 0, (700, 500)))[..., :3]
    np.testing.assert_array_equal(seen, tifffile.imread(path, level=0))
    assert np.abs(pyvips.Image.new_from_file(str(path)).numpy().astype(int) - seen).max() <= 3
    drawn = (seen[..., 1] > 200) & (seen[..., 0] < 120) & (seen[..., 2] < 120)
    assert 0.001 < drawn.mean() < 0.5
    far = ~np.asarray(
        [[drawn[max(0, y - 17) : y + 18, max(0, x - 17) : x + 18].any() for x in range(0, 700, 8)]
         for y in range(0, 500, 8)]
    )  # fmt: skip
    differences = np.abs(seen[::8, ::8].astype(int) - crop[::8, ::8])[far]
    assert np.percentile(differences, 99) <= 24  # outside the overlay the image is the slide, except for JPEG


@pytest.mark.parametrize(
    ("options", "config"),
    [(["-w", "1"], ""), (["-w", "5"], "inference: {batch: 3}"), (["-w", "2"], "inference: {batch: 64}")],
)
def test_the_same_bytes_whatever_the_workers_batches_and_folders(
    run: Run, arguments: list[str], dark_config: Path, tmp_path: Path, options: list[str], config: str
) -> None:
    assert run(*arguments).code == 0
    other = tmp_path / "other name"
    other.mkdir()
    (other / "config.yaml").write_text((dark_config / "config.yaml").read_text() + config)
    again = run(
        *arguments, *options, "--output-path", other / "result", "--config-path", other, TZ="Asia/Tokyo", LC_ALL="C"
    )
    assert again.code == 0, again.err
    assert digest(other / "result") == digest(tmp_path / "out")


def test_the_image_holds_no_date_version_name_or_text_of_the_slide(
    run: Run, arguments: list[str], tmp_path: Path
) -> None:
    names = {"Artist": 315, "HostComputer": 316, "DocumentName": 269, "Copyright": 33432}
    tags = [(code, 2, None, f"Mrs Example, {name}", True) for name, code in names.items()]
    (tmp_path / "in").mkdir()
    tifffile.imwrite(
        tmp_path / "in" / "S24-1234.tif", tissue_like(300, 300), photometric="rgb", metadata=None, extratags=tags,
        description="Mrs Example|MPP = 0.5|Date = 01/02/24", datetime="2024:02:01 10:11:12", software="Example v1",
    )  # fmt: skip
    done = run(*arguments, "--input-path", tmp_path / "in")
    assert done.code == 0, done.err
    path = tmp_path / "out" / "image.tif"
    with tifffile.TiffFile(path) as file:
        assert file.pages[0].software == "nuclei-segmentation-operators"
        for page in file.pages:
            assert not {tag.name for tag in page.tags} & {"DateTime", *names}
    content = path.read_bytes()
    for text in (b"Example", b"2024", b"01/02/24", b"S24", version("nuclei-segmentation-operators").encode()):
        assert text not in content, text


def test_an_image_of_the_first_layout_is_not_taken_for_this_runs(
    run: Run, arguments: list[str], dark_config: Path, tmp_path: Path
) -> None:
    assert run(*arguments).code == 0
    out, image = tmp_path / "out", (tmp_path / "out" / "image.tif").read_bytes()
    for name, key in (("config.meta", "run"), ("summary.json", "key")):
        document = json.loads((out / name).read_text())
        document[key] = "0" * 64  # the key had no layout
        document.pop("layout", None)
        (out / name).write_text(json.dumps(document))
    refused = run(*arguments)
    assert refused.code == 13
    assert "holds another result (layout of image.tif 1 -> 2); use an empty folder, or set `overwrite" in refused.err
    assert (out / "image.tif").read_bytes() == image
    config = tmp_path / "replace"
    config.mkdir()
    (config / "config.yaml").write_text((dark_config / "config.yaml").read_text() + "overwrite: true\n")
    assert run(*arguments, "--config-path", config).code == 0
    assert json.loads((out / "summary.json").read_text())["layout"] == 2


def test_the_render_settings_are_copied_byte_for_byte(
    run: Run, arguments: list[str], small_slide: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "input"
    folder.mkdir()
    shutil.copy(small_slide, folder)
    odd = b'\xef\xbb\xbf{ "a":1,\r\n"a":2, "b": NaN }  \n'
    (folder / "config_render.json").write_bytes(odd)
    done = run(*arguments, "--input-path", folder)
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "config_render.json").read_bytes() == odd


def test_the_input_may_be_the_slide_file_itself(
    run: Run, arguments: list[str], small_slide: Path, tmp_path: Path
) -> None:
    done = run(*arguments, "--input-path", small_slide)
    assert done.code == 0, done.err
    assert names(tmp_path / "out") == FILES


def test_overlap_changes_nothing_for_a_model_without_context(run: Run, arguments: list[str], tmp_path: Path) -> None:
    assert run(*arguments).code == 0
    done = run(*arguments, "-o", "64", "--output-path", tmp_path / "overlap")
    assert done.code == 0, done.err
    assert "times as many pixels are inferred as without" in done.err
    assert digest(tmp_path / "overlap") == digest(tmp_path / "out")


def test_debug_logs_what_each_part_chose(run: Run, arguments: list[str]) -> None:
    done = run(*arguments, "-d", "DEBUG")
    for fact in ("reader:", "tissue mask", "embedded engine", "run key", "overlap 0"):
        assert fact in done.err, done.err


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (256, 256), (257, 255)])
def test_a_slide_may_be_tiny_or_without_tissue(
    run: Run, arguments: list[str], tmp_path: Path, size: tuple[int, int]
) -> None:
    (tmp_path / "in").mkdir()
    tifffile.imwrite(
        tmp_path / "in" / "white.tif", np.full((*size, 3), 243, np.uint8), photometric="rgb", metadata=None
    )
    done = run(*arguments, "--input-path", tmp_path / "in")
    assert done.code == 0, done.err
    assert "no tissue found" in done.err
    assert "pixel size" in done.err
    with tifffile.TiffFile(tmp_path / "out" / "image.tif") as file:
        assert file.pages[0].shape == (*size, 3)


def test_every_tile_is_inferred_without_a_mask(
    run: Run, arguments: list[str], dark_config: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.yaml").write_text((dark_config / "config.yaml").read_text() + "mask: none\n")
    done = run(*arguments, "--config-path", tmp_path)
    assert "6 tiles of 256, 6 with tissue" in done.err
