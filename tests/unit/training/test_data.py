from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.data import MOST, ONE, SMALL, Field, Patch, crop, depth, load_fields, targets
from training.errors import DataError


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


def test_refuses_an_index_without_a_column(folder: Path) -> None:
    (folder / "index.csv").write_text("image_id,split\na,val\n")
    with pytest.raises(DataError, match="no column modality_fine"):
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
    found = [crop(field, 256, diameter, np.random.default_rng(seed), stretch).labels for seed in range(24)]
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
        image, labels, maps = crop(field, 96, 18.0, np.random.default_rng(seed), 1.5 if seed % 2 else 1.0)
        assert image.shape == maps.shape == (96, 96, 3)
        assert np.mean((image[:, :, 0] > 105) == (labels > 0)) > 0.95
        assert np.mean((maps[:, :, 0] > 127) == (labels > 0)) > 0.95
        assert not maps[labels == 0, 1].max() > 90
        assert maps[:, :, 2].min() == 255


def two_that_touch() -> np.ndarray:
    labels = np.zeros((9, 16), np.uint16)
    labels[1:8, 1:8] = 1
    labels[1:8, 8:15] = 2
    return labels


def test_depth_is_greatest_in_the_middle_and_little_where_nuclei_touch() -> None:
    found = depth(two_that_touch())
    assert found[4, 4] == found[4, 11] == 255
    assert found[4, 7] == found[4, 8] == 0
    assert (found[0] == 0).all()
    assert found[1, 1] in range(60, 100)
    assert (np.diff(found[4, 1:4].astype(int)) > 0).all()


def test_depth_does_not_depend_on_size() -> None:
    for side in (3, 9, 33):
        labels = np.zeros((64, 64), np.uint16)
        labels[10 : 10 + side, 10 : 10 + side] = 5
        assert depth(labels).max() == 255
    assert not depth(np.zeros((8, 8), np.uint16)).any()


def test_pixels_between_nuclei_count_more_and_unknown_ones_nothing() -> None:
    labels = two_that_touch()
    known = np.full(labels.shape, 255, np.uint8)
    known[:, 14:] = 0
    field = Field("two", "stained_he", np.zeros((9, 16, 3), np.uint8), labels, 8.0, known)
    nucleus, deep, weight = targets(Patch(field.image, labels, field.maps))
    assert (nucleus == np.where(labels > 0, 255, 0)).all()
    assert (deep == depth(labels)).all()
    small = round(ONE * (SMALL / 49) ** 0.5)
    assert weight[4].tolist() == [small] * 6 + [5 * ONE] * 4 + [small] * 4 + [0] * 2


def test_small_nuclei_count_more_and_large_ones_do_not() -> None:
    labels = np.zeros((60, 60), np.uint16)
    labels[5:25, 5:25], labels[40:46, 40:46], labels[50:52, 5:7] = 1, 2, 3
    field = Field("three", "stained_he", np.zeros((60, 60, 3), np.uint8), labels, 8.0)
    weight = targets(Patch(field.image, labels, field.maps))[2]
    assert weight[10, 10] == ONE
    assert weight[30, 30] == ONE
    assert weight[42, 42] == round(ONE * (SMALL / 36) ** 0.5)
    assert weight[50, 6] == MOST * ONE
    assert weight[48, 42] == ONE
    assert weight[47, 42] == weight[42, 42]  # next to it, too


def test_nuclei_can_count_more_than_what_surrounds_them() -> None:
    labels = two_that_touch()
    known = np.full(labels.shape, 255, np.uint8)
    known[:, 12:] = 0
    image = np.zeros((9, 16, 3), np.uint8)
    patch = Patch(image, labels, Field("two", "slide", image, labels, 8.0, known).maps)
    plain, heavier = targets(patch)[2].astype(int), targets(patch, 2.0)[2].astype(int)
    assert (heavier[labels == 0] == plain[labels == 0]).all()
    assert (heavier[labels > 0] == np.minimum(2 * plain[labels > 0], 255)).all()
    assert not heavier[:, 12:].any()
