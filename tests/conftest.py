"""Real slides for the tests, and how Hypothesis is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before any test imports ONNX Runtime

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / ".cache" / "cmu_small_region.svs"
OTHERS = Path(os.environ.get("NUCLEI_TEST_SLIDES", ROOT.parent / "shared" / "data" / "slides"))

# No deadline and no complaint about slow examples: the machine may be busy, and tests make no promise of speed.
settings.register_profile(
    "here", deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=50, print_blob=True
)
settings.load_profile("here")


@pytest.fixture(scope="session")
def sample_slide() -> Path:
    """The sample slide: Aperio SVS, 2220 x 2967 pixels, tiles of 240."""
    if not SAMPLE.is_file():
        if os.environ.get("CI"):
            pytest.fail("the sample slide is missing: make sample")
        pytest.skip("the sample slide is not there: make sample")
    return SAMPLE


@pytest.fixture(scope="session")
def shared_slides() -> Path:
    """A folder with more real slides; they are not part of the project."""
    if not OTHERS.is_dir():
        pytest.skip("no further slides: neither NUCLEI_TEST_SLIDES nor ../shared/data/slides is a folder")
    return OTHERS
