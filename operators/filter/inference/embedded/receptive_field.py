"""A model's receptive field, read from its graph. It determines which overlap makes tiling exact.

The graph is followed backwards from one output pixel: on which pixels of each tensor does it depend? Because of
pooling, the result differs between the pixels of one grid cell. It is therefore computed for each pixel of a cell, on
each axis, in whole pixels. A pixel of a tile is exact if no tensor is needed beyond its border, where the tile has
padding but the whole image has pixels. The bound is the smallest that holds for any weights. (In kernels with gaps, the
gaps count as needed.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import onnx
from onnx import inliner

from nuclei_segmentation.operators.filter.inference.embedded.graph import Edge, Graph, Unbounded, View
from nuclei_segmentation.operators.filter.inference.embedded.receptive_field_rules import apply_rule


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """How far a model's receptive field extends, and the halo that follows from it.

    Attributes
    ----------
    radius : int
        Most pixels to each side on which an output pixel depends. A pixel is exact if it has at least that many others
        between itself and the tile's border, whatever its place in the grid cell. No smaller number will do.
    grid : int
        The product of the model's strides. Tiles must start at multiples of it, and their size must be one.
    halo : int
        `radius` rounded up to a multiple of `grid`.
    """

    radius: int
    grid: int

    @property
    def halo(self) -> int:
        """Pixels to cut off at each side of a tile."""
        return -(-self.radius // self.grid) * self.grid


def receptive_field(model: onnx.ModelProto) -> ReceptiveField:
    """Find a model's receptive field.

    Parameters
    ----------
    model : onnx.ModelProto
        A model with one image input; weights may be missing.

    Returns
    -------
    ReceptiveField
        Its size and grid.

    Raises
    ------
    Unbounded
        An output pixel depends on the whole image, or the graph has an operator that is not known.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    graph = Graph(model)
    image = graph.image
    graph.views[image.name] = _image_view(image)
    edges: list[tuple[str, Edge]] = []
    for node in graph.nodes:
        if not any(name in graph.views for name in node.input):
            continue  # weights or sizes, which do not depend on the image
        for target, view, sources in apply_rule(graph, node):
            graph.views[target] = view
            edges += [(target, edge) for edge in sources]
    outputs = [output.name for output in model.graph.output]
    for name in outputs:
        if name not in graph.views:
            raise Unbounded(f"output '{name}' does not depend on the image")
        view = graph.views[name]
        if view.scale != (Fraction(1), Fraction(1)) or view.extra != (0, 0):
            raise Unbounded(f"output '{name}' is not as large as the image")
    grid = math.lcm(*(side.denominator for view in graph.views.values() for side in view.scale))
    radius = max(_radius(graph, edges, outputs, dimension, grid) for dimension in (0, 1))
    return ReceptiveField(radius, grid)


def _image_view(image: onnx.ValueInfoProto) -> View:
    sides = [side.dim_value for side in image.type.tensor_type.shape.dim]
    if len(sides) not in (3, 4) or (sides[-1] != 3 and sides[-3] != 3):
        raise Unbounded(f"input '{image.name}' is not an image")
    first = len(sides) - 3
    axes = (first, first + 1) if sides[-1] == 3 else (first + 1, first + 2)
    return View(axes, len(sides), (Fraction(1), Fraction(1)), (0, 0))


def _radius(graph: Graph, edges: Iterable[tuple[str, Edge]], outputs: list[str], dimension: int, grid: int) -> int:
    """Follow the graph backwards from each pixel of a cell, in height (0) or width (1); see `ReceptiveField.radius`."""
    backwards = list(edges)[::-1]
    radius = 0
    for pixel in range(grid):
        needed = dict.fromkeys(outputs, (pixel, pixel))
        for target, edge in backwards:
            if target not in needed:
                continue  # no output depends on it
            low, high = edge.ranges[dimension](*needed[target])
            so_far = needed.get(edge.source, (low, high))
            needed[edge.source] = (min(low, so_far[0]), max(high, so_far[1]))
        for name, (low, high) in needed.items():
            view = graph.views[name]
            scale, extra = view.scale[dimension], view.extra[dimension]
            # A tensor has scale * T + extra pixels. Moving the output pixel by a cell moves the pixels it depends on by
            # scale times as many. It must be this many cells away from either border for all of them to be inside.
            before = max(0, math.ceil(-low / (scale * grid)))
            after = max(0, math.ceil((high + 1 - extra) / (scale * grid)) - 1)
            # The last pixel that is not exact is in the cell one nearer to the border.
            radius = max(radius, (before - 1) * grid + pixel + 1 if before else 0)
            radius = max(radius, after * grid - pixel if after else 0)
    return radius
