"""Real slides, a model that takes no time, and how Hypothesis is used."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, settings

from tests.helpers import command
from tests.helpers.command import NAME, Run
from tests.helpers.nets import dark_model
from tests.helpers.scheduler import FileScheduling

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before any test imports ONNX Runtime

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / ".cache" / "cmu_small_region.svs"

# No deadline and no complaint about slow examples: the machine may be busy, and tests make no promise of speed.
settings.register_profile(
    "here", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50, print_blob=True
)
settings.load_profile("here")


@pytest.hookimpl(optionalhook=True)  # pytest may run without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling | None:
    return FileScheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def sample_slide() -> Path:
    """The sample slide: Aperio SVS, 2220 x 2967 pixels, tiles of 240."""
    if not SAMPLE.is_file():
        if os.environ.get("CI"):
            pytest.fail("the sample slide is missing: make sample")
        pytest.skip("the sample slide is not there: make sample")
    return SAMPLE


@pytest.fixture(scope="session")
def more_slides() -> Path:
    """A folder with more real slides, which are not part of the project; NUCLEI_TEST_SLIDES names it."""
    folder = os.environ.get("NUCLEI_TEST_SLIDES")
    if not folder:
        pytest.skip("no more slides: NUCLEI_TEST_SLIDES names no folder")
    return Path(folder)


@pytest.fixture(scope="session")
def crop(sample_slide: Path) -> np.ndarray:
    """(500, 700, 3) uint8 of tissue and a little glass."""
    with openslide.OpenSlide(sample_slide) as slide:
        return np.asarray(slide.read_region((300, 100), 0, (700, 500)))[..., :3].copy()


@pytest.fixture(scope="session")
def small_slide(crop: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled JPEG TIFF of 700 x 500 pixels, 0.5 µm each, in a folder of its own, as an input folder is."""
    path = tmp_path_factory.mktemp("input") / "small.tif"
    tifffile.imwrite(
        path, crop, tile=(240, 240), photometric="rgb", compression="jpeg", compressionargs={"level": 90},
        resolution=(20000, 20000), resolutionunit="CENTIMETER", metadata=None,
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def dark_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config folder that names the repository of `dark_model`."""
    folder = tmp_path_factory.mktemp("config")
    dark_model(folder / "models" / NAME / "1" / "model.onnx")
    (folder / "config.yaml").write_text(f"models: {{repository: {folder / 'models'}}}\n")
    return folder


@pytest.fixture
def arguments(small_slide: Path, dark_config: Path, tmp_path: Path) -> list[str]:
    """The command line of a run that takes no time; its output folder is ``tmp_path / "out"``."""
    return [
        "segmentation", "--input-path", str(small_slide.parent), "--output-path", str(tmp_path / "out"),
        "--config-path", str(dark_config), "-w", "2",
    ]  # fmt: skip


@pytest.fixture
def run() -> Run:
    """Run ``main.py`` in a process of its own."""
    return command.run
