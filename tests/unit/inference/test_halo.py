"""The halo that is read from a graph is exact, and no smaller one is."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from nuclei_segmentation.operators.filter.inference.embedded.graph import Unbounded
from nuclei_segmentation.operators.filter.inference.embedded.receptive_field import receptive_field
from tests.helpers import nets


def run(path, image):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options).run(None, {"tiles": image[np.newaxis]})[0][0].astype(np.int16)


def image_of(side, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def net_with(path, build):
    """Save a net with one spatial part: `build(net, x)` takes and returns N, 3, H, W."""
    net = nets.Net(3)
    x = net.op("Cast", net.op("Transpose", "tiles", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    x = build(net, x)
    net.nodes.append(helper.make_node("Transpose", [x], ["masks"], perm=[0, 2, 3, 1]))
    sides = ["N", "H", "W", "C"]
    return net.save(path, ("tiles", TensorProto.UINT8, ["N", "H", "W", 3]), ("masks", TensorProto.FLOAT, sides))


def sum_conv(net, x, kernel, **attributes):
    """All weights are positive, so that no dependence cancels out."""
    weight = net.rng.uniform(0.5, 1.5, (3, 3, kernel, kernel)).astype(np.float32)
    return net.op("Conv", x, net.constant(weight), kernel_shape=[kernel] * 2, **attributes)


def resize(net, x, factor, mode, where, rounding="floor"):
    scales = net.constant(np.array([1, 1, factor, factor], np.float32))
    extra = {"nearest_mode": rounding} if mode == "nearest" else {}
    return net.op("Resize", x, "", scales, mode=mode, coordinate_transformation_mode=where, **extra)


def pooled(net, x, back):
    return back(net, net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))


def transposed(net, x, kernel, pads):
    weight = net.rng.uniform(0.5, 1.5, (3, 3, kernel, kernel)).astype(np.float32)
    return net.op("ConvTranspose", x, net.constant(weight), kernel_shape=[kernel] * 2, strides=[2, 2], pads=[pads] * 4)


PARTS = {
    "conv3": (lambda n, x: sum_conv(n, x, 3, pads=[1] * 4), 1, 1),
    "conv5": (lambda n, x: sum_conv(n, x, 5, pads=[2] * 4), 2, 1),
    "conv1": (lambda n, x: sum_conv(n, x, 1), 0, 1),
    "dilated": (lambda n, x: sum_conv(n, x, 3, dilations=[3, 3], pads=[3] * 4), 3, 1),
    "even kernel": (lambda n, x: sum_conv(n, x, 4, pads=[1, 1, 2, 2]), 2, 1),
    "same upper": (lambda n, x: sum_conv(n, x, 4, auto_pad="SAME_UPPER"), 2, 1),
    "two convs": (lambda n, x: sum_conv(n, sum_conv(n, x, 3, pads=[1] * 4), 3, pads=[1] * 4), 2, 1),
    "pad and valid conv": (
        lambda n, x: sum_conv(n, n.op("Pad", x, n.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1])), mode="reflect"), 3),
        1,
        1,
    ),
    "conv and slice": (
        lambda n, x: n.op(
            "Slice",
            sum_conv(n, x, 3, pads=[3] * 4),
            n.constant(np.array([2, 2])),
            n.constant(np.array([-2, -2])),
            n.constant(np.array([2, 3])),
        ),
        1,
        1,
    ),
    "nearest": (lambda n, x: pooled(n, x, lambda n, x: resize(n, x, 2, "nearest", "asymmetric")), 0, 2),
    "nearest, half pixel": (
        lambda n, x: pooled(n, x, lambda n, x: resize(n, x, 2, "nearest", "half_pixel", "round_prefer_floor")),
        0,
        2,
    ),
    "linear": (lambda n, x: pooled(n, x, lambda n, x: resize(n, x, 2, "linear", "half_pixel")), 1, 2),
    "linear, asymmetric": (lambda n, x: pooled(n, x, lambda n, x: resize(n, x, 2, "linear", "asymmetric")), 1, 2),
    "cubic": (lambda n, x: pooled(n, x, lambda n, x: resize(n, x, 2, "cubic", "half_pixel")), 3, 2),
    "transposed 2": (lambda n, x: pooled(n, x, lambda n, x: transposed(n, x, 2, 0)), 0, 2),
    "transposed 4": (lambda n, x: pooled(n, x, lambda n, x: transposed(n, x, 4, 1)), 1, 2),
    "strided and shuffled": (
        lambda n, x: n.op(
            "DepthToSpace",
            n.op("Concat", *[sum_conv(n, x, 3, strides=[2, 2], pads=[1, 1, 0, 0])] * 4, axis=1),
            blocksize=2,
        ),
        2,
        2,
    ),
    "average": (lambda n, x: n.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1), 1, 1),
}


@pytest.mark.parametrize("part", PARTS)
def test_radius_of_one_operator_is_the_least_that_is_exact(tmp_path, part):
    build, radius, grid = PARTS[part]
    path = net_with(tmp_path / "model.onnx", build)
    field = receptive_field(onnx.load(path))
    assert (field.radius, field.grid) == (radius, grid)
    # How far from the tile's border the tile still differs from the whole image.
    whole, side = image_of(64), 24
    full = net_run_float(path, whole)
    wrong = 0
    for top, left in ((16, 16), (8, 20), (20, 12), (32, 16)):
        tile = net_run_float(path, whole[top : top + side, left : left + side])
        differs = (tile != full[top : top + side, left : left + side]).any(axis=-1)
        rows, columns = np.nonzero(differs)
        if len(rows):
            away = np.minimum.reduce([rows, columns, side - 1 - rows, side - 1 - columns])
            wrong = max(wrong, int(away.max()) + 1)
    assert wrong == radius


def net_run_float(path, image):
    return ort.InferenceSession(str(path)).run(None, {"tiles": image[np.newaxis]})[0][0]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("depth", [2, 3, 4])
def test_tile_with_halo_equals_whole_image(tmp_path, depth, mode):
    path = nets.unet(tmp_path / "model.onnx", base=4, depth=depth, mode=mode, seed=1)
    field = receptive_field(onnx.load(path))
    assert field.grid == 2**depth
    assert field.halo % field.grid == 0
    halo, core = field.halo, 48
    side = core + 2 * halo
    whole = image_of(side + 96)
    full = run(path, whole)
    assert full.std() > 10
    for top, left in ((0, 0), (16, 48), (80, 32), (96, 96)):
        tile = run(path, whole[top : top + side, left : left + side])
        inner = slice(halo, halo + core)
        expected = full[top + halo : top + halo + core, left + halo : left + halo + core]
        assert np.abs(tile[inner, inner] - expected).max() <= 1


def test_less_than_the_radius_is_not_exact(tmp_path):
    """With positive weights and no saturation, every pixel of the receptive field changes the result."""

    def build(net, x):
        x = sum_conv(net, x, 3, pads=[1] * 4)
        down = sum_conv(net, net.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), 3, pads=[1] * 4)
        return net.op("Add", x, net.double(down))

    path = net_with(tmp_path / "model.onnx", build)
    radius = receptive_field(onnx.load(path)).radius
    whole = image_of(96)
    full = net_run_float(path, whole)
    tile = net_run_float(path, whole[16:80, 16:80])
    same = np.isclose(tile, full[16:80, 16:80], rtol=1e-5).all(axis=-1)
    assert same[radius:-radius, radius:-radius].all()
    assert not same[radius - 1 : -radius + 1, radius - 1 : -radius + 1].all()


def test_size_computed_from_a_skip_connection(tmp_path):
    def build(net, x):
        low = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
        two, four = net.constant(np.array([2])), net.constant(np.array([4]))
        channels = net.op("Slice", net.op("Shape", low), net.constant(np.array([0])), two)
        sizes = net.op("Concat", channels, net.op("Slice", net.op("Shape", x), two, four), axis=0)
        return net.op("Resize", low, "", "", sizes, mode="linear", coordinate_transformation_mode="half_pixel")

    field = receptive_field(onnx.load(net_with(tmp_path / "model.onnx", build)))
    assert (field.radius, field.grid) == (1, 2)


GLOBAL = {
    "global pooling": lambda n, x: n.op("Mul", x, n.op("GlobalAveragePool", x)),
    "instance norm": lambda n, x: n.op(
        "InstanceNormalization", x, n.constant(np.ones(3, np.float32)), n.constant(np.zeros(3, np.float32))
    ),
    "softmax over the width": lambda n, x: n.op("Softmax", x, axis=3),
    "mean over the height": lambda n, x: n.op("Add", x, n.op("ReduceMean", x, axes=[2])),
    "reshape": lambda n, x: n.op("Reshape", x, n.op("Shape", x)),
    "corners aligned": lambda n, x: pooled(n, x, lambda n, x: resize(n, x, 2, "linear", "align_corners")),
    "weights by place": lambda n, x: n.op("Mul", x, n.constant(np.ones((1, 1, 64, 1), np.float32))),
    "size lost": lambda n, x: sum_conv(n, x, 3),
}


@pytest.mark.parametrize("kind", GLOBAL)
def test_no_halo_for_models_that_depend_on_the_whole_image(tmp_path, kind):
    path = net_with(tmp_path / "model.onnx", GLOBAL[kind])
    with pytest.raises(Unbounded):
        receptive_field(onnx.load(path))


def test_channel_operators_do_not_extend_the_receptive_field(tmp_path):
    def build(net, x):
        x = net.op("Softmax", x, axis=1)
        one = net.op("Unsqueeze", net.op("ReduceMax", x, axes=[1], keepdims=0), net.constant(np.array([1])))
        first = net.op("Gather", x, net.constant(np.array([0])), axis=1)
        return net.op("Concat", net.op("Clip", one), first, axis=1)

    assert receptive_field(onnx.load(net_with(tmp_path / "model.onnx", build))).radius == 0
