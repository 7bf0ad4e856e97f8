"""The grid: cores partition the slide, and tiles contain their cores."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.shared.geometry import Region, TileGrid


@st.composite
def grids(draw: st.DrawFn) -> TileGrid:
    tile = 16 * draw(st.integers(1, 8))
    overlap = 16 * draw(st.integers(0, tile // 16 - 1))
    return TileGrid(draw(st.integers(1, 300)), draw(st.integers(1, 300)), tile, overlap)


@given(grids())
def test_cores_partition_the_slide(grid: TileGrid) -> None:
    covered = np.zeros((grid.height, grid.width), int)
    for row, column in grid:
        core = grid.core(row, column)
        assert core.area > 0
        covered[core.y : core.bottom, core.x : core.right] += 1
    assert (covered == 1).all()
    assert len(grid) == len(list(grid))


@given(grids())
def test_a_core_ends_half_the_overlap_inside_its_tile_except_at_the_border_of_the_slide(grid: TileGrid) -> None:
    halo = grid.overlap // 2
    for row, column in grid:
        core, region = grid.core(row, column), grid.region(row, column)
        assert region.contains(core)
        assert column == 0 or core.x - region.x >= halo
        assert column == grid.columns - 1 or region.right - core.right >= halo
        assert row == 0 or core.y - region.y >= halo
        assert row == grid.rows - 1 or region.bottom - core.bottom >= halo


@given(grids(), st.data())
def test_the_tiles_under_a_region_are_those_whose_cores_share_pixels_with_it(
    grid: TileGrid, data: st.DataObject
) -> None:
    x, y = data.draw(st.integers(0, grid.width - 1)), data.draw(st.integers(0, grid.height - 1))
    region = Region(x, y, data.draw(st.integers(1, grid.width - x)), data.draw(st.integers(1, grid.height - y)))
    expected = [position for position in grid if grid.core(*position).intersect(region).area]
    assert list(grid.tiles_under(region)) == expected


def test_the_intersection_of_two_regions() -> None:
    assert Region(0, 0, 10, 10).intersect(Region(20, 3, 5, 5)).area == 0
    assert Region(0, 0, 10, 10).intersect(Region(5, 5, 10, 10)) == Region(5, 5, 5, 5)
