"""Models for the benchmarks: one that does nothing, one with constant nuclei, a plain U-Net, and the bundled one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.slides import CACHE, ROOT, pattern
from nuclei_segmentation.shared.batches import Pixels

NAME = "segmentation_unet_nuclei"
BUNDLED = ROOT / "models"
CHANNELS = "nucleus,distance"
_TISSUE = np.s_[940:1196, 860:1116]
"""A tile of the pattern with many nuclei."""


def idle_repository() -> Path:
    """Return a model repository whose model outputs zeros, two maps a tile like the bundled model, at no cost."""
    repository = CACHE / "idle"
    _save(_idle(), repository)
    return repository


def drawing_repository() -> Path:
    """Return a model repository whose model outputs the same nuclei for every tile, at almost no cost.

    They are the nuclei of a tile of tissue. Like real maps, these maps are steep at the borders of nuclei and not quite
    constant elsewhere, so that they compress like real maps.
    """
    repository = CACHE / "drawing"
    _save(_constant(constant_nuclei()), repository)
    return repository


def plain_unet() -> Path:
    """Return the file of a plain U-Net of base 16 and depth 4 with random weights: a common network for nuclei."""
    repository = CACHE / "plain"
    _save(_unet(), repository)
    return repository / NAME / "1" / "model.onnx"


def _save(model: onnx.ModelProto, repository: Path) -> None:
    path = repository / NAME / "1" / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def _model(nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "measured",
        [helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", "h", "w", 3])],
        [helper.make_tensor_value_info("masks", TensorProto.UINT8, ["n", "h", "w", 2])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"channels": CHANNELS, "mpp_min": "0.2", "mpp_max": "0.65"})
    onnx.checker.check_model(model)
    return model


def _idle() -> onnx.ModelProto:
    """Return a model that only uses the shape of its input."""
    zero = helper.make_tensor("zero", TensorProto.UINT8, [1], [0])
    return _model(
        [
            helper.make_node("Shape", ["tiles"], ["outside"], end=3),
            helper.make_node("Concat", ["outside", "two"], ["shape"], axis=0),
            helper.make_node("ConstantOfShape", ["shape"], ["masks"], value=zero),
        ],
        [helper.make_tensor("two", TensorProto.INT64, [1], [2])],
    )


def constant_nuclei() -> Pixels:
    """Return (256, 256, 2) uint8: the darkness in red of each pixel of a tile of tissue, and of its surroundings."""
    red = pattern()[0][_TISSUE][..., 0].astype(np.float32)
    near, far = (1 / (1 + np.exp((cv2.GaussianBlur(red, (0, 0), sigma) - 110) / 10)) for sigma in (1, 3))
    return np.asarray(np.rint(np.stack([near, far], axis=-1) * 255), np.uint8)


def _constant(maps: Pixels) -> onnx.ModelProto:
    """Return a model that outputs the given maps for every tile; the tiles must have the size of the maps."""
    return _model(
        [
            helper.make_node("Shape", ["tiles"], ["outside"], end=3),
            helper.make_node("Concat", ["outside", "two"], ["shape"], axis=0),
            helper.make_node("Expand", ["maps", "shape"], ["masks"]),
        ],
        [helper.make_tensor("two", TensorProto.INT64, [1], [2]), numpy_helper.from_array(maps[None], "maps")],
    )


def _unet(base: int = 16, depth: int = 4) -> onnx.ModelProto:
    """Return a U-Net with concatenated skip connections, two convolutions a level and random weights."""
    random = np.random.default_rng(1)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> str:
        weights.append(numpy_helper.from_array(values, name))
        return name

    def node(kind: str, inputs: list[str], **attributes: str | int | list[int]) -> str:
        name = f"{kind}{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [name], None, None, None, None, **attributes))
        return name

    def convolution(x: str, inputs: int, outputs: int, side: int = 3) -> str:
        scale = np.sqrt(2 / (inputs * side * side))
        kernel = (random.standard_normal((outputs, inputs, side, side)) * scale).astype(np.float32)
        return node("Conv", [x, constant(f"kernel{len(nodes)}", kernel)], pads=[side // 2] * 4)

    def block(x: str, inputs: int, outputs: int) -> str:
        for first in (inputs, outputs):
            x = node("Relu", [convolution(x, first, outputs)])
        return x

    widths = [base << level for level in range(depth + 1)]
    scales = constant("scales", np.array([1, 1, 2, 2], np.float32))
    x = node("Transpose", [node("Cast", ["tiles"], to=TensorProto.FLOAT)], perm=[0, 3, 1, 2])
    x = node("Mul", [x, constant("unit", np.array(1 / 255, np.float32))])
    skips, inputs = [], 3
    for level, width in enumerate(widths):
        x, inputs = block(x, inputs, width), width
        if level < depth:
            skips.append(x)
            x = node("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    for level in reversed(range(depth)):
        wide = node("Resize", [x, "", scales], mode="nearest", coordinate_transformation_mode="asymmetric")
        joined = node("Concat", [skips[level], wide], axis=1)
        x = block(joined, widths[level] + widths[level + 1], widths[level])
    x = node("Sigmoid", [convolution(x, base, 2, side=1)])
    x = node("Mul", [x, constant("white", np.array(255, np.float32))])
    x = node("Cast", [node("Round", [x])], to=TensorProto.UINT8)
    nodes.append(helper.make_node("Transpose", [x], ["masks"], perm=[0, 2, 3, 1]))
    return _model(nodes, weights)
