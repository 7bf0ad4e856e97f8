"""Outlines give back the pixels that they were made from, and are as long as what they go around."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage.draw import polygon2mask
from skimage.measure import regionprops

from nuclei_segmentation.operators.stitch.objects.measure import measure_outlines
from nuclei_segmentation.operators.stitch.objects.outline import Outlines, border_pixels, outlines


def disc(radius: float, x: float = 60, y: float = 60) -> np.ndarray:
    rows, columns = np.mgrid[:121, :121]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius * radius


def border(mask: np.ndarray, x: int = 0, y: int = 0) -> np.ndarray:
    return border_pixels(mask.astype(np.int32))[1][0] + np.array((x, y), np.int32)


def one(mask: np.ndarray, x: int = 0, y: int = 0) -> Outlines:
    return outlines([border(mask, x, y)])


def measured(mask: np.ndarray, mpp: tuple[float, float] | None = None) -> dict[str, float]:
    return {name: float(values[0]) for name, values in measure_outlines(one(mask), mpp)[1].items()}


def ragged(seed: int) -> np.ndarray:
    """A connected piece of noise, joined at corners too, with holes."""
    random = np.random.default_rng(seed)
    height, width = random.integers(1, 30, 2)
    pieces, count = ndimage.label(random.random((height, width)) < random.choice([0.4, 0.6, 0.9]), np.ones((3, 3)))
    return pieces == np.bincount(pieces.ravel())[1:].argmax() + 1 if count else np.ones((height, width), bool)


@pytest.mark.parametrize("seed", range(60))
def test_an_outline_holds_the_centres_of_the_pixels_and_no_others(seed: int) -> None:
    mask = ragged(seed)
    filled = ndimage.binary_fill_holes(mask)  # by background that is connected by edges
    found = one(mask, 5, 7)
    inside = polygon2mask((60, 60), (found.vertices[:, ::-1] - 2) / 4)
    expected = np.zeros((60, 60), bool)
    expected[7 : 7 + mask.shape[0], 5 : 5 + mask.shape[1]] = filled
    assert (inside == expected).all()
    assert found.pixels[0] == filled.sum()
    assert (found.vertices % 4 != 2).all(), "a vertex lies in the middle of a row or column"


def test_outlines_do_not_depend_on_their_neighbours() -> None:
    masks = [ragged(seed) for seed in range(20)]
    together = outlines([border(mask, 3 * number, number) for number, mask in enumerate(masks)])
    for number, mask in enumerate(masks):
        alone = one(mask, 3 * number, number)
        part = together.vertices[together.starts[number] : together.starts[number + 1]]
        assert np.array_equal(part, alone.vertices)
        assert together.pixels[number] == alone.pixels[0]


def test_borders_of_nuclei_that_touch_are_those_of_each_alone() -> None:
    random = np.random.default_rng(5)
    labels = np.kron(random.integers(0, 9, (12, 15)), np.ones((3, 4))).astype(np.int32)
    labels[random.random(labels.shape) < 0.1] = 0
    found = border_pixels(labels)
    assert list(found) == list(range(1, 9))
    for label, parts in found.items():
        alone = border_pixels((labels == label).astype(np.int32))[1]
        assert sorted(map(len, parts), reverse=True) == list(map(len, parts))
        assert {part.tobytes() for part in parts} == {part.tobytes() for part in alone}


def test_no_nuclei_have_no_outlines() -> None:
    found = outlines([])
    assert found.vertices.shape == (0, 2)
    assert found.starts.tolist() == [0]
    centroids, values = measure_outlines(found, (0.25, 0.25))
    assert centroids.shape == (0, 2)
    assert all(len(one) == 0 for one in values.values())


@pytest.mark.parametrize("radius", [8, 8.5, 9, 10, 12, 14, 20, 30, 50])
@pytest.mark.parametrize("x", [60, 60.5, 60.3])
def test_a_disc_is_measured_as_a_disc(radius: float, x: float) -> None:
    mask = disc(radius, x)
    found, values = one(mask), measured(mask)
    area = cv2.contourArea(found.vertices) / 16
    assert values["Area px^2"] == mask.sum()
    assert area == pytest.approx(mask.sum(), rel=0.02)
    assert values["Length px"] == pytest.approx(2 * np.pi * radius, rel=0.06)
    assert 0.88 <= values["Circularity"] <= 1
    assert 0.95 <= values["Solidity"] <= 1
    # Drawn with whole pixels, it is up to a pixel wider or narrower in one direction.
    assert values["Max diameter px"] == pytest.approx(2 * radius, abs=1.05)
    assert values["Min diameter px"] == pytest.approx(2 * radius, abs=1.05)
    assert values["Eccentricity"] < 0.35


@pytest.mark.parametrize(("axes", "angle"), [((30, 15), 33), ((25, 24), 10), ((40, 8), 75)])
def test_an_ellipse_is_measured_as_scikit_image_measures_it(axes: tuple[int, int], angle: float) -> None:
    mask = np.zeros((120, 120), np.uint8)
    cv2.ellipse(mask, (60, 55), axes, angle, 0, 360, 1, -1)
    (known,) = regionprops(mask)
    values = measured(mask.astype(bool))
    centroid = measure_outlines(one(mask.astype(bool)), None)[0][0]
    assert centroid == pytest.approx((known.centroid[1] + 0.5, known.centroid[0] + 0.5), abs=0.05)
    assert values["Area px^2"] == known.area
    assert values["Eccentricity"] == pytest.approx(known.eccentricity, abs=0.01)
    assert values["Solidity"] == pytest.approx(known.solidity, abs=0.03)
    assert values["Max diameter px"] == pytest.approx(known.feret_diameter_max, rel=0.03)
    assert values["Length px"] == pytest.approx(known.perimeter, rel=0.04)


def test_a_turned_rectangle_has_its_width_as_smallest_diameter() -> None:
    mask = np.zeros((200, 200), np.uint8)
    corners = cv2.boxPoints(((100, 100), (120, 30), 25))
    cv2.fillPoly(mask, [np.rint(corners).astype(np.int32)], 1)
    values = measured(mask.astype(bool))
    assert values["Min diameter px"] == pytest.approx(30, abs=2)
    assert values["Max diameter px"] == pytest.approx(np.hypot(120, 30), abs=2)


def test_micrometres_may_differ_in_x_and_y() -> None:
    square = np.zeros((60, 60), bool)
    square[10:50, 10:30] = True
    values = measured(square, (0.5, 0.25))  # 20 x 40 pixels: 10 µm each
    assert values["Area µm^2"] == pytest.approx(100)
    assert values["Min diameter µm"] == pytest.approx(10, abs=0.3)
    assert values["Length µm"] == pytest.approx(40, rel=0.03)
    assert values["Eccentricity"] < 0.1
