from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.data import MOST, ONE, Field
from training.sampler import MIX, Sampler, batches
from training.synth import negative, restain, synthetic_tissue


def test_a_batch_depends_on_seed_and_step_alone(fields: dict[str, list[Field]]) -> None:
    sampler = Sampler(fields, 64, 2, 5)
    straight = list(batches(sampler, 0, 6))
    later = list(batches(sampler, 3, 6))
    for (images, marks), (images_later, marks_later) in zip(straight[3:], later, strict=True):
        assert np.array_equal(images, images_later)
        assert np.array_equal(marks, marks_later)
    assert not np.array_equal(straight[0][0], straight[1][0])
    assert not np.array_equal(straight[0][0], Sampler(fields, 64, 2, 6).batch_at(0)[0])


def test_a_batch_has_images_targets_and_weights(fields: dict[str, list[Field]]) -> None:
    sampler = Sampler(fields, 64, 8, 1)
    for step in range(6):
        images, marks = sampler.batch_at(step)
        assert images.shape == (8, 64, 64, 3)
        assert images.dtype == np.uint8
        assert marks.dtype == np.uint8
        assert marks.shape == (8, 3, 64, 64)
        nucleus, weight = marks[:, 0] > 0, marks[:, 2].astype(int)
        heaviest = round(2 * MOST * ONE)  # small nuclei of H&E; between two that touch it is 5 or, cut off, 10
        assert set(np.unique(weight)) <= {0, *range(ONE, heaviest + 1), 255}
        assert set(np.unique(weight[~nucleus])) <= {0, *range(ONE, round(MOST * ONE) + 1), 5 * ONE}
        assert not (marks[:, 1] > 250)[marks[:, 0] < 5].any()


def test_an_error_of_the_background_thread_is_raised() -> None:
    empty: dict[str, list[Field]] = {"stained_he": [None]}  # type: ignore[list-item]
    with pytest.raises(AttributeError):
        list(batches(Sampler(empty, 64, 8, 0), 0, 4))


def test_stained_and_synthetic_samples_are_most_of_the_mix() -> None:
    tissue = ("synthetic", "restained", "slide")
    share = sum(part for kind, part in MIX.items() if kind.startswith("stained") or kind in tissue)
    assert share > 0.6 * sum(MIX.values())


def test_a_region_without_nuclei_teaches_that_there_are_none() -> None:
    image = np.random.default_rng(0).integers(0, 256, (90, 50, 3)).astype(np.uint8)
    region = Field("keratin", "nucleus_free", image, np.zeros((90, 50), np.uint16), 20.0)
    for step in range(4):
        _, marks = Sampler({"nucleus_free": [region]}, 64, 4, 1).batch_at(step)
        assert not marks[:, :2].any()
        assert (marks[:, 2] == ONE).all()


def test_synthetic_nuclei_are_darker_and_bluer_than_what_surrounds_them(fields: dict[str, list[Field]]) -> None:
    (field,) = fields["fluorescence_gray"]
    darker = 0
    for seed in range(20):
        image = synthetic_tissue(field.image, field.labels, field.diameter, np.random.default_rng(seed))
        inside, outside = image[field.labels > 0].mean(axis=0), image[field.labels == 0].mean(axis=0)
        darker += inside[0] < outside[0]
        assert inside[2] > inside[1] - 12
    assert darker >= 18


def test_negatives_are_images_of_every_kind() -> None:
    brightness = [negative(64, 20.0, np.random.default_rng(seed)).mean() for seed in range(60)]
    assert min(brightness) < 60
    assert max(brightness) > 220


def test_a_second_dye_leaves_nuclei_darkest(fields: dict[str, list[Field]]) -> None:
    (field,) = fields["stained_he"]
    for seed in range(20):
        image = restain(field.image, field.labels, field.diameter, np.random.default_rng(seed))
        assert image.dtype == np.uint8
        assert image[field.labels > 0].mean() < image[field.labels == 0].mean()


def test_what_is_unknown_in_a_slide_has_no_weight(fields: dict[str, list[Field]]) -> None:
    (field,) = fields["stained_he"]
    unknown = replace(field, modality="slide", known=np.zeros(field.labels.shape, np.uint8))
    weights = [Sampler({"slide": [unknown]}, 64, 1, seed).batch_at(0)[1][0, 2].max() for seed in range(20)]
    assert set(weights) == {0, ONE}  # those of the slide, and negatives, which are known


def test_some_samples_are_not_augmented(fields: dict[str, list[Field]]) -> None:
    (field,) = fields["fluorescence_gray"]
    own = set(np.unique(field.image).tolist())
    images = [Sampler({"fluorescence_gray": [field]}, 64, 1, seed).batch_at(0)[0] for seed in range(60)]
    kept = sum(set(np.unique(image).tolist()) <= own for image in images)
    assert 10 < kept < 50
