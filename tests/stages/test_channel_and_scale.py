"""What of a slide is used, and at which pixel size: the settings `channel`, `plane` and `mpp`, through whole runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

from nuclei_segmentation import segment
from nuclei_segmentation.operators.filter import command as filter_command
from nuclei_segmentation.operators.load import command as load_command
from nuclei_segmentation.operators.stitch import command as stitch_command
from nuclei_segmentation.shared.errors import ConfigError, OutputError, StoreError, UnreadableSlide
from nuclei_segmentation.shared.settings import (
    JpegSettings,
    MaskSettings,
    ModelsSettings,
    OverlaySettings,
    Settings,
    WaitSettings,
)
from nuclei_segmentation.shared.store.manifest import read_manifest
from tests.helpers.command import Run, refused
from tests.helpers.slides import tissue_like

STAINS = np.stack([tissue_like(200, 150, seed)[..., 1] for seed in range(3)])


@pytest.fixture
def settings(dark_config: Path, tmp_path: Path) -> Settings:
    return Settings(
        output_path=tmp_path / "out",
        num_workers=2,
        mask=MaskSettings("none"),
        models=ModelsSettings(repository=dark_config / "models"),
        wait=WaitSettings(limit=1),
    )


@pytest.fixture
def stained(tmp_path: Path) -> Path:
    """A fluorescence slide with three channels, in a folder of its own."""
    (tmp_path / "in").mkdir()
    tifffile.imwrite(
        tmp_path / "in" / "stained.ome.tif", STAINS, photometric="minisblack", tile=(64, 64), compression="deflate",
        metadata={"axes": "CYX", "Channel": {"Name": ["FITC", "DAPI", "Cy5"]}, "PhysicalSizeX": 0.5},
    )  # fmt: skip
    return tmp_path / "in"


def test_a_slide_with_channels_needs_the_name_of_one(
    run: Run, stained: Path, arguments: list[str], dark_config: Path, tmp_path: Path
) -> None:
    arguments += ["--input-path", str(stained), "--config-path", str(tmp_path)]
    models = (dark_config / "config.yaml").read_text()
    (tmp_path / "config.yaml").write_text(models)
    refused(run(*arguments), 11, "it has 3 channels (1 FITC, 2 DAPI, 3 Cy5)", "`channel: DAPI`")
    (tmp_path / "config.yaml").write_text(f"{models}channel: TRITC\n")
    refused(run(*arguments), 2, "no channel 'TRITC'", "1 FITC, 2 DAPI, 3 Cy5")
    assert not list((tmp_path / "out").glob("*"))
    (tmp_path / "config.yaml").write_text(f"{models}mask: none\nchannel: dapi\n")
    done = run(*arguments)
    assert done.code == 0, done.err
    assert "channel 2 of 3, DAPI, is used" in done.err
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]["channel"] == "dapi"


def test_another_channel_is_another_result(stained: Path, settings: Settings, tmp_path: Path) -> None:
    plain = replace(settings, overlay=OverlaySettings(opacity=0), jpeg=JpegSettings(quality=98))
    images = {}
    for channel in ("DAPI", 3):
        result = segment(stained, tmp_path / str(channel), replace(plain, channel=channel))
        images[channel] = tifffile.imread(result.image)[..., 0].astype(int)
    assert np.median(np.abs(images["DAPI"] - STAINS[1])) < 3
    assert np.median(np.abs(images[3] - STAINS[2])) < 3
    with pytest.raises(OutputError, match="channel DAPI -> 3"):
        segment(stained, tmp_path / "DAPI", replace(plain, channel=3))
    assert segment(stained, tmp_path / "DAPI", replace(plain, channel="DAPI")).already_done


def test_the_stages_use_the_same_channel(stained: Path, settings: Settings, tmp_path: Path) -> None:
    settings = replace(settings, input_path=stained, channel="DAPI")
    whole = segment(stained, tmp_path / "whole", settings)
    load_command.run(replace(settings, output_path=stained / "tiles"))
    assert read_manifest(stained / "tiles").slide.channel == "DAPI"
    filter_command.run(replace(settings, output_path=stained / "masks"))
    with pytest.raises(StoreError, match="load made it with `channel: DAPI`, stitch has `channel: FITC`"):
        stitch_command.run(replace(settings, channel="FITC", wait=WaitSettings(limit=None)))
    with pytest.raises(UnreadableSlide, match="it has 3 channels"):
        stitch_command.run(replace(settings, channel=None))
    stitched = stitch_command.run(settings)
    assert stitched is not None
    assert stitched.image.read_bytes() == whole.image.read_bytes()
    assert stitched.key == whole.key


def test_a_channel_that_a_plain_slide_does_not_have(small_slide: Path, settings: Settings) -> None:
    with pytest.raises(ConfigError, match="the slide is an RGB image"):
        segment(small_slide.parent, settings.output_path, replace(settings, channel="DAPI"))


@pytest.fixture
def coarse(crop: np.ndarray, tmp_path: Path) -> Path:
    """A slide that states 29 µm per pixel."""
    path = tmp_path / "coarse.tif"
    tifffile.imwrite(
        path, crop, tile=(256, 256), photometric="rgb", compression="jpeg", metadata=None,
        resolution=(1e4 / 29, 1e4 / 29), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return path


def test_at_an_absurd_pixel_size_the_count_means_nothing(
    coarse: Path, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = segment(coarse, tmp_path / "out", settings)
    (line,) = (line for line in result.lines() if line.startswith("nuclei"))
    assert f"{result.nuclei:,} (this means nothing: at 29 µm per pixel, nuclei cannot be told apart);" in line
    assert "per mm² of tissue" not in line
    assert "`mpp` in config.yaml" in caplog.text
    assert any("`mpp` in config.yaml" in warning for warning in result.warnings)

    with pytest.raises(OutputError, match=r"mpp None -> \[0.5, 0.5\]"):
        segment(coarse, tmp_path / "out", replace(settings, mpp=(0.5, 0.5)))
    stated = segment(coarse, tmp_path / "stated", replace(settings, mpp=(0.5, 0.5)))
    assert stated.slide.mpp == (0.5, 0.5)
    assert not any("means nothing" in line for line in stated.lines())
    with tifffile.TiffFile(stated.image) as file:
        x, y = (file.pages[0].tags[name].value for name in ("XResolution", "YResolution"))
        assert (x[0] / x[1], y[0] / y[1]) == (20000, 20000)
