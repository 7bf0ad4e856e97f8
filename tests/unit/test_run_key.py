"""Keys: what decides the bytes is in them, and what is not set leaves the keys of older results as they are."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version

import pytest

from nuclei_segmentation.shared.settings import Settings
from nuclei_segmentation.shared.settings.run_key import load_key, stitch_key


def _hash(libraries: list[str], *facts: object) -> str:
    versions = {name: version(name) for name in ["nuclei-segmentation-operators", *libraries]}
    return hashlib.sha256(json.dumps([versions, facts], sort_keys=True).encode()).hexdigest()


def test_the_keys_of_existing_results_stay() -> None:
    """Written out as version 0.1.0 had them: a new setting counts only where it is set."""
    reading = ["imagecodecs", "numpy", "opencv-python-headless", "openslide-bin", "simplejpeg"]
    mask = {"method": "tissue", "pixel_limit": 1024 * 1024}
    assert load_key("f", Settings()) == _hash(reading, "f", 256, 0, mask)
    overlay = {"style": "outline", "color": [0, 255, 0], "opacity": 0.9, "threshold": 0.5}
    jpeg = {"quality": 85, "subsampling": "420"}
    layout = {"layout": 2}  # 1 was no fact of the key
    assert stitch_key("m", Settings()) == _hash([*reading, "tifffile"], "m", overlay, jpeg, layout)


@pytest.mark.parametrize("setting", [{"channel": "DAPI"}, {"channel": 1}, {"plane": 1}, {"mpp": (0.5, 0.5)}])
def test_what_of_the_slide_is_used_counts(setting: dict[str, object]) -> None:
    changed = Settings(**setting)  # type: ignore[arg-type]  # each value fits its name
    assert load_key("f", changed) != load_key("f", Settings())
    assert stitch_key("m", changed) != stitch_key("m", Settings())


def test_names_and_numbers_are_told_apart() -> None:
    keys = {load_key("f", Settings(channel=channel)) for channel in (1, 2, "1", "DAPI")}
    keys |= {load_key("f", Settings(plane=1)), load_key("f", Settings(mpp=(0.5, 0.25)))}
    assert len(keys) == 6
