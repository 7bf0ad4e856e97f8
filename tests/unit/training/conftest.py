from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile

from tests.helpers.labels import discs
from training.data import Field, median_diameter


@pytest.fixture
def fields() -> dict[str, list[Field]]:
    made: dict[str, list[Field]] = {}
    for number, modality in enumerate(("fluorescence_gray", "stained_he", "brightfield_gray")):
        labels = discs(160, 20, 8, number)
        inside = (labels > 0).astype(np.uint8)[:, :, None]
        light, dark = (200, 10) if modality == "fluorescence_gray" else (90, 230)
        image = np.repeat(inside * np.uint8(light) + (1 - inside) * np.uint8(dark), 3, axis=2)
        made[modality] = [Field(f"{modality}-{number}", modality, image, labels, median_diameter(labels))]
    return made


@pytest.fixture
def folder(tmp_path: Path, fields: dict[str, list[Field]]) -> Path:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    (root / "labels").mkdir()
    lines = ["image_id,modality,modality_fine,split"]
    for modality, (field,) in fields.items():
        cv2.imwrite(
            str(root / "images" / f"{field.name}.webp"), field.image[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, 101]
        )
        cv2.imwrite(str(root / "labels" / f"{field.name}.png"), field.labels)
        lines.append(f"{field.name},any,{modality},{'val' if modality == 'stained_he' else 'train'}")
    (root / "index.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def small_slide_folder(tmp_path: Path) -> Path:
    """The same slide twice, a slide with coarse pixels, and a file that is not a slide."""
    folder = tmp_path / "slides"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    for name, mpp in (("a", 0.5), ("b", 0.5), ("c", 30.0)):
        per_centimetre = round(10_000 / mpp)
        tifffile.imwrite(
            folder / f"{name}.tif",
            pixels,
            tile=(64, 64),
            photometric="rgb",
            resolution=(per_centimetre, per_centimetre),
            resolutionunit="CENTIMETER",
            metadata=None,
        )
    (folder / "README.md").write_text("not a slide")
    return folder
