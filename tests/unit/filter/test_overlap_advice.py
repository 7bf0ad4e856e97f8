"""What a run says about tile borders must be true: the options that it recommends make them exact."""

from __future__ import annotations

import logging
import re

import pytest

from nuclei_segmentation.operators.filter.advice import explain_overlap
from nuclei_segmentation.operators.filter.inference import ModelInfo
from nuclei_segmentation.shared.geometry import TileGrid


def model(halo: int | None, steps: int | None) -> ModelInfo:
    return ModelInfo("m", "mock", "", ("nucleus",), halo, 1, None, steps)


@pytest.mark.parametrize("halo", [3, 16, 100, 128, 250])
@pytest.mark.parametrize("steps", [16, 32])
@pytest.mark.parametrize("tile", [64, 256, 272, 1024])
def test_the_advice_is_exact(halo: int, steps: int, tile: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    explain_overlap(TileGrid(5000, 5000, tile, 16), model(halo, steps))
    if "not exact" not in caplog.text:
        return
    advice = re.search(r"; (?:-t (\d+) )?-o (\d+) makes them exact", caplog.text)
    assert advice is not None
    caplog.clear()
    explain_overlap(TileGrid(5000, 5000, int(advice[1] or tile), int(advice[2])), model(halo, steps))
    assert "tile borders are exact" in caplog.text


def test_an_unknown_receptive_field_is_admitted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    explain_overlap(TileGrid(5000, 5000, 256, 64), model(None, None))
    assert "is unknown" in caplog.text
