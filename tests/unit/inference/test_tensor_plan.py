"""Models of any layout are used as their tensors allow; those that do not fit are refused with a reason."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.operators.filter.inference.tensor_plan import TensorSpec, make_plan
from nuclei_segmentation.shared.errors import ModelError

T = 32


def spec(name, dtype, *shape):
    return TensorSpec(name, dtype, shape)


NHWC = spec("tiles", "uint8", None, None, None, 3)
MASKS = spec("masks", "uint8", None, None, None, 2)


def tiles(count):
    return np.random.default_rng(count).integers(0, 256, (count, T, T, 3), dtype=np.uint8)


def expected_maps(pixels, channels, dtype):
    """Return maps whose channel c is the image's channel c % 3, rounded to the model's dtype."""
    maps = pixels[..., [c % 3 for c in range(channels)]]
    return maps if dtype == "uint8" else np.rint(255 * (maps / np.float32(255)).astype(dtype).astype(np.float32))


class Model:
    """Computes what the specs promise, and records the shapes of its inputs."""

    def __init__(self, image, outputs, channels_first, channels):
        self.image, self.outputs, self.channels_first, self.channels = image, outputs, channels_first, channels
        self.seen = []

    def __call__(self, array):
        self.seen.append(array.shape)
        assert str(array.dtype) == self.image.dtype
        assert array.flags.c_contiguous
        batched = array.ndim == 4
        array = array if batched else array[np.newaxis]
        if array.shape[1] == 3:
            array = np.moveaxis(array, 1, -1)
        pixels = array if array.dtype == np.uint8 else np.rint(array.astype(np.float32) * 255).astype(np.uint8)
        outputs, first = [], 0
        for output, count in zip(self.outputs, self.channels, strict=True):
            maps = pixels[..., [(first + c) % 3 for c in range(count)]]
            first += count
            if output.dtype != "uint8":
                maps = (maps / np.float32(255)).astype(output.dtype)
            if len(output.shape) == (3 if batched else 2):
                maps = maps[..., 0]
            elif self.channels_first:
                maps = np.moveaxis(maps, -1, 1)
            outputs.append(maps if batched else maps[0])
        return outputs


@st.composite
def models(draw):
    batched, first_in, first_out = draw(st.booleans()), draw(st.booleans()), draw(st.booleans())
    side = draw(st.sampled_from([None, T]))
    lead = (draw(st.sampled_from([None, 1, 3])),) if batched else ()
    sides = (3, side, side) if first_in else (side, side, 3)
    image = TensorSpec("image", draw(st.sampled_from(["uint8", "float16", "float32"])), lead + sides)
    outputs, channels = [], []
    for number in range(draw(st.integers(1, 3))):
        count = draw(st.integers(0, 4))  # 0: no channel axis
        shape = (side, side) if not count else (count, side, side) if first_out else (side, side, count)
        outputs.append(TensorSpec(f"out{number}", draw(st.sampled_from(["uint8", "float16", "float32"])), lead + shape))
        channels.append(count or 1)
    return image, outputs, first_out, channels


@given(models(), st.integers(0, 7), st.integers(1, 4))
def test_any_layout_gives_the_same_maps(model, count, batch):
    image, outputs, channels_first, channels = model
    plan = make_plan([image], outputs, T, input_scale=1 / 255)
    assert plan.channels == sum(channels)
    fake = Model(image, outputs, channels_first, channels)
    pixels = tiles(count)
    maps = plan.run(pixels, batch, fake)
    assert maps.shape == (count, T, T, sum(channels))
    assert maps.dtype == np.uint8
    assert maps.flags.c_contiguous
    first = 0
    for output, wanted in zip(outputs, channels, strict=True):
        every = expected_maps(pixels, first + wanted, output.dtype)[..., first:]
        np.testing.assert_array_equal(maps[..., first : first + wanted], every)
        first += wanted
    lead = image.shape[0] if len(image.shape) == 4 else None
    assert all(shape[0] == lead for shape in fake.seen) or lead is None


REFUSED = {
    "two inputs": ([NHWC, spec("size", "uint8", 2)], [MASKS], "has 2 inputs"),
    "no output": ([NHWC], [], "no output"),
    "int input": (
        [spec("tiles", "int64", None, T, T, 3)],
        [MASKS],
        r"'tiles' \(int64 \[\?, 32, 32, 3\]\) is of",
    ),
    "string output": ([NHWC], [spec("masks", "BYTES", None, T, T, 1)], "is of type BYTES"),
    "flat input": ([spec("tiles", "uint8", None, 3072)], [MASKS], "has 2 axes"),
    "grey input": ([spec("tiles", "uint8", None, T, T, 1)], [MASKS], "no axis of 3 colour channels"),
    "fixed input": ([spec("tiles", "uint8", None, 512, 512, 3)], [MASKS], "for tiles of 512 pixels, not 32$"),
    "fixed input, channels first": ([spec("tiles", "uint8", 1, 3, 64, 64)], [MASKS], "for tiles of 64 pixels, not 32$"),
    "odd input": ([spec("tiles", "uint8", None, 250, 250, 3)], [MASKS], "-t must be a multiple of 16"),
    "oblong input": ([spec("tiles", "uint8", None, 32, 64, 3)], [MASKS], "32 by 64 pixels; tiles are square"),
    "smaller output": (
        [NHWC],
        [spec("masks", "uint8", None, 16, 16, 2)],
        "'masks' .* map of 16 by 16 pixels for a tile of 32: half the size of its input",
    ),
    "odd output": (
        [NHWC],
        [spec("masks", "uint8", None, 2, 30, 30)],
        "map of 30 by 30 pixels for a tile of 32: another size",
    ),
    "classes": ([NHWC], [spec("classes", "float32", None, 10)], "has 2 axes"),
    "boxes": ([NHWC], [spec("boxes", "float32", None, 5, T, T, 2)], "has 5 axes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_the_tensor_its_shape_and_what_is_expected(case):
    inputs, outputs, message = REFUSED[case]
    with pytest.raises(ModelError, match=message) as caught:
        make_plan(inputs, outputs, T)
    assert caught.value.exit_code == 15
    assert "\n" not in str(caught.value)


def test_a_side_of_three_pixels_or_as_many_channels_as_pixels():
    assert make_plan([spec("i", "uint8", None, 3, None, None)], [MASKS], T).channels_first
    assert not make_plan([spec("i", "uint8", 3, None, None, 3)], [MASKS], T).channels_first
    plan = make_plan([NHWC], [spec("m", "uint8", None, 16, 16, 16)], 16)
    assert plan.outputs[0].channel_axis == 2
    assert make_plan([NHWC], [spec("m", "uint8", None, 2, None, None)], T).outputs[0].channel_axis == 0
    assert make_plan([NHWC], [spec("m", "uint8", None, None, None, None)], T).channels is None


def plan_for(dtype, *, reading="sigmoid", channels=1):
    return make_plan([NHWC], [spec("p", dtype, None, T, T, channels)], T, reading=reading)


def test_floats_become_bytes_by_rounding_to_even():
    values = np.zeros((1, T, T, 1), np.float32)
    values[0, 0, :4, 0] = [0.5 / 255, 1.5 / 255, 1.0005, -0.0005]
    maps = plan_for("float32").decode([values], 1)
    assert maps[0, 0, :4, 0].tolist() == [0, 2, 255, 0]


def test_logits_go_through_the_logistic_function():
    values = np.zeros((1, T, T, 1), np.float32)
    values[0, 0, :4, 0] = [-1000, 1000, 2, -np.inf]
    maps = plan_for("float32", reading="logit").decode([values], 1)
    assert maps[0, 0, :5, 0].tolist() == [0, 255, round(255 / (1 + np.exp(-2))), 0, 128]


@pytest.mark.parametrize("value", [np.nan, 1.01, -0.01, np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_nan_and_values_out_of_range_are_refused(dtype, value):
    values = np.zeros((2, T, T, 1), dtype)
    values[1, 3, 4] = value
    with pytest.raises(ModelError, match="expected probabilities"):
        plan_for(dtype).decode([values], 2)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, T, T, 1), np.float16), "was returned as float16"),
        (np.zeros((1, T, T, 1), np.float32), "for a batch of 2"),
        (np.zeros((2, T, T), np.float32), "for a batch of 2"),
        (np.zeros((2, T, 16, 1), np.float32), "expected"),
        (np.zeros((2, T, T, 2), np.float32), "expected"),
        (np.full((2, T, T, 1), np.nan, np.float32), "nan"),
    ],
)
def test_outputs_other_than_promised_are_refused(array, message):
    with pytest.raises(ModelError, match=message):
        plan_for("float32").decode([array], 2)


def test_tiles_of_another_size_are_a_programming_error():
    with pytest.raises(ValueError, match="tiles must be"):
        plan_for("float32").run(np.zeros((1, 16, 16, 3), np.uint8), 1, lambda _: [])
