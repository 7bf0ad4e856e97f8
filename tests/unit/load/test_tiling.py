from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nuclei_segmentation.operators.load.tiling import foreground_tiles
from nuclei_segmentation.shared.geometry import TileGrid


@st.composite
def grids(draw):
    tile = 16 * draw(st.integers(1, 8))
    overlap = 16 * draw(st.integers(0, tile // 16 - 1))
    return TileGrid(draw(st.integers(1, 700)), draw(st.integers(1, 700)), tile, overlap)


masks = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans())
sparse = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), fill=st.just(False))


def by_definition(grid, mask):
    height, width = mask.shape
    for row, column in grid:
        core = grid.core(row, column)
        rows, columns = np.nonzero(mask)
        # Mask column x covers the level-0 columns from x·W/w to (x + 1)·W/w, compared as integers.
        across = (columns * grid.width < core.right * width) & ((columns + 1) * grid.width > core.x * width)
        down = (rows * grid.height < core.bottom * height) & ((rows + 1) * grid.height > core.y * height)
        if (across & down).any():
            yield row, column


@given(grids(), st.one_of(masks, sparse))
def test_a_tile_is_foreground_exactly_if_its_core_shares_area_with_a_masked_pixel(grid, mask):
    found = foreground_tiles(grid, mask)
    assert found.dtype == np.int32
    assert found.shape[1:] == (2,)
    assert [tuple(tile) for tile in found.tolist()] == list(by_definition(grid, mask))


@given(grids(), st.data())
def test_every_masked_level_0_pixel_is_in_a_foreground_tile(grid, data):
    mask = np.zeros((grid.height, grid.width), np.bool_)
    y, x = data.draw(st.integers(0, grid.height - 1)), data.draw(st.integers(0, grid.width - 1))
    mask[y, x] = True
    assert foreground_tiles(grid, mask).tolist() == [[grid.row_of(y), grid.column_of(x)]]


@given(grids(), st.one_of(masks, sparse), st.integers(1, 4))
def test_the_same_mask_at_a_finer_scale_gives_the_same_tiles(grid, mask, factor):
    finer = mask.repeat(factor, axis=0).repeat(factor, axis=1)
    np.testing.assert_array_equal(foreground_tiles(grid, mask), foreground_tiles(grid, finer))


@given(grids(), masks, st.data())
def test_more_tissue_never_gives_fewer_tiles(grid, mask, data):
    more = mask | data.draw(hnp.arrays(np.bool_, mask.shape, elements=st.booleans()))
    assert set(map(tuple, foreground_tiles(grid, mask).tolist())) <= set(
        map(tuple, foreground_tiles(grid, more).tolist())
    )


@given(grids())
def test_no_mask_gives_all_tiles_as_a_full_mask_does(grid):
    every = foreground_tiles(grid, None)
    assert every.dtype == np.int32
    assert [tuple(tile) for tile in every.tolist()] == list(grid)
    np.testing.assert_array_equal(every, foreground_tiles(grid, np.ones((3, 5), np.bool_)))


@given(grids())
def test_an_empty_mask_gives_no_tile(grid):
    assert foreground_tiles(grid, np.zeros((4, 7), np.bool_)).shape == (0, 2)


def test_a_tile_away_from_all_tissue_is_not_foreground():
    mask = np.zeros((100, 100), np.bool_)
    mask[10:20, 10:20] = True  # level-0 pixels 1000 to 1999 of 10,000
    found = foreground_tiles(TileGrid(10_000, 10_000, 256), mask)
    assert found.min() == 1000 // 256
    assert found.max() == 1999 // 256


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (5,), (5, 5, 3)])
def test_a_mask_of_a_wrong_shape_is_refused(shape):
    with pytest.raises(ValueError, match="two axes"):
        foreground_tiles(TileGrid(100, 100, 16), np.zeros(shape, np.bool_))


@pytest.mark.parametrize(("side", "tile"), [(102_400, 256), (100_000, 16)])
def test_time_and_result_of_a_giant_slide(side, tile):
    mask = np.zeros((1000, 1000), np.bool_)
    mask[200:700, 300:800] = True
    grid = TileGrid(side, side, tile)
    start = time.process_time()
    found = foreground_tiles(grid, mask)
    assert time.process_time() - start < 3  # 0.03 s and 0.4 s on an idle core
    assert len(found) == pytest.approx(len(grid) / 4, rel=0.02)
