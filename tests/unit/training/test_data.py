from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.data import DataError, Field, crop, load_fields, targets


def test_loads_the_pixels_and_labels_of_a_split(folder: Path, fields: dict[str, list[Field]]) -> None:
    (found,) = load_fields([folder], "val")
    (wanted,) = fields["stained_he"]
    assert np.array_equal(found.image, wanted.image)
    assert np.array_equal(found.labels, wanted.labels)
    assert found.modality == "stained_he"


def test_refuses_a_missing_image(folder: Path) -> None:
    next((folder / "images").glob("stained_he*")).unlink()
    with pytest.raises(DataError, match="stained_he"):
        load_fields([folder], "val")


def test_refuses_an_empty_split(folder: Path) -> None:
    with pytest.raises(DataError, match="'test'"):
        load_fields([folder], "test")


@pytest.mark.parametrize("diameter", [10.0, 20.0, 40.0])
@pytest.mark.parametrize("stretch", [1.0, 2.0])
def test_a_crop_has_nuclei_of_the_wanted_size(fields: dict[str, list[Field]], diameter: float, stretch: float) -> None:
    (field,) = fields["fluorescence_gray"]
    single = np.zeros((161, 161), np.uint16)
    single[72:89, 72:89] = 1  # as wide as a disc of diameter 19.2 is large
    field = Field("one", field.modality, np.zeros((161, 161, 3), np.uint8), single, 19.2)
    found = [crop(field, 256, diameter, np.random.default_rng(seed), stretch)[1] for seed in range(24)]
    whole = [labels for labels in found if labels.any() and not any(e.any() for e in _edges(labels))]
    assert whole
    parts = [float(np.sqrt(4 * (labels > 0).sum() / np.pi)) / diameter for labels in whole]
    # Mirroring may show a nucleus more than once, so sizes are those of 1, 2, 3 ... nuclei.
    assert all(abs(part**2 - max(1, round(part**2))) < 0.2 * part**2 for part in parts)


def _edges(labels: np.ndarray) -> list[np.ndarray]:
    return [labels[0], labels[-1], labels[:, 0], labels[:, -1]]


def test_a_crop_keeps_image_and_labels_together(fields: dict[str, list[Field]]) -> None:
    (field,) = fields["fluorescence_gray"]
    for seed in range(12):
        image, labels = crop(field, 96, 18.0, np.random.default_rng(seed), 1.5 if seed % 2 else 1.0)
        assert image.shape == (96, 96, 3)
        assert np.mean((image[:, :, 0] > 105) == (labels > 0)) > 0.95


def test_the_boundary_lies_along_outlines_and_between_touching_nuclei() -> None:
    labels = np.zeros((9, 12), np.uint16)
    labels[2:7, 2:6] = 1
    labels[2:7, 6:10] = 2
    nucleus, boundary = targets(labels)
    assert nucleus.sum() == 40
    assert boundary[4].tolist() == [0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0]
    assert boundary[0].sum() == 0
