"""A model's graph as the walk in `operators.filter.inference.embedded.receptive_field` sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

#: First and last pixel that a range of pixels is computed from.
Map = Callable[[int, int], tuple[int, int]]

#: A size at which shapes are inferred where the graph computes the sizes of a resize.
_TRIAL = 1024


class Unbounded(Exception):
    """The graph looks at the whole image, or does something that is not known; the message says what."""


@dataclass(frozen=True, slots=True)
class View:
    """How a tensor shows the image.

    Attributes
    ----------
    axes : tuple of int
        Where height and width are.
    rank : int
        Number of axes.
    scale, extra : tuple of fractions.Fraction, tuple of int
        Height and width for tiles of T pixels are ``scale * T + extra``.
    """

    axes: tuple[int, int]
    rank: int
    scale: tuple[Fraction, Fraction]
    extra: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Edge:
    """What a tensor looks at in `source`, on each axis."""

    source: str
    maps: tuple[Map, Map]


@dataclass(slots=True)
class Graph:
    """A model's graph, the constants in it, and the views found so far."""

    model: onnx.ModelProto
    views: dict[str, View] = field(default_factory=dict)
    constants: dict[str, onnx.TensorProto] = field(init=False)
    _shapes: dict[str, list[int]] | None = None

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self.constants[node.output[0]] = attribute.t
                    elif attribute.name.startswith("value_"):
                        array = np.asarray(helper.get_attribute_value(attribute))
                        self.constants[node.output[0]] = numpy_helper.from_array(array)

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """In order of computation."""
        return list(self.model.graph.node)

    @property
    def opset(self) -> int:
        """Version of the operators."""
        return next((entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")), 1)

    @property
    def image(self) -> onnx.ValueInfoProto:
        """The one input that is not a weight."""
        inputs: list[onnx.ValueInfoProto] = [
            entry for entry in self.model.graph.input if entry.name not in self.constants
        ]
        if len(inputs) != 1:
            raise Unbounded(f"{len(inputs)} inputs")
        return inputs[0]

    def constant(self, node: onnx.NodeProto, place: int) -> list[Any] | None:
        """Return the values of a constant input; None if it is absent. A computed one is `Unbounded`."""
        if len(node.input) <= place or not node.input[place]:
            return None
        tensor = self.constants.get(node.input[place])
        if tensor is None:
            raise Unbounded(f"{node.op_type} with a computed '{node.input[place]}'")
        values: list[Any] = numpy_helper.to_array(tensor).reshape(-1).tolist()
        return values

    def side(self, name: str, axis: int) -> int | None:
        """Return the size of a tensor's axis for a trial tile, where shape inference can tell."""
        if self._shapes is None:
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            view = self.views[self.image.name]
            dims = next(
                entry for entry in model.graph.input if entry.name == self.image.name
            ).type.tensor_type.shape.dim
            for place, dim in enumerate(dims):
                if not dim.dim_value:
                    dim.dim_value = _TRIAL if place in view.axes else 1
            inferred = shape_inference.infer_shapes(model, data_prop=True).graph
            self._shapes = {
                entry.name: [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
                for entry in (*inferred.value_info, *inferred.input, *inferred.output)
            }
        shape = self._shapes.get(name, [])
        return shape[axis] if axis < len(shape) and shape[axis] > 0 else None
