"""How far a model looks, read from its graph; hence what overlap makes tiling exact.

The graph is walked backwards from one output pixel: which pixels of each tensor does it depend on? Because of pooling
the answer differs between the pixels of one grid cell, so the walk is done for each pixel of a cell, on each axis, in
whole pixels. A pixel of a tile is exact if no tensor is looked at beyond its border, where the tile has padding and the
whole image has pixels. The bound is the smallest that holds for any weights (but for kernels with gaps, whose
gaps count as looked at).
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
    """What exact tiling needs.

    Attributes
    ----------
    radius : int
        Pixels that an output pixel looks at to each side, at most: the smallest h for which a pixel with at least h
        others between itself and the tile's border is exact, whatever its place in the grid cell.
    grid : int
        Tiles must start at multiples of this, and be multiples of it in size: the product of the model's strides.
    halo : int
        `radius` rounded up to `grid`.
    """

    radius: int
    grid: int

    @property
    def halo(self) -> int:
        """Pixels to drop at each side of a tile."""
        return -(-self.radius // self.grid) * self.grid


def receptive_field(model: onnx.ModelProto) -> ReceptiveField:
    """Find out how far a model looks.

    Parameters
    ----------
    model : onnx.ModelProto
        With one image input; weights may be missing.

    Raises
    ------
    Unbounded
        An output pixel depends on the whole image, or the graph has an operator whose reach is not known.
    """
    if model.functions:
        model = inliner.inline_local_functions(model)
    graph = Graph(model)
    image = graph.image
    graph.views[image.name] = _image_view(image)
    edges: list[tuple[str, Edge]] = []
    for node in graph.nodes:
        if not any(name in graph.views for name in node.input):
            continue  # weights, or sizes: nothing of the image passes here
        for target, view, sources in apply_rule(graph, node):
            graph.views[target] = view
            edges += [(target, edge) for edge in sources]
    outputs = [output.name for output in model.graph.output]
    for name in outputs:
        if name not in graph.views:
            raise Unbounded(f"output '{name}' does not depend on the image")
        view = graph.views[name]
        if view.scale != (Fraction(1), Fraction(1)) or view.extra != (0, 0):
            raise Unbounded(f"output '{name}' is not of the image's size")
    grid = math.lcm(*(side.denominator for view in graph.views.values() for side in view.scale))
    radius = max(_radius(graph, edges, outputs, axis, grid) for axis in (0, 1))
    return ReceptiveField(radius, grid)


def _image_view(image: onnx.ValueInfoProto) -> View:
    sides = [side.dim_value for side in image.type.tensor_type.shape.dim]
    if len(sides) not in (3, 4) or (sides[-1] != 3 and sides[-3] != 3):
        raise Unbounded(f"input '{image.name}' is not an image")
    first = len(sides) - 3
    axes = (first, first + 1) if sides[-1] == 3 else (first + 1, first + 2)
    return View(axes, len(sides), (Fraction(1), Fraction(1)), (0, 0))


def _radius(graph: Graph, edges: Iterable[tuple[str, Edge]], outputs: list[str], axis: int, grid: int) -> int:
    """Walk back from each pixel of a cell; see `ReceptiveField.radius`."""
    backwards = list(edges)[::-1]
    radius = 0
    for place in range(grid):
        looked = dict.fromkeys(outputs, (place, place))
        for target, edge in backwards:
            if target not in looked:
                continue  # leads to no output
            low, high = edge.maps[axis](*looked[target])
            so_far = looked.get(edge.source, (low, high))
            looked[edge.source] = (min(low, so_far[0]), max(high, so_far[1]))
        for name, (low, high) in looked.items():
            view = graph.views[name]
            scale, extra = view.scale[axis], view.extra[axis]
            # A tensor has scale * T + extra pixels. Moving the output pixel by whole cells moves what it looks at by
            # scale times as much; so many cells it must be away from either border of the tile for all to be inside.
            before = max(0, math.ceil(-low / (scale * grid)))
            behind = max(0, math.ceil((high + 1 - extra) / (scale * grid)) - 1)
            # The pixel of the cell nearer to the border by one than the first exact one is the last that is not.
            radius = max(radius, (before - 1) * grid + place + 1 if before else 0)
            radius = max(radius, behind * grid - place if behind else 0)
    return radius
