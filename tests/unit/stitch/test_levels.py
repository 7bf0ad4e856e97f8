from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.operators.stitch.pyramid.levels import SPAN_TILES, levels_of


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), [(1, 1)]),
        ((256, 256), [(256, 256)]),
        ((257, 1), [(257, 1), (129, 1)]),
        ((1000, 300), [(1000, 300), (500, 150), (250, 75)]),
    ],
)
def test_each_level_is_half_the_last_rounded_up_until_one_tile_holds_it(
    size: tuple[int, int], expected: list[tuple[int, int]]
) -> None:
    assert [(level.width, level.height) for level in levels_of(*size)] == expected


@given(st.integers(1, 900), st.integers(1, 900))
def test_spans_partition_every_level(width: int, height: int) -> None:
    for level in levels_of(width, height, 16):
        seen = np.zeros((level.height, level.width), np.uint8)
        for place in level:
            region = level.region(*place)
            seen[region.y : region.bottom, region.x : region.right] += 1
        assert (seen == 1).all()
        assert len(list(level)) == level.rows * level.spans
        assert level.spans * SPAN_TILES >= level.columns


@given(st.integers(1, 9000), st.integers(1, 9000))
def test_every_span_has_one_parent_and_children_are_counted_right(width: int, height: int) -> None:
    levels = levels_of(width, height, 64)
    for finer, coarser in pairwise(levels):
        children: dict[tuple[int, int], int] = {}
        for row, span in finer:
            children[row // 2, span // 2] = children.get((row // 2, span // 2), 0) + 1
        assert children == {place: coarser.children(*place, finer) for place in coarser}
