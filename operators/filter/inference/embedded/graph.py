"""A model's graph, prepared for `operators.filter.inference.embedded.receptive_field`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper, shape_inference

#: From the first and last pixel of a range, to the first and last pixel of the source that the range is computed from.
SourceRange = Callable[[int, int], tuple[int, int]]

#: Side of the tile for which shapes are inferred if the graph computes the sizes of a resize.
_TRIAL_SIDE = 1024


class Unbounded(Exception):
    """The receptive field is the whole image, or is not known; the message says why."""


@dataclass(frozen=True, slots=True)
class View:
    """How a tensor represents the image.

    Attributes
    ----------
    axes : tuple of int
        The axes of height and width.
    rank : int
        Number of axes.
    scale : tuple of fractions.Fraction
        See `extra`.
    extra : tuple of int
        For tiles of T pixels the tensor has ``scale * T + extra`` pixels, in height and in width.
    """

    axes: tuple[int, int]
    rank: int
    scale: tuple[Fraction, Fraction]
    extra: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Edge:
    """From which pixels of `source` a tensor is computed, in height and in width."""

    source: str
    ranges: tuple[SourceRange, SourceRange]


@dataclass(slots=True)
class Graph:
    """A model's graph, its constants, and the views found so far.

    Attributes
    ----------
    model : onnx.ModelProto
        The model.
    views : dict of str to View
        Of the tensors that depend on the image.
    constants : dict of str to onnx.TensorProto
        Weights and other constant tensors.
    """

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
        """The nodes in the order of computation."""
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

    def constant(self, node: onnx.NodeProto, number: int) -> list[Any] | None:
        """Return the values of a node's constant input.

        Parameters
        ----------
        node : onnx.NodeProto
            The node.
        number : int
            Which input, from 0.

        Returns
        -------
        list or None
            All values, flattened; None if the node does not have that input.

        Raises
        ------
        Unbounded
            The input is computed, or in another file.
        """
        if len(node.input) <= number or not node.input[number]:
            return None
        tensor = self.constants.get(node.input[number])
        if tensor is None:
            raise Unbounded(f"{node.op_type} with a computed '{node.input[number]}'")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:  # `numpy_helper` would look for it in the current folder
            raise Unbounded(f"{node.op_type} with '{node.input[number]}' in another file")
        values: list[Any] = numpy_helper.to_array(tensor).reshape(-1).tolist()
        return values

    def side(self, name: str, axis: int) -> int | None:
        """Return the size of a tensor along an axis, for a tile of fixed size.

        Parameters
        ----------
        name : str
            The tensor.
        axis : int
            The axis.

        Returns
        -------
        int or None
            None if shape inference does not find it.
        """
        if self._shapes is None:
            model = onnx.ModelProto()
            model.CopyFrom(self.model)
            view = self.views[self.image.name]
            dims = next(
                entry for entry in model.graph.input if entry.name == self.image.name
            ).type.tensor_type.shape.dim
            for number, dim in enumerate(dims):
                if not dim.dim_value:
                    dim.dim_value = _TRIAL_SIDE if number in view.axes else 1
            inferred = shape_inference.infer_shapes(model, data_prop=True).graph
            self._shapes = {
                entry.name: [dim.dim_value for dim in entry.type.tensor_type.shape.dim]
                for entry in (*inferred.value_info, *inferred.input, *inferred.output)
            }
        shape = self._shapes.get(name, [])
        return shape[axis] if axis < len(shape) and shape[axis] > 0 else None
