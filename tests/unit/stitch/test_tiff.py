from __future__ import annotations

from fractions import Fraction

import pytest

from nuclei_segmentation.operators.stitch.pyramid.levels import levels_of
from nuclei_segmentation.operators.stitch.pyramid.tiff import needs_bigtiff, resolution


def test_resolution_is_exact_at_every_level() -> None:
    levels = levels_of(1000, 600)
    for level in levels:
        (x, y), unit = resolution(level, levels[0], (0.2499, 0.25))
        assert unit == "CENTIMETER"
        assert Fraction(*x) == Fraction(100_000_000, 2499) * level.width / 1000
        assert Fraction(*y) == Fraction(40_000) * level.height / 600


@pytest.mark.parametrize("mpp", [1e-7, 0.25200000000000034, 1 / 3, 123456.789, 1e12])
@pytest.mark.parametrize("width", [1, 99_991])
def test_resolution_fits_into_32_bits_and_is_close(mpp: float, width: int) -> None:
    levels = levels_of(width, 7)
    for level in levels:
        (x, _), _ = resolution(level, levels[0], (mpp, mpp))
        wanted = Fraction(10_000) / Fraction(mpp) * level.width / width
        assert 0 <= x[0] < 1 << 32
        assert 0 < x[1] < 1 << 32
        if Fraction(1, 1 << 20) < wanted < 1 << 20:
            assert abs(Fraction(*x) / wanted - 1) < 1e-6


def test_an_unknown_pixel_size_gives_a_resolution_without_a_unit() -> None:
    levels = levels_of(10, 10)
    assert resolution(levels[0], levels[0], None) == (((1, 1), (1, 1)), "NONE")


def test_large_files_are_bigtiff() -> None:
    assert not needs_bigtiff(levels_of(1, 1))
    assert not needs_bigtiff(levels_of(10_000, 10_000))
    assert needs_bigtiff(levels_of(20_000, 20_000))
    assert needs_bigtiff(levels_of(100_000, 100_000))
