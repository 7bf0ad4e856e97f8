"""Seeds and instances: touching nuclei are kept apart as far as the model's maps show them."""

from __future__ import annotations

import numpy as np
import pytest

from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.instances import instances
from nuclei_segmentation.shared.nuclei import SMALLEST_SEED, seed_pixels

CENTRES = ((20, 16), (20, 31), (44, 60))
RADIUS = 9


def three_discs() -> tuple[Pixels, Pixels, Pixels]:
    """Return nucleus, distance and boundary of three discs, of which the first two overlap a little."""
    rows, columns = np.mgrid[:64, :80]
    depths = np.stack([1 - np.hypot(rows - y, columns - x) / RADIUS for y, x in CENTRES])
    nearest = np.sort(depths, axis=0)
    inside = nearest[-1] > 0
    # between the first two, both depths are about the same
    between = inside & (nearest[-1] - nearest[-2] < 0.12)
    distance = np.where(between, 0, np.clip(nearest[-1], 0, 1))
    return tuple((array * 255).astype(np.uint8) for array in (inside, distance, between))  # type: ignore[return-value]


def at_centres(labels: np.ndarray) -> list[int]:
    """Return the labels at the discs' centres."""
    return [int(labels[centre]) for centre in CENTRES]


@pytest.mark.parametrize(
    "channels", [("nucleus", "distance"), ("nucleus", "boundary"), ("nucleus", "other", "distance")]
)
def test_touching_nuclei_are_divided(channels: tuple[str, ...]) -> None:
    nucleus, distance, boundary = three_discs()
    known = {"nucleus": nucleus, "distance": distance, "boundary": boundary, "other": 255 - nucleus}
    labels = instances(np.stack([known[name] for name in channels], axis=-1), channels)
    assert sorted(at_centres(labels)) == [1, 2, 3]
    assert labels.max() == 3
    np.testing.assert_array_equal(labels > 0, nucleus > 0)  # all nucleus pixels are divided, and nothing else
    first, second = at_centres(labels)[:2]
    assert (labels == first).sum() == pytest.approx((labels == second).sum(), rel=0.15)


def test_with_one_map_touching_nuclei_are_one() -> None:
    nucleus, _, _ = three_discs()
    labels = instances(nucleus[..., np.newaxis], ("nucleus",))
    first, second, third = at_centres(labels)
    assert first == second != third
    assert labels.max() == 2


def test_pixels_outside_nuclei_are_no_seed_whatever_their_distance() -> None:
    nucleus, distance, _ = three_discs()
    maps = np.stack([np.where(nucleus > 0, np.uint8(127), np.uint8(0)), distance], axis=-1)
    assert not seed_pixels(maps, ("nucleus", "distance")).any()
    assert not instances(maps, ("nucleus", "distance")).any()


@pytest.mark.parametrize(("side", "found"), [(1, 0), (SMALLEST_SEED, 1)])
def test_specks_are_not_nuclei(side: int, found: int) -> None:
    maps = np.zeros((16, 16, 2), np.uint8)
    maps[2:12, 2:12, 0] = 255
    maps[5, 5 : 5 + side, 1] = 255
    assert instances(maps, ("nucleus", "distance")).max() == found


def test_empty_maps_have_no_instances() -> None:
    labels = instances(np.zeros((16, 32, 2), np.uint8), ("nucleus", "distance"))
    assert labels.shape == (16, 32)
    assert labels.dtype == np.int32
    assert not labels.any()
