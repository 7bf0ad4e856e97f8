"""How two results differ, in words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nuclei_segmentation.shared.provenance import ModelProvenance, Provenance, SlideProvenance, differences, recorded
from nuclei_segmentation.shared.settings import JpegSettings, OverlaySettings, Settings
from nuclei_segmentation.shared.settings.config_file import KEYS

SLIDE = SlideProvenance("a.svs", "f1", "aperio", 100, 80, (0.5, 0.5), 20.0)
MODEL = ModelProvenance("unet", "embedded", "1234567890abcdef:int8")


def made(settings: Settings | None = None, slide: SlideProvenance = SLIDE, model: ModelProvenance = MODEL) -> dict:
    return Provenance(slide, model, recorded(settings or Settings(num_workers=1))).to_json()


def test_the_same_has_no_differences() -> None:
    assert differences(made(), made()) == ""


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (made(Settings(overlay=OverlaySettings(opacity=0.5))), "overlay.opacity 0.9 -> 0.5"),
        (made(Settings(tile_size=512, jpeg=JpegSettings(quality=70))), "jpeg.quality 85 -> 70; tile_size 256 -> 512"),
        (made(slide=replace(SLIDE, name="b.svs", fingerprint="f2")), "slide a.svs -> b.svs"),
        (made(slide=replace(SLIDE, fingerprint="f2")), "slide a.svs -> a.svs with other content"),
        (made(model=replace(MODEL, name="other")), "model name unet -> other"),
        (made(model=replace(MODEL, identity="fedcba0987654321:fp32")), "model precision int8 -> fp32; "
         "model unet: other content (1234567890ab -> fedcba098765)"),
        (made() | {"program": made()["program"] | {"version": "9"}}, "program 0.1.0 -> 9"),
        (made() | {"layout": 3}, "layout of image.tif 2 -> 3"),
        (made(Settings(num_workers=7)), ""),
    ],
)  # fmt: skip
def test_what_differs_is_named_old_and_new(new: dict, text: str) -> None:
    assert differences(made(), new) == text


@pytest.mark.parametrize("old", [{}, {"slide": 3, "settings": [], "model": None}, {"program": {"libraries": 1}}])
def test_a_damaged_record_is_no_error(old: dict) -> None:
    assert isinstance(differences(old, made()), str)


def test_a_record_without_a_layout_is_of_the_first() -> None:
    old = {name: value for name, value in made().items() if name != "layout"}
    assert differences(old, made()) == "layout of image.tif 1 -> 2"


def test_many_differences_are_counted() -> None:
    new = made(
        Settings(
            tile_size=512, overlap=64, overlay=OverlaySettings("fill", (1, 2, 3), 0.1, 0.2), jpeg=JpegSettings(1, "444")
        )
    )
    assert differences(made(), new).endswith("; and 3 more")


def test_every_setting_is_recorded() -> None:
    assert {key.path for key in KEYS} <= recorded(Settings()).keys()
