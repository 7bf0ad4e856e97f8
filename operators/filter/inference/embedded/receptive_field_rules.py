"""On which input pixels each ONNX operator depends: rules for `operators.filter.inference.embedded.receptive_field`.

A rule yields, for each output of a node that depends on the image, which axes are its height and width, and from which
pixels of the inputs a range of its pixels is computed. An operator without a rule counts as unbounded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import Any

import onnx
from onnx import helper

from nuclei_segmentation.operators.filter.inference.embedded.graph import Edge, Graph, SourceRange, Unbounded, View

Rule = Iterator[tuple[str, View, list[Edge]]]

#: The end of a slice beyond this means "to the end".
_TO_THE_END = 1 << 30


def apply_rule(graph: Graph, node: onnx.NodeProto) -> Rule:
    """Apply the rule of a node's operator.

    Parameters
    ----------
    graph : Graph
        The graph, with the views of all earlier nodes.
    node : onnx.NodeProto
        A node that depends on the image.

    Yields
    ------
    name : str
        An output of the node.
    view : View
        How it represents the image.
    edges : list of Edge
        From which tensors it is computed.

    Raises
    ------
    Unbounded
        The operator has no rule, or depends on the whole image.
    """
    rule = _RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if rule is None:
        raise Unbounded(f"the receptive field of operator {node.op_type} is not known")
    yield from rule(graph, node)


def _same(low: int, high: int) -> tuple[int, int]:
    return low, high


def _affine(stride: int, start: int, span: int = 0) -> SourceRange:
    """Pixel o depends on pixels `stride` * o + `start` to `stride` * o + `start` + `span`."""

    def source_range(low: int, high: int) -> tuple[int, int]:
        return low * stride + start, high * stride + start + span

    return source_range


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _sizes_only(graph: Graph, node: onnx.NodeProto) -> Rule:
    """Yield nothing: sizes do not depend on the pixels, nor does anything computed from them."""
    yield from ()


def _pixelwise(graph: Graph, node: onnx.NodeProto, view: View | None = None) -> Rule:
    """Each pixel depends on the same pixel of the inputs."""
    sources = [name for name in node.input if name in graph.views]
    view = view or graph.views[sources[0]]
    for name in node.output:
        if name:
            yield name, view, [Edge(source, (_same, _same)) for source in sources]


def _elementwise(graph: Graph, node: onnx.NodeProto) -> Rule:
    views = [graph.views[name] for name in node.input if name in graph.views]
    # Broadcasting aligns shapes at their ends.
    view = max(views, key=lambda view: view.rank)
    for other in views:
        if [axis - other.rank for axis in other.axes] != [axis - view.rank for axis in view.axes]:
            raise Unbounded(f"{node.op_type} of tensors of different layout")
        if (other.scale, other.extra) != (view.scale, view.extra):
            raise Unbounded(f"{node.op_type} of tensors of different size")
    for name in node.input:
        if name and name not in graph.views:
            tensor = graph.constants.get(name)
            if tensor is None:
                raise Unbounded(f"{node.op_type} with a computed '{name}'")
            shape = [1] * (view.rank - len(tensor.dims)) + list(tensor.dims)
            if len(shape) > view.rank or any(shape[axis] != 1 for axis in view.axes):
                raise Unbounded(f"{node.op_type} with weights that differ between pixels")
    yield from _pixelwise(graph, node, view)


def _along_axis(graph: Graph, node: onnx.NodeProto) -> Rule:
    """Operators that mix values along one axis, which must not be height or width."""
    default = {"Concat": None, "Split": 0, "Gather": 0}.get(node.op_type, -1)
    views = [graph.views[name] for name in node.input if name in graph.views]
    axis = _attributes(node).get("axis", default)
    if node.op_type in ("Softmax", "LogSoftmax", "Hardmax") and graph.opset < 13:
        raise Unbounded(f"{node.op_type} of opset {graph.opset} mixes all axes after its first")
    if node.input[0] not in graph.views and node.op_type != "Concat":
        raise Unbounded(f"{node.op_type} with a computed index")
    if axis is None or any(axis % view.rank in view.axes for view in views):
        raise Unbounded(f"{node.op_type} along height or width")
    if any(view != views[0] for view in views):
        raise Unbounded(f"{node.op_type} of tensors of different size")
    if node.op_type != "Gather":
        yield from _pixelwise(graph, node)
        return
    index = graph.constants.get(node.input[1])
    if index is None or len(index.dims) > 1:
        raise Unbounded("Gather with a computed index")
    yield from _pixelwise(graph, node, views[0] if index.dims else _without(views[0], [axis % views[0].rank]))


def _reduce(graph: Graph, node: onnx.NodeProto) -> Rule:
    view = graph.views[node.input[0]]
    attributes = _attributes(node)
    axes = attributes.get("axes")
    if axes is None:
        axes = [attributes.get("axis", 0)] if node.op_type.startswith("Arg") else graph.constant(node, 1)
    if axes is None or any(axis % view.rank in view.axes for axis in axes):
        raise Unbounded(f"{node.op_type} over height or width")
    keep = attributes.get("keepdims", 1)
    yield from _pixelwise(graph, node, view if keep else _without(view, [axis % view.rank for axis in axes]))


def _without(view: View, removed: list[int]) -> View:
    height, width = (axis - sum(lower < axis for lower in removed) for axis in view.axes)
    return replace(view, axes=(height, width), rank=view.rank - len(removed))


def _squeeze(graph: Graph, node: onnx.NodeProto) -> Rule:
    view = graph.views[node.input[0]]
    axes = _attributes(node).get("axes") or graph.constant(node, 1)
    if axes is None or any(axis % view.rank in view.axes for axis in axes):
        raise Unbounded("Squeeze without named axes, or of height or width")
    yield from _pixelwise(graph, node, _without(view, [axis % view.rank for axis in axes]))


def _unsqueeze(graph: Graph, node: onnx.NodeProto) -> Rule:
    view = graph.views[node.input[0]]
    axes = _attributes(node).get("axes") or graph.constant(node, 1) or []
    rank = view.rank + len(axes)
    new = {axis % rank for axis in axes}
    old = [axis for axis in range(rank) if axis not in new]
    yield from _pixelwise(graph, node, replace(view, axes=(old[view.axes[0]], old[view.axes[1]]), rank=rank))


def _transpose(graph: Graph, node: onnx.NodeProto) -> Rule:
    view = graph.views[node.input[0]]
    order = _attributes(node).get("perm", list(range(view.rank))[::-1])
    axes = order.index(view.axes[0]), order.index(view.axes[1])
    yield from _pixelwise(graph, node, replace(view, axes=axes))


def _spatial(graph: Graph, node: onnx.NodeProto) -> View:
    """Return the view of the image input of an operator that takes only N, C, H, W."""
    view = graph.views[node.input[0]]
    if view.rank != 4 or sorted(view.axes) != [2, 3]:
        raise Unbounded(f"{node.op_type} over other axes than height and width")
    # Weights are constants, so if another input depends on the image, the kernel is computed.
    if any(name in graph.views for name in node.input[1:]):
        raise Unbounded(f"{node.op_type} with a computed kernel")
    return view


def _window(graph: Graph, node: onnx.NodeProto) -> Rule:
    """Convolution and pooling: out[o] depends on in[o * stride - pad + k * dilation]."""
    view = _spatial(graph, node)
    attributes = _attributes(node)
    kernel = attributes.get("kernel_shape")
    if kernel is None:
        weight = graph.constants.get(node.input[3 if node.op_type == "QLinearConv" else 1])
        if weight is None:
            raise Unbounded(f"{node.op_type} with a computed kernel")
        kernel = list(weight.dims[2:])
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    pads, auto = attributes.get("pads", [0] * 4), attributes.get("auto_pad", b"NOTSET").decode()
    ranges: list[SourceRange] = []
    scale, extra = [], []
    for dimension, axis in enumerate(view.axes):
        i = axis - 2
        stride, span = strides[i], (kernel[i] - 1) * dilations[i]
        begin, end = pads[i], pads[i + 2]
        if auto == "VALID":
            begin = end = 0
        elif auto.startswith("SAME"):
            total = max(0, span + 1 - stride)
            begin = total // 2 if auto == "SAME_UPPER" else -(-total // 2)
            end = total - begin
        ranges.append(_affine(stride, -begin, span))
        scale.append(view.scale[dimension] / stride)
        steps = Fraction(view.extra[dimension] + begin + end - span - 1, stride)
        extra.append((math.ceil(steps) if attributes.get("ceil_mode") else math.floor(steps)) + 1)
    edge = Edge(node.input[0], (ranges[0], ranges[1]))
    for name in filter(None, node.output):
        yield name, replace(view, scale=(scale[0], scale[1]), extra=(extra[0], extra[1])), [edge]


def _transposed(graph: Graph, node: onnx.NodeProto) -> Rule:
    """Transposed convolution: out[i * stride - pad + k * dilation] depends on in[i]."""
    view = _spatial(graph, node)
    attributes = _attributes(node)
    weight = graph.constants.get(node.input[1])
    kernel = attributes.get("kernel_shape") or (list(weight.dims[2:]) if weight is not None else None)
    if kernel is None or attributes.get("auto_pad", b"NOTSET") != b"NOTSET" or "output_shape" in attributes:
        raise Unbounded("ConvTranspose without explicit padding")
    strides, dilations = attributes.get("strides", [1, 1]), attributes.get("dilations", [1, 1])
    pads, output_pads = attributes.get("pads", [0] * 4), attributes.get("output_padding", [0, 0])
    ranges: list[SourceRange] = []
    scale, extra = [], []
    for dimension, axis in enumerate(view.axes):
        i = axis - 2
        stride, span, begin = strides[i], (kernel[i] - 1) * dilations[i], pads[i]

        def source_range(
            low: int, high: int, stride: int = stride, span: int = span, begin: int = begin
        ) -> tuple[int, int]:
            first = -(-(low + begin - span) // stride)
            return first, max(first, (high + begin) // stride)

        ranges.append(source_range)
        scale.append(view.scale[dimension] * stride)
        extra.append((view.extra[dimension] - 1) * stride + span + 1 - begin - pads[i + 2] + output_pads[i])
    edge = Edge(node.input[0], (ranges[0], ranges[1]))
    yield node.output[0], replace(view, scale=(scale[0], scale[1]), extra=(extra[0], extra[1])), [edge]


def _blocks(graph: Graph, node: onnx.NodeProto) -> Rule:
    """Pixel shuffle and its inverse."""
    view = _spatial(graph, node)
    size = int(_attributes(node)["blocksize"])
    factor, source_range = Fraction(1, size), _affine(size, 0, size - 1)
    if node.op_type == "DepthToSpace":

        def source_range(low: int, high: int) -> tuple[int, int]:
            return low // size, high // size

        factor = Fraction(size)
    if any(view.extra):
        raise Unbounded(f"{node.op_type} after operators that change the size")
    view = replace(view, scale=(view.scale[0] * factor, view.scale[1] * factor))
    yield node.output[0], view, [Edge(node.input[0], (source_range, source_range))]


def _pad(graph: Graph, node: onnx.NodeProto) -> Rule:
    view = graph.views[node.input[0]]
    pads = _attributes(node).get("pads") or graph.constant(node, 1)
    axes = graph.constant(node, 3)
    if pads is None or axes is not None:
        raise Unbounded("Pad with computed or partial padding")
    if _attributes(node).get("mode") == b"wrap":
        raise Unbounded("Pad with pixels from the opposite side of the image")
    begin = [pads[axis] for axis in view.axes]
    extra = [view.extra[dimension] + pads[axis] + pads[axis + view.rank] for dimension, axis in enumerate(view.axes)]
    edge = Edge(node.input[0], (_affine(1, -begin[0]), _affine(1, -begin[1])))
    yield node.output[0], replace(view, extra=(extra[0], extra[1])), [edge]


def _slice(graph: Graph, node: onnx.NodeProto) -> Rule:
    view = graph.views[node.input[0]]
    attributes = _attributes(node)
    starts = attributes.get("starts") or graph.constant(node, 1) or []
    ends = attributes.get("ends") or graph.constant(node, 2) or []
    axes = attributes.get("axes") or graph.constant(node, 3) or list(range(len(starts)))
    steps = graph.constant(node, 4) or [1] * len(starts)
    ranges: list[SourceRange] = [_same, _same]
    scale, extra = list(view.scale), list(view.extra)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if axis % view.rank not in view.axes:
            continue
        dimension = view.axes.index(axis % view.rank)
        if start < 0 or step < 1 or 0 <= end < _TO_THE_END:
            raise Unbounded("Slice to a fixed size")
        ranges[dimension] = _affine(step, start)
        remaining = extra[dimension] - start + (end if end < 0 else 0)
        scale[dimension], extra[dimension] = scale[dimension] / step, -(-remaining // step)
    view = replace(view, scale=(scale[0], scale[1]), extra=(extra[0], extra[1]))
    yield node.output[0], view, [Edge(node.input[0], (ranges[0], ranges[1]))]


#: Where the centre of a pixel is, by the coordinates of a resize.
_SHIFTS = {"asymmetric": Fraction(0), "half_pixel": Fraction(1, 2), "pytorch_half_pixel": Fraction(1, 2)}


def _resize(graph: Graph, node: onnx.NodeProto) -> Rule:
    view = graph.views[node.input[0]]
    attributes = _attributes(node)
    # For Upsample, and for Resize before opset 11, the scales are the second input and the coordinates are fixed.
    old = node.op_type == "Upsample" or graph.opset < 11
    mode = attributes.get("mode", b"nearest").decode()
    coordinates = "asymmetric" if old else attributes.get("coordinate_transformation_mode", b"half_pixel").decode()
    rounding = "floor" if old else attributes.get("nearest_mode", b"round_prefer_floor").decode()
    shift = _SHIFTS.get(coordinates)
    if mode not in _TAPS or shift is None or attributes.get("antialias") or attributes.get("axes"):
        raise Unbounded(f"{node.op_type} with mode {mode} and coordinates {coordinates}: not known, or not local")
    if any(view.extra):
        raise Unbounded(f"{node.op_type} after operators that change the size")
    scales = attributes.get("scales") or graph.constant(node, 1 if old else 2)
    factors = []
    for axis in view.axes:
        if scales:
            factors.append(Fraction(scales[axis]).limit_denominator(1000))
        else:
            sizes = graph.side(node.output[0], axis), graph.side(node.input[0], axis)
            if sizes[0] is None or sizes[1] is None:
                raise Unbounded(f"{node.op_type} to a computed size")
            factors.append(Fraction(sizes[0], sizes[1]))

    def resized(factor: Fraction) -> SourceRange:
        def source_range(low: int, high: int) -> tuple[int, int]:
            first, last = ((Fraction(pixel) + shift) / factor - shift for pixel in (low, high))
            return _TAPS[mode](first, rounding)[0], _TAPS[mode](last, rounding)[1]

        return source_range

    ranges = (resized(factors[0]), resized(factors[1]))
    view = replace(view, scale=(view.scale[0] * factors[0], view.scale[1] * factors[1]))
    yield node.output[0], view, [Edge(node.input[0], ranges)]


def _nearest(position: Fraction, rounding: str) -> tuple[int, int]:
    half = Fraction(1, 2)
    index = {
        "floor": math.floor(position),
        "ceil": math.ceil(position),
        "round_prefer_floor": math.ceil(position - half),
        "round_prefer_ceil": math.floor(position + half),
    }[rounding]
    return index, index


#: The first and last pixel that are mixed into a value between pixels.
_TAPS: dict[str, Callable[[Fraction, str], tuple[int, int]]] = {
    "nearest": _nearest,
    "linear": lambda position, _: (math.floor(position), math.ceil(position)),
    "cubic": lambda position, _: (math.floor(position) - 1, math.floor(position) + 2),
}

_ELEMENTWISE = """
    Abs Add And BitShift Cast CastLike Ceil Celu Clip Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual
    HardSigmoid HardSwish Identity IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or PRelu Pow
    Reciprocal Relu Round Selu Sigmoid Sign Softplus Softsign Sqrt Sub Sum Swish Tanh ThresholdedRelu Where Xor
""".split()  # noqa: SIM905 - a list would take up a whole screen

_RULES: dict[str, Callable[[Graph, onnx.NodeProto], Rule]] = {
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    # The other inputs of these have one value per channel.
    **dict.fromkeys(("BatchNormalization", "DequantizeLinear", "LRN", "QuantizeLinear"), _pixelwise),
    **dict.fromkeys(("Concat", "Gather", "Hardmax", "LogSoftmax", "Softmax", "Split"), _along_axis),
    **dict.fromkeys(("ArgMax", "ArgMin", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"), _reduce),
    **dict.fromkeys(("AveragePool", "Conv", "ConvInteger", "LpPool", "MaxPool", "QLinearConv"), _window),
    **dict.fromkeys(("DepthToSpace", "SpaceToDepth"), _blocks),
    **dict.fromkeys(("Resize", "Upsample"), _resize),
    **dict.fromkeys(("Shape", "Size"), _sizes_only),
    "ConvTranspose": _transposed,
    "Pad": _pad,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
