"""Counting tile by tile gives the number of the whole map, whatever the tiles."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from nuclei_segmentation.operators.stitch.count import NucleusCount, find_pieces
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.geometry import TileGrid
from nuclei_segmentation.shared.instances import instances
from nuclei_segmentation.shared.nuclei import SMALLEST_SEED, label_seeds, seed_pixels

CHANNELS = ("nucleus", "distance")


def whole_map(height: int, width: int, seed: int) -> Pixels:
    """Return maps full of pieces: specks, discs, rings, worms over many tiles; some touch only at corners."""
    random = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(random.standard_normal((height, width), np.float32), (0, 0), 2.0)
    pieces = noise > 0.3 * noise.std()
    pieces |= random.random((height, width)) > 0.995
    maps = np.zeros((height, width, 2), np.uint8)
    maps[pieces] = 255
    return maps


def count_in_whole(maps: Pixels) -> int:
    sizes = np.bincount(label_seeds(seed_pixels(maps, CHANNELS)).ravel())[1:]
    return int((sizes >= SMALLEST_SEED).sum())


def count_in_tiles(maps: Pixels, tile: int, overlap: int = 0) -> int:
    height, width = maps.shape[:2]
    grid = TileGrid(width, height, tile, overlap)
    count = NucleusCount(grid)
    padded = np.pad(maps, ((0, 2 * tile), (0, 2 * tile), (0, 0)), constant_values=255)
    for row, column in grid:
        core = grid.core(row, column)
        count.add(row, column, find_pieces(padded[core.y : core.bottom, core.x : core.right], CHANNELS))
    return count.total


@pytest.mark.parametrize(("tile", "overlap"), [(16, 0), (32, 0), (48, 16), (64, 32), (512, 0)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_tiles_count_as_the_whole_map(tile: int, overlap: int, seed: int) -> None:
    maps = whole_map(230, 310, seed)
    expected = count_in_whole(maps)
    assert expected > 100
    assert count_in_tiles(maps, tile, overlap) == expected
    assert instances(maps, CHANNELS).max() == expected


def test_a_nucleus_on_a_corner_of_four_tiles_is_one() -> None:
    maps = np.zeros((64, 64, 2), np.uint8)
    maps[28:37, 28:37] = 255
    assert count_in_tiles(maps, 32) == 1


def test_a_piece_that_touches_another_only_at_a_corner_of_tiles() -> None:
    maps = np.zeros((64, 64, 2), np.uint8)
    maps[24:32, 24:32] = maps[32:40, 32:40] = 255
    maps[8:16, 32:40] = 255  # next to the border, and alone
    assert count_in_tiles(maps, 32) == count_in_whole(maps) == 2


def test_a_speck_at_a_border_counts_with_its_other_half() -> None:
    maps = np.zeros((32, 64, 2), np.uint8)
    maps[4, 30:34] = 255  # two pixels on either side
    maps[20, 31:33] = 255  # two in all
    assert count_in_tiles(maps, 32) == count_in_whole(maps) == 1


def test_tiles_that_never_arrive_divide() -> None:
    """Background and tiles that could not be read are not nuclei."""
    pieces = find_pieces(np.full((32, 32, 2), 255, np.uint8), CHANNELS)
    count = NucleusCount(TileGrid(128, 160, 32))
    assert count.total == 0
    count.add(0, 0, pieces)
    assert count.total == 1
    count.add(0, 2, pieces)  # a tile between them is missing
    assert count.total == 2
    count.add(0, 3, pieces)
    assert count.total == 2
    count.add(2, 2, pieces)  # a row between them is missing
    assert count.total == 3
    count.add(3, 1, pieces)  # touches at a corner
    assert count.total == 3
    count.add(4, 2, pieces)
    assert count.total == 3


def test_maps_without_seeds_have_no_pieces() -> None:
    maps = np.full((32, 32, 2), 255, np.uint8)
    maps[..., 1] = 0
    assert find_pieces(maps, CHANNELS) is None
    assert find_pieces(maps, ("nucleus",)) is not None
