"""The package as a library: its page's examples run, its names exist, it is quiet, and importing it costs nothing."""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import nuclei_segmentation
from nuclei_segmentation import (
    ConfigError,
    InputError,
    MaskSettings,
    OutputError,
    OverlaySettings,
    Region,
    Segmenter,
    Settings,
    UsageError,
    open_slide,
    read_nuclei,
    segment,
)
from nuclei_segmentation.shared.runtime.recorder import LOGGER

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def image(sample_slide: Path) -> np.ndarray:
    with open_slide(sample_slide) as slide:
        return slide.read(Region(300, 100, 700, 500)).pixels


def test_the_examples_of_the_page_run(sample_slide: Path, tmp_path: Path) -> None:
    shutil.copy(sample_slide, tmp_path / "slide.svs")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) >= 3
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(blocks)], cwd=tmp_path, capture_output=True, text=True,
        check=False, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "2415 nuclei on 0.6" in done.stdout
    assert "2346 nuclei, mean area 2" in done.stdout
    assert "(500, 700) float32" in done.stdout
    assert "10 missing.svs" in done.stdout
    assert done.stderr == ""
    assert (tmp_path / "result" / "image.tif").is_file()


def test_the_advice_for_a_result_without_summary_holds(sample_slide: Path, tmp_path: Path) -> None:
    first = segment(sample_slide, tmp_path)
    content = first.image.read_bytes()
    (tmp_path / "summary.json").unlink()
    with pytest.raises(OutputError, match=f"remove {re.escape(str(first.image))} to make the result again"):
        segment(sample_slide, tmp_path)
    assert first.image.read_bytes() == content
    first.image.unlink()
    again = segment(sample_slide, tmp_path)
    assert (again.nuclei, again.already_done) == (first.nuclei, False)
    assert first.image.read_bytes() == content


def test_every_public_name_exists_and_nothing_else_is_public() -> None:
    for name in nuclei_segmentation.__all__:
        assert getattr(nuclei_segmentation, name) is not None, name
    assert sorted(nuclei_segmentation.__all__) == dir(nuclei_segmentation)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = nuclei_segmentation.nonsense
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", nuclei_segmentation.__version__)


def test_importing_the_package_imports_no_library() -> None:
    code = "import sys, nuclei_segmentation; print([m for m in ('numpy', 'cv2', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_all_loggers_are_below_one_that_is_silent() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger(LOGGER).handlers)
    for folder in ("operators", "shared", "pipelines", "package"):
        for path in (ROOT / folder).rglob("*.py"):
            for argument in re.findall(r"getLogger\((.*?)\)", path.read_text()):
                assert argument in ("__name__", "LOGGER"), path


def test_maps_and_labels_have_the_size_of_the_image(image: np.ndarray) -> None:
    with Segmenter(settings=Settings(num_workers=2)) as segmenter:
        found = segmenter(image)
        odd = segmenter(np.ascontiguousarray(image[:101, :77]))
    assert found.maps.shape == (*image.shape[:2], len(found.channels))
    assert found.channels[0] == "nucleus"
    assert found.labels.dtype == np.int32
    assert found.labels.shape == found.mask.shape == image.shape[:2]
    assert found.count > 50
    assert found.probability.max() <= 1.0
    assert not found.labels[~found.mask].any()
    assert odd.labels.shape == (101, 77)


def test_a_large_image_has_no_seams(image: np.ndarray) -> None:
    large = np.tile(image, (3, 2, 1))[:1200, :1300]
    with Segmenter() as tiled, Segmenter(tile_size=1312) as whole:
        difference = np.abs(tiled(large).maps.astype(int) - whole(large).maps)
    # the whole image is one tile of another size, so that only what lies near its border may differ
    assert difference[160:-160, 160:-160].max() <= 1


@pytest.mark.parametrize(
    "wrong", [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 3), np.float32), np.zeros((0, 5, 3), np.uint8), [[1]]]
)
def test_what_is_no_image_is_refused(wrong: object) -> None:
    with Segmenter() as segmenter, pytest.raises(UsageError, match="an image"):
        segmenter(wrong)  # type: ignore[arg-type] # that is the mistake


def test_a_model_is_named_or_pointed_at(image: np.ndarray) -> None:
    with Segmenter("segmentation_unet_nuclei") as named:
        expected = named(image[:64, :64])
    with Segmenter(ROOT / "models" / "segmentation_unet_nuclei") as pointed:
        assert np.array_equal(pointed(image[:64, :64]).maps, expected.maps)


def test_wrong_settings_are_named_like_the_keys_of_the_file(tmp_path: Path) -> None:
    wrong = Settings(overlay=OverlaySettings(opacity=2, color=(0, 0)))  # type: ignore[arg-type] # that is the mistake
    with pytest.raises(ConfigError) as error:
        segment(tmp_path / "x.svs", tmp_path / "out", wrong)
    assert error.value.problems == (
        "overlay.color: (0, 0) is not red, green and blue as [0-255, 0-255, 0-255]",
        "overlay.opacity: 2 is not a number from 0 to 1",
    )
    assert not (tmp_path / "out").exists()


def test_an_image_in_memory_has_the_nuclei_of_a_run_on_it(image: np.ndarray, tmp_path: Path) -> None:
    """Of a run on one tile: the same maps, and so the same objects."""
    tifffile.imwrite(
        tmp_path / "slide.tif", image, tile=(256, 256), photometric="rgb", compression="deflate",
        resolution=(20000, 20000), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip
    settings = Settings(tile_size=704, mask=MaskSettings(method="none"), outputs=("geojson",), num_workers=2)
    expected = read_nuclei(segment(tmp_path / "slide.tif", tmp_path / "out", settings))
    with Segmenter(settings=settings) as segmenter:
        nuclei = segmenter(image).nuclei(mpp=(0.5, 0.5))
    assert len(nuclei) == len(expected) > 40
    assert np.array_equal(nuclei.vertices, expected.vertices)
    assert nuclei.centroids == pytest.approx(expected.centroids)
    assert list(nuclei.measurements) == list(expected.measurements)
    for name, values in nuclei.measurements.items():
        assert values == pytest.approx(expected.measurements[name], abs=1e-3, nan_ok=True), name
    table = nuclei.to_geodataframe()
    assert table.geometry.is_valid.all()
    assert table.geometry.area.to_numpy() * 0.25 == pytest.approx(table["Area µm^2"].to_numpy(), rel=0.1)
    assert read_nuclei(tmp_path / "out").labels.tolist() == nuclei.labels.tolist()


def test_nuclei_that_were_not_written_cannot_be_read(image: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no nuclei\.geojson\.gz: run again"):
        read_nuclei(tmp_path)
    (tmp_path / "nuclei.geojson.gz").write_bytes(b"no gzip")
    with pytest.raises(InputError, match="cannot be read"):
        read_nuclei(tmp_path)
    with Segmenter() as segmenter:
        assert len(segmenter(np.full((100, 90, 3), 240, np.uint8)).nuclei()) == 0
