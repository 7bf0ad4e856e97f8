"""How much memory a graph needs while it is computed, estimated from its shapes."""

from __future__ import annotations

import math

import onnx
from onnx import helper, shape_inference

#: What the runtime takes on top of the tensors: padding of channels, rounding of its blocks. Measured at 1.2 to 1.4.
_MARGIN = 1.5

#: Bytes per pixel of a graph whose shapes cannot be inferred; a U-Net of base 16 takes 340.
_UNKNOWN = 1024


def bytes_per_call(model: onnx.ModelProto, tile: int, batch: int) -> int:
    """Estimate the most bytes of tensors that are alive at once, input and outputs included.

    Parameters
    ----------
    model : onnx.ModelProto
        With one image input; weights do not count.
    tile : int
        T, pixels.
    batch : int
        Tiles per call.
    """
    sized = onnx.ModelProto()
    sized.CopyFrom(model)
    weights = {tensor.name for tensor in sized.graph.initializer}
    for entry in sized.graph.input:
        if entry.name not in weights:
            dims = entry.type.tensor_type.shape.dim
            for place, dim in enumerate(dims):
                if not dim.dim_value:
                    dim.dim_value = batch if len(dims) == 4 and place == 0 else tile
    # Free names of output axes would contradict the sizes now known.
    for entry in sized.graph.output:
        for dim in entry.type.tensor_type.shape.dim:
            dim.Clear()
    inferred = shape_inference.infer_shapes(sized, data_prop=True).graph
    sizes = {
        entry.name: _bytes(entry.type.tensor_type)
        for entry in (*inferred.input, *inferred.value_info, *inferred.output)
        if entry.name not in weights
    }
    last = {name: place for place, node in enumerate(model.graph.node) for name in node.input}
    last.update({output.name: len(model.graph.node) for output in model.graph.output})
    alive = most = sum(sizes.get(entry.name, 0) for entry in model.graph.input)
    for place, node in enumerate(model.graph.node):
        if node.op_type != "Constant" and any(sizes.get(name, 0) == 0 for name in node.output if name):
            return int(_UNKNOWN * batch * tile * tile)
        alive += sum(sizes.get(name, 0) for name in node.output)
        most = max(most, alive)
        alive -= sum(sizes.get(name, 0) for name in {*node.input, *node.output} if last.get(name, place) == place)
    return int(most * _MARGIN)


def _bytes(kind: onnx.TypeProto.Tensor) -> int:
    sides = [dim.dim_value for dim in kind.shape.dim]
    return math.prod(sides) * int(helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize) if kind.elem_type else 0
