from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (requirements/training.txt)")
pytest.importorskip("onnx", reason="onnx is not installed (requirements/training.txt)")

from nuclei_segmentation.segmenter import Segmentation
from nuclei_segmentation.shared.batches import Pixels
from training.data import Field
from training.errors import DataError
from training.slides import Teacher, averaged_maps, background, load_slides, pseudo_labels

PINK, PURPLE, DARK = (225, 140, 175), (150, 100, 160), (70, 40, 110)


def test_pseudo_labels_of_an_earlier_step_must_be_there(fields: dict[str, list[Field]], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="slides-7"):
        Teacher([fields["stained_he"][0].image], tmp_path).fields_at(7, None)


def test_glass_is_background_and_nuclei_are_unknown(fields: dict[str, list[Field]]) -> None:
    image = np.full((160, 160, 3), 240, np.uint8)
    image[:, 60:] = (220, 130, 170)
    labels = fields["stained_he"][0].labels.copy()
    labels[:, :60] = 0
    image[labels > 0] = (90, 60, 130)
    known = background(image)
    assert known[:, :55].min() == 255
    assert not known[labels > 0].any()
    assert known[(labels == 0)].mean() > 128


def test_slides_that_show_no_nuclei_are_skipped(small_slide_folder: Path) -> None:
    images = load_slides(small_slide_folder)
    assert [image.shape for image in images] == [(96, 128, 3)]


def test_a_folder_without_slides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no slide"):
        load_slides(tmp_path)


class Tissue:
    """Objects in pink stroma, and the maps of a network that is certain, uncertain or wrong about them."""

    def __init__(self) -> None:
        self.image = np.full((220, 260, 3), PINK, np.uint8)
        self.maps = np.zeros((220, 260, 2), np.uint8)
        self.objects: dict[str, np.ndarray] = {}
        self.add("sure", (40, 40), (11, 9), DARK, 240)
        self.add("unsure", (110, 40), (11, 9), PURPLE, 115)
        self.add("thin", (60, 120), (24, 5), DARK, 60)
        self.add("denied", (180, 120), (24, 5), DARK, 10)
        self.add("imagined", (180, 40), (11, 9), PINK, 240)
        self.add("other", (60, 180), (11, 9), DARK, 240)
        self.add("another", (110, 180), (11, 9), DARK, 240)

    def add(
        self, name: str, centre: tuple[int, int], axes: tuple[int, int], colour: tuple[int, int, int], found: int
    ) -> None:
        form = np.zeros(self.image.shape[:2], np.uint8)
        cv2.ellipse(form, centre, axes, 20.0, 0.0, 360.0, 1, -1)
        self.objects[name] = form > 0
        self.image[form > 0] = colour
        self.maps[form > 0, 0] = found
        distance = cv2.distanceTransform(form, cv2.DIST_L2, 5)
        self.maps[..., 1] = np.maximum(self.maps[..., 1], (255 * distance / distance.max()).astype(np.uint8))


def test_a_nucleus_is_what_network_and_stain_agree_on() -> None:
    tissue = Tissue()
    labels, known = pseudo_labels(tissue.image, tissue.maps)
    one = {name: set(np.unique(labels[form]).tolist()) - {0} for name, form in tissue.objects.items()}
    covered = {name: (labels[form] > 0).mean() for name, form in tissue.objects.items()}
    for name in ("sure", "unsure", "thin", "other", "another"):
        assert len(one[name]) == 1, name
        assert covered[name] > 0.7, name
    assert not one["imagined"]
    assert not one["denied"]
    inside = cv2.erode(tissue.objects["denied"].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert not known[inside].any(), "dark blue, but the network is certain that it is no nucleus: unknown"
    assert not known[tissue.objects["imagined"]].any()
    assert known[labels > 0].all()
    stroma = ~np.any(
        [cv2.dilate(form.astype(np.uint8), np.ones((9, 9))) > 0 for form in tissue.objects.values()], axis=0
    )
    assert known[stroma].all()


def test_nothing_is_found_on_glass() -> None:
    labels, known = pseudo_labels(np.full((90, 70, 3), 243, np.uint8), np.zeros((90, 70, 2), np.uint8))
    assert not labels.any()
    assert known.all()


def test_averaged_maps_keep_their_positions() -> None:
    class Copy:
        """Returns two colours of the image as maps."""

        def __init__(self) -> None:
            self.shapes: list[tuple[int, ...]] = []

        def __call__(self, image: Pixels) -> Segmentation:
            self.shapes.append(image.shape)
            return Segmentation(image[..., :2], ("nucleus", "distance"), np.zeros(image.shape[:2], np.int32), 0)

    rows, columns = np.mgrid[:80, :120]
    image = np.dstack([rows, columns, rows]).astype(np.uint8)
    network = Copy()
    found = averaged_maps(network, image)  # type: ignore[arg-type] # it has what is asked of one
    assert found.shape == (80, 120, 2)
    assert np.abs(found.astype(int) - image[..., :2]).max() <= 1
    assert len(set(network.shapes)) == 3
