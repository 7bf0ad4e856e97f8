"""The tissue mask keeps tissue when in doubt, and still drops background, pen marks and dust."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchmarks.synthetic import PENS, Canvas, blob, tissue_density
from benchmarks.tissue import SHAPE, otsu_grey, real_density, scene, shares
from nuclei_segmentation.operators.load.tissue import looks_like_fluorescence, tissue_mask
from nuclei_segmentation.shared.slides.open import open_slide

LIMIT = 1024 * 1024


@pytest.fixture(scope="module")
def made():
    return tissue_density(SHAPE, 1)


def kept(canvas, image):
    tissue, pale, pen, specks, bare = (float(share or "nan") for share in shares(canvas, tissue_mask(image)))
    return {"tissue": tissue, "pale": pale, "pen": pen, "specks": specks, "bare": bare}


# --- tissue is kept --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("contrast", "least"), [(0.03, 90), (0.05, 98), (0.1, 99), (0.2, 99)])
def test_pale_tissue_beside_dark_tissue_and_pens_is_kept(made, contrast, least):
    # A mean green density of 0.05 is 12 levels of 240.
    canvas = scene(made, contrast)
    found = kept(canvas, canvas.image())
    assert found["tissue"] > 99.9
    assert found["pale"] >= least
    assert otsu_grey(canvas.image())[canvas.truth["pale"]].mean() < 0.2


@pytest.mark.usefixtures("sample_slide")
@pytest.mark.parametrize(("contrast", "least"), [(0.03, 92), (0.05, 97), (0.1, 98)])
def test_pale_real_tissue_is_kept(contrast, least):
    # The patch has clefts, which are background: not all of it can be found.
    canvas = scene(real_density(SHAPE), contrast)
    found = kept(canvas, canvas.image())
    assert found["tissue"] > 99.9
    assert found["pale"] >= least
    assert max(found["pen"], found["specks"], found["bare"]) < 1


def test_immunohistochemistry_is_kept():
    canvas = scene(tissue_density(SHAPE, 1, ihc=True))
    found = kept(canvas, canvas.image())
    assert found["tissue"] > 99.5
    assert found["pale"] > 99
    assert found["pen"] < 1


@pytest.mark.parametrize("strength", [0.3, 1.0, 2.0])
def test_a_thumbnail_of_nothing_but_tissue_is_kept(made, strength):
    canvas = Canvas.glass(SHAPE).tissue(made * strength, np.ones(SHAPE, np.bool_))
    assert tissue_mask(canvas.image()).mean() > 0.99


def test_greyscale_tissue_is_kept_and_greyscale_background_dropped(made):
    canvas = scene(made, 0.2, pens=())
    grey = canvas.image() @ np.array([0.3, 0.59, 0.11])
    mask = tissue_mask(np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2))
    assert mask[canvas.truth["tissue"]].mean() > 0.98
    assert mask[canvas.truth["pale"]].mean() > 0.98
    assert mask[canvas.empty_glass()].mean() < 0.01


def test_a_margin_is_added(made):
    where = blob(SHAPE, (0.5, 0.5), 0.3, 3)
    canvas = Canvas.glass(SHAPE).tissue(made, where)
    around = cv2.dilate(where.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    assert tissue_mask(canvas.image())[around].all()


def test_a_small_coloured_fragment_is_kept(made):
    canvas = Canvas.glass(SHAPE).tissue(made, blob(SHAPE, (0.5, 0.5), 0.005, 3))
    assert tissue_mask(canvas.image())[canvas.truth["tissue"]].all()


def test_a_stain_of_the_colour_of_ink_is_a_stain():
    # For instance toluidine blue, with which everything on the slide looks like a pen mark.
    canvas = Canvas.glass(SHAPE).tissue(
        tissue_density(SHAPE, 1)[..., ::-1] * [3, 0.8, 0.3], blob(SHAPE, (0.5, 0.5), 0.3, 3)
    )
    assert tissue_mask(canvas.image())[canvas.truth["tissue"]].mean() > 0.98


def test_a_surgeons_ink_on_the_margin_does_not_cost_tissue(made):
    canvas = Canvas.glass(SHAPE).tissue(made, blob(SHAPE, (0.5, 0.5), 0.25, 3))
    canvas.pen(PENS["green"], [(0.5, 0.46), (0.5, 0.48)], 20)
    assert tissue_mask(canvas.image())[canvas.truth["tissue"]].mean() > 0.99


# --- the rest is dropped ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pen", PENS)
@pytest.mark.parametrize(("width", "blur"), [(8, 0.7), (60, 1.5)])
def test_pen_strokes_and_their_edges_are_dropped(made, pen, width, blur):
    canvas = Canvas.glass(SHAPE).tissue(made, blob(SHAPE, (0.5, 0.65), 0.2, 4))
    canvas.pen(PENS[pen], [(0.05, 0.1), (0.5, 0.15), (0.95, 0.08)], width, blur)
    found = kept(canvas, canvas.image())
    assert found["tissue"] > 99.9
    assert found["pen"] < 1


@pytest.mark.parametrize("pen", ["blue", "green", "black"])
def test_a_stroke_across_tissue_drops_only_what_it_covers(made, pen):
    canvas = Canvas.glass(SHAPE).tissue(made, blob(SHAPE, (0.5, 0.5), 0.3, 4))
    canvas.pen(PENS[pen], [(0.05, 0.45), (0.95, 0.5)], 24)
    found = kept(canvas, canvas.image())
    assert found["tissue"] > 99
    assert found["pen"] < 1


@pytest.mark.parametrize(
    "light",
    [
        {},
        {"level": (205, 206, 205)},
        {"level": (240, 234, 215)},
        {"level": (255, 255, 255)},
        {"tilt": 0.15},
        {"vignette": 0.2},
        {"tilt": 0.08, "vignette": 0.1, "level": (225, 220, 228)},
    ],
    ids=str,
)
def test_background_is_dropped_whatever_its_illumination(made, light):
    canvas = scene(made, **light)
    found = kept(canvas, canvas.image())
    assert found["tissue"] > 99.9
    assert found["pale"] > 98
    assert max(found["pen"], found["specks"], found["bare"]) < 1
    alone = Canvas.glass(SHAPE, **light)
    assert tissue_mask(alone.image(noise=3, quality=60)).mean() < 0.001


@pytest.mark.parametrize(("noise", "quality"), [(0, None), (2, 40), (4, 60), (6, 50), (3, None)])
def test_noise_of_sensor_and_jpeg_is_not_tissue(made, noise, quality):
    canvas = scene(made)
    found = kept(canvas, canvas.image(noise, quality))
    assert found["pale"] > 98
    assert found["bare"] < 1
    assert tissue_mask(Canvas.glass(SHAPE).image(noise, quality)).mean() < 0.001


def test_dust_and_thin_grey_lines_are_dropped(made):
    canvas = Canvas.glass(SHAPE).tissue(made, blob(SHAPE, (0.6, 0.6), 0.1, 4))
    canvas.dust(60, (1, 9), 3).line((0.02, 0.1), (0.97, 0.14)).line((0.1, 0.02), (0.1, 0.99), 3)
    found = kept(canvas, canvas.image())
    assert found["tissue"] > 99.9
    assert found["specks"] < 1
    assert found["bare"] < 0.1


def test_without_any_colour_dust_may_be_tissue():
    # When in doubt, it is tissue: in a greyscale scan, darkness is the only sign of tissue.
    canvas = Canvas.glass(SHAPE).dust(10, (8, 9), 3)
    assert tissue_mask(canvas.image())[canvas.pixels[..., 0] < 150].all()


@pytest.mark.parametrize("value", [0, 255])
def test_unscanned_areas_are_dropped_and_do_not_shift_the_background(made, value):
    canvas = scene(made, level=(215, 216, 214)).fill(slice(0, 120), slice(0, 1100), value)
    canvas.fill(slice(600, 900), slice(900, 1100), value)
    mask = tissue_mask(canvas.image())
    assert not mask[canvas.truth["fill"]].any()
    assert mask[canvas.empty_glass()].mean() < 0.01
    assert mask[canvas.truth["pale"]].mean() > 0.98


# --- real slides -----------------------------------------------------------------------------------------------------


def thumbnail_of(path):
    with open_slide(path) as slide:
        return slide.thumbnail(LIMIT).pixels


def test_the_sample_slide(sample_slide):
    thumbnail = thumbnail_of(sample_slide)
    mask = tissue_mask(thumbnail)
    assert 0.38 < mask.mean() < 0.46
    strong = thumbnail[..., 1] < 180
    assert mask[strong].mean() > 0.998
    assert not mask[-200:, :100].any()


def test_a_slide_without_background(more_slides):
    assert tissue_mask(thumbnail_of(more_slides / "BRACS_1640_N_3_cropped.tiff")).all()


def test_a_tissue_core(more_slides):
    mask = tissue_mask(thumbnail_of(more_slides / "HE_TMA_core.tif"))
    assert 0.70 < mask.mean() < 0.77  # a disc of 0.73 of the image
    corner = mask.shape[0] // 10
    assert not mask[:corner, :corner].any()


def test_fat_and_out_of_focus_dust_on_a_whole_slide(more_slides):
    thumbnail = thumbnail_of(more_slides / "camelyon_overview.dcm")
    mask = tissue_mask(thumbnail)
    height, width = mask.shape
    assert mask[int(0.3 * height) : int(0.6 * height), int(0.24 * width) : int(0.32 * width)].mean() > 0.9  # fat
    assert not mask[: int(0.04 * height), int(0.32 * width) : int(0.345 * width)].any()  # blurred dust
    assert not mask[int(0.63 * height) : int(0.69 * height), int(0.38 * width) : int(0.43 * width)].any()  # the same
    assert 0.40 < mask.mean() < 0.50


# --- any image -------------------------------------------------------------------------------------------------------


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 24), st.integers(1, 24), st.just(3))))
def test_any_small_image_has_a_mask_of_its_size(thumbnail):
    before = thumbnail.copy()
    mask = tissue_mask(thumbnail)
    assert mask.shape == thumbnail.shape[:2]
    assert mask.dtype == np.bool_
    np.testing.assert_array_equal(mask, tissue_mask(thumbnail))
    np.testing.assert_array_equal(thumbnail, before)
    assert looks_like_fluorescence(thumbnail) in (True, False)


@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 2), (7, 7), (300, 200)])
@pytest.mark.parametrize(
    ("colour", "tissue"),
    [((255, 255, 255), False), ((0, 0, 0), False), ((235, 236, 234), False), ((220, 150, 200), True)],
)
def test_an_image_of_one_colour(shape, colour, tissue):
    thumbnail = np.full((*shape, 3), colour, np.uint8)
    assert (tissue_mask(thumbnail) == tissue).all()


@pytest.mark.parametrize("side", [16, 40, 100])
def test_tissue_in_a_tiny_thumbnail(made, side):
    canvas = Canvas.glass(SHAPE).tissue(made, blob(SHAPE, (0.5, 0.5), 0.25, 3))
    small = cv2.resize(canvas.image(), (side, side), interpolation=cv2.INTER_AREA)
    truth = cv2.resize(canvas.truth["tissue"].astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    mask = tissue_mask(small)
    assert mask[truth > 0.5].all()
    assert mask.mean() < 0.75


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((5, 5), np.uint8), np.zeros((5, 5, 4), np.uint8), np.zeros((5, 5, 3)), np.zeros((0, 5, 3), "u1")],
)
def test_what_is_not_an_rgb_image_is_refused(wrong):
    with pytest.raises(ValueError, match="RGB"):
        tissue_mask(wrong)


def test_a_megapixel_is_quick(made):
    canvas = scene(made)
    thumbnail = cv2.resize(canvas.image(), (1100, 953))
    start = time.process_time()
    tissue_mask(thumbnail)
    assert time.process_time() - start < 3  # 0.3 s on a busy core


# --- fluorescence ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [0, 8, 30])
@pytest.mark.parametrize("colour", [(1, 1, 1), (0, 0, 1), (0.2, 1, 0.1)])
def test_a_dark_background_is_recognised_and_nothing_is_dropped(made, background, colour):
    light = np.clip(made[..., 1:2] * 120 * blob(SHAPE, (0.5, 0.5), 0.25, 3)[..., None], 0, 200) * np.array(colour)
    thumbnail = (light + background).astype(np.uint8)
    assert looks_like_fluorescence(thumbnail)
    assert tissue_mask(thumbnail)[blob(SHAPE, (0.5, 0.5), 0.25, 3)].mean() > 0.99


def test_a_stained_slide_is_not_taken_for_fluorescence(made):
    canvas = scene(made, pens=("black",)).fill(slice(0, 700), slice(0, 1100), 0)
    assert not looks_like_fluorescence(canvas.image())
    dark = Canvas.glass(SHAPE).tissue(made * 3, np.ones(SHAPE, np.bool_))
    assert not looks_like_fluorescence(dark.image())
    assert not looks_like_fluorescence(np.zeros((50, 50, 3), np.uint8))


def test_what_is_unknown_is_tissue_and_changes_nothing_else(made):
    """Wherever it lies and whatever its pixels are: on glass, on tissue, over the border of both."""
    canvas = Canvas.glass(SHAPE).tissue(made, blob(SHAPE, (0.5, 0.5), 0.25, 3))
    image = canvas.image()
    whole = tissue_mask(image)
    height, width = SHAPE
    for top, left in ((0.05, 0.05), (0.45, 0.45), (0.2, 0.4), (0.6, 0.0)):
        unknown = np.zeros(SHAPE, np.bool_)
        rows, columns = (slice(round(a * side), round((a + 0.3) * side)) for a, side in ((top, height), (left, width)))
        unknown[rows, columns] = True
        around = cv2.dilate(unknown.astype(np.uint8), np.ones((25, 25))).astype(bool)
        masks = []
        for colour in (0, 255, (255, 0, 255)):
            broken = image.copy()
            broken[unknown] = colour
            mask = tissue_mask(broken, unknown)
            assert mask[unknown].all()
            assert mask[canvas.truth["tissue"]].all()
            assert ((mask != whole) & ~around).mean() < 0.001
            assert not looks_like_fluorescence(broken, unknown)
            masks.append(mask)
        assert np.array_equal(masks[0], masks[1])
        assert np.array_equal(masks[0], masks[2])


def test_a_saturated_slide_keeps_its_tissue_beside_the_unknown(made):
    """Pure white glass with a white hole in it: the straight border of the hole must not pass for a skipped area."""
    canvas = Canvas.glass(SHAPE).tissue(made, blob(SHAPE, (0.5, 0.5), 0.25, 3))
    image = canvas.image()
    image[~canvas.truth["tissue"]] = 255
    unknown = np.zeros(SHAPE, np.bool_)
    unknown[: SHAPE[0] // 2] = True
    image[unknown] = 255
    mask = tissue_mask(image, unknown)
    assert mask[unknown | canvas.truth["tissue"]].all()
    assert mask.mean() < 0.9


def test_the_unknown_within_what_the_scanner_left_out_is_tissue(made):
    canvas = Canvas.glass(SHAPE).tissue(made, blob(SHAPE, (0.5, 0.7), 0.2, 3))
    image = canvas.image()
    image[:, : SHAPE[1] // 3] = 255
    unknown = np.zeros(SHAPE, np.bool_)
    unknown[200:400, 100:200] = True
    mask = tissue_mask(image, unknown)
    assert mask[unknown].all()
    assert mask[:, : SHAPE[1] // 4].mean() < 0.15


def test_a_dark_object_beside_a_large_unknown_area_is_not_taken_for_fluorescence():
    image = np.full((*SHAPE, 3), 240, np.uint8)
    image[:, 200:230] = 10
    unknown = np.zeros(SHAPE, np.bool_)
    unknown[:, 230:] = True
    assert not looks_like_fluorescence(image, unknown)
    assert not tissue_mask(image, unknown)[:, :150].any()


def test_nothing_is_known():
    assert tissue_mask(np.full((50, 60, 3), 255, np.uint8), np.ones((50, 60), np.bool_)).all()
