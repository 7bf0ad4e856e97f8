"""Small ONNX models for the tests: random U-Nets like the bundled model, and models of other layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
SIZE = 256


class Net:
    """Collects nodes and weights; every method returns the name of the tensor it makes."""

    def __init__(self, seed=0):
        self.nodes = []
        self.weights = []
        self.rng = np.random.default_rng(seed)
        self.count = 0

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        name = f"t{self.count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, array):
        self.count += 1
        name = f"w{self.count}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def conv(self, x, inputs, outputs, kernel=3, **attributes):
        scale = np.sqrt(2.0 / (inputs * kernel * kernel))
        weight = self.rng.normal(0, scale, (outputs, inputs, kernel, kernel)).astype(np.float32)
        bias = self.rng.normal(0, 0.1, outputs).astype(np.float32)
        attributes.setdefault("pads", [kernel // 2] * 4)
        return self.op("Conv", x, self.constant(weight), self.constant(bias), kernel_shape=[kernel] * 2, **attributes)

    def block(self, x, inputs, outputs):
        x = self.op("Relu", self.conv(x, inputs, outputs))
        return self.op("Relu", self.conv(x, outputs, outputs))

    def double(self, x, mode="nearest"):
        return self.op(
            "Resize",
            x,
            "",
            self.constant(np.array([1, 1, 2, 2], np.float32)),
            mode=mode,
            coordinate_transformation_mode="asymmetric" if mode == "nearest" else "half_pixel",
            **({"nearest_mode": "floor"} if mode == "nearest" else {}),
        )

    def save(self, path, source, result, metadata=None):
        """Write the graph; `source` and `result` are (name, TensorProto type, shape)."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info(*source)],
            [helper.make_tensor_value_info(*one) for one in (result if isinstance(result, list) else [result])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
        for key, value in (metadata or {}).items():
            model.metadata_props.add(key=key, value=value)
        onnx.checker.check_model(model)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        return path


def unet(path, base=4, depth=2, channels=2, seed=0, mode="nearest", spread=4.0):
    """A U-Net with random weights, and the tensors and metadata of the bundled model."""
    net = Net(seed)
    x = net.op("Cast", net.op("Transpose", "tiles", perm=[0, 3, 1, 2]), to=TensorProto.FLOAT)
    x = net.op("Sub", net.op("Mul", x, net.constant(np.float32(2 / 255))), net.constant(np.float32(1)))
    skips, width = [], 3
    for level in range(depth):
        x = net.block(x, width, base << level)
        width = base << level
        skips.append(x)
        x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.block(x, width, base << depth)
    for level in reversed(range(depth)):
        width = base << level
        x = net.double(net.conv(x, 2 * width, width, kernel=1), mode)
        x = net.block(net.op("Concat", skips[level], x, axis=1), 2 * width, width)
    x = net.conv(x, base, channels, kernel=1)
    x = net.op("Sigmoid", net.op("Mul", x, net.constant(np.float32(spread))))
    x = net.op("Round", net.op("Mul", x, net.constant(np.float32(255))))
    x = net.op("Cast", x, to=TensorProto.UINT8)
    net.nodes.append(helper.make_node("Transpose", [x], ["masks"], perm=[0, 2, 3, 1]))
    names = ["nucleus", "distance", *(f"extra{i}" for i in range(channels))][:channels]
    return net.save(
        path,
        ("tiles", TensorProto.UINT8, ["N", "H", "W", 3]),
        ("masks", TensorProto.UINT8, ["N", "H", "W", channels]),
        {"channels": ",".join(names), "mpp_min": "0.2", "mpp_max": "0.6"},
    )


def planar(path, size=256, batch=None, rank=3, dtype=TensorProto.FLOAT, ending="Sigmoid", channels=1, crop=0):
    """A net with channels first, float input, one float map; `rank` 3 has no batch axis, `ending` None gives logits."""
    net = Net(7)
    x = "image"
    if dtype != TensorProto.FLOAT:
        x = net.op("Cast", x, to=TensorProto.FLOAT)
    if rank == 3:
        x = net.op("Unsqueeze", x, net.constant(np.array([0], np.int64)))
    x = net.conv(x, 3, channels)
    if ending in ("Sigmoid",):
        x = net.op("Sigmoid", x)
    elif ending == "nan":
        x = net.op("Sqrt", net.op("Sub", net.op("Sigmoid", x), net.constant(np.float32(2))))
    if crop:
        x = net.op(
            "Slice", x, net.constant(np.array([crop])), net.constant(np.array([1 << 40])), net.constant(np.array([3]))
        )
    if rank == 3:
        x = net.op("Squeeze", x, net.constant(np.array([0], np.int64)))
    net.nodes.append(helper.make_node("Cast", [x], ["probability"], to=dtype))
    lead = [batch or "N"] if rank == 4 else []
    return net.save(
        path,
        ("image", dtype, [*lead, 3, size, size]),
        ("probability", dtype, [*lead, channels, size, size - crop if isinstance(size, int) else size]),
    )


def dark_model(path: Path) -> None:
    """Write a model that calls dark what is dark in green: two uint8 maps, 255 - green and green."""
    tiles = helper.make_tensor_value_info("tiles", TensorProto.UINT8, ["n", "h", "w", 3])
    masks = helper.make_tensor_value_info("masks", TensorProto.UINT8, ["n", "h", "w", 2])
    constants = [
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("two", TensorProto.INT64, [1], [2]),
        helper.make_tensor("axis", TensorProto.INT64, [1], [3]),
        helper.make_tensor("white", TensorProto.INT32, [], [255]),
    ]
    nodes = [
        helper.make_node("Slice", ["tiles", "one", "two", "axis"], ["green"]),
        helper.make_node("Cast", ["green"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Sub", ["white", "wide"], ["dark"]),
        helper.make_node("Cast", ["dark"], ["nucleus"], to=TensorProto.UINT8),
        helper.make_node("Concat", ["nucleus", "green"], ["masks"], axis=3),
    ]
    graph = helper.make_graph(nodes, "dark", [tiles], [masks], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {"channels": "nucleus,boundary", "mpp_min": "0.2", "mpp_max": "0.6"})
    path.parent.mkdir(parents=True)
    onnx.save(model, path)


def random_tiles(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def written(path: Path, body: str, *, inputs: str = "uint8[n, h, w, 3] x", outputs: str, constants: str = "") -> Path:
    """Write a model whose graph is given in the language of `onnx.parser`; it finds the channel ``green`` in place."""
    text = f"""<ir_version: 9, opset_import: ["" : 18]>
    written ({inputs}) => ({outputs}) <int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] last = {{3}}
        {constants and ", " + constants}>
    {{ green = Slice (x, one, two, last) {body} }}"""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(onnx.parser.parse_model(text), path)
    return path
