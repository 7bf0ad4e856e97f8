from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.operators.stitch.overlay import OverlayPainter
from nuclei_segmentation.shared.settings import OverlaySettings


def contour(nuclei: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """The definition, pixel by pixel."""
    height, width = nuclei.shape[0] - 2, nuclei.shape[1] - 2
    result = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            around = nuclei[y, x + 1], nuclei[y + 2, x + 1], nuclei[y + 1, x], nuclei[y + 1, x + 2]
            result[y, x] = nuclei[y + 1, x + 1] == 1 and min(around) == 0
    return result


def drawn(nuclei: npt.NDArray[np.uint8], settings: OverlaySettings, seed: int) -> npt.NDArray[np.bool_]:
    """Paint, check that exactly the drawn pixels have the blended colour, and return them."""
    painter = OverlayPainter(settings)
    height, width = nuclei.shape[0] - 2 * painter.margin, nuclei.shape[1] - 2 * painter.margin
    before = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    pixels = before.copy()
    painter.paint(pixels, nuclei)
    part = round(settings.opacity * 256)
    blended = (before.astype(int) * (256 - part) + np.array(settings.color) * part + 128) >> 8
    expected = contour(nuclei) if settings.style == "outline" else nuclei.astype(bool)
    np.testing.assert_array_equal(pixels, np.where(expected[..., None], blended, before))
    return expected


@pytest.mark.parametrize("style", ["outline", "fill"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.2, 0.6, 1.0])
def test_paints_what_the_definition_says_whether_sparse_or_dense(style: str, share: float) -> None:
    nuclei = (np.random.default_rng(1).random((40, 50)) < share).astype(np.uint8)
    drawn(nuclei, OverlaySettings(style=style, color=(10, 200, 255), opacity=0.37), seed=2)  # type: ignore[arg-type] # from the list above


@given(
    st.lists(st.lists(st.integers(0, 1), min_size=6, max_size=6), min_size=3, max_size=9),
    st.sampled_from(["outline", "fill"]),
    st.floats(0, 1),
)
def test_paints_what_the_definition_says(rows: list[list[int]], style: str, opacity: float) -> None:
    drawn(np.array(rows, np.uint8), OverlaySettings(style=style, opacity=opacity), seed=len(rows))  # type: ignore[arg-type] # from the list above


def test_opacity_0_changes_nothing_and_opacity_1_gives_the_colour() -> None:
    pixels = np.arange(300, dtype=np.uint8).reshape(10, 10, 3)
    full = np.ones((10, 10), np.uint8)
    clear, covered = pixels.copy(), pixels.copy()
    OverlayPainter(OverlaySettings(style="fill", opacity=0.0)).paint(clear, full)
    OverlayPainter(OverlaySettings(style="fill", opacity=1.0, color=(1, 2, 3))).paint(covered, full)
    np.testing.assert_array_equal(clear, pixels)
    assert (covered == (1, 2, 3)).all()


@pytest.mark.parametrize(
    ("threshold", "first"),
    [(0.0, 1), (0.1, 26), (0.2, 52), (0.5, 128), (0.6, 154), (0.7, 179), (1.0, None), (0.001, 1), (1 / 255, 2)],
)
def test_a_pixel_above_the_threshold_is_nucleus(threshold: float, first: int | None) -> None:
    values = np.arange(256, dtype=np.uint8)
    nuclei = OverlayPainter(OverlaySettings(threshold=threshold)).nuclei(values)
    found = int(values[nuclei][0]) if nuclei.any() else None
    if threshold == 1 / 255:  # cannot be written exactly: either side of the threshold is right
        assert found in (1, 2)
    else:
        assert found == first
