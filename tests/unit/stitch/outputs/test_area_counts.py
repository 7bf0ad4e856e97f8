from __future__ import annotations

import numpy as np
import pytest

from nuclei_segmentation.operators.stitch.outputs.area_counts import LARGEST, AreaCounts
from tests.helpers.drawn_nuclei import header, nuclei_at


@pytest.mark.parametrize("count", [1, 2, 5, 1000])
def test_quantiles_are_those_of_all_areas(count: int) -> None:
    pixels = np.random.default_rng(count).lognormal(6, 0.7, count).astype(np.int64)
    counts = AreaCounts(header(10, 10, mpp=(0.2527, 0.2531)))
    for some in np.array_split(pixels, 3):
        counts.add(counts.areas(nuclei_at(np.zeros((len(some), 2)), some * 0.2527 * 0.2531)) if len(some) else some)
    for share in (0, 0.25, 0.5, 0.75, 0.995, 1):
        assert counts.quantile(share) == pytest.approx(np.quantile(pixels, share), rel=1e-12)
    assert counts.total == count
    assert (counts.unit, counts.pixel) == ("µm²", 0.2527 * 0.2531)


def test_without_a_pixel_size_areas_are_in_pixels() -> None:
    counts = AreaCounts(header(10, 10, mpp=None))
    counts.add(counts.areas(nuclei_at([(0, 0)], 7.0, name="Area px^2")))
    assert (counts.quantile(0.5), counts.unit, counts.pixel) == (7, "px", 1)


def test_what_is_too_large_counts_as_the_largest() -> None:
    counts = AreaCounts(header(10, 10, mpp=(1, 1)))
    counts.add(counts.areas(nuclei_at([(0, 0)], 4e6)))
    assert counts.quantile(1) == LARGEST
