from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.operators.stitch.pyramid.spans import encode_span, halve, pad_tile
from nuclei_segmentation.shared.batches import Pixels


def image(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def mean(pixels: Pixels) -> Pixels:
    """The definition: means of 2 × 2, halves rounded up, the last row and column of odd sizes twice."""
    height, width = pixels.shape[:2]
    even = np.pad(pixels.astype(int), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return ((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) // 4).astype(np.uint8)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
def test_halving_takes_the_exact_mean(height: int, width: int, seed: int) -> None:
    pixels = image(height, width, seed)
    out = np.zeros((-(-height // 2), -(-width // 2) + 4, 3), np.uint8)
    halve(pixels, out[:, 2:-2])
    np.testing.assert_array_equal(out[:, 2:-2], mean(pixels))
    assert (out[:, :2] == 0).all()
    assert (out[:, -2:] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 16), (16, 7), (16, 16)])
def test_tiles_at_the_edge_are_padded_with_their_last_row_and_column(size: tuple[int, int]) -> None:
    pixels = image(*size)
    expected = np.pad(pixels, ((0, 16 - size[0]), (0, 16 - size[1]), (0, 0)), mode="edge")
    np.testing.assert_array_equal(pad_tile(pixels, 16), expected)


@pytest.mark.parametrize("width", [1, 16, 31, 128])
@pytest.mark.parametrize("height", [1, 9, 16])
def test_a_span_is_encoded_tile_by_tile_and_halved_in_one_piece(height: int, width: int) -> None:
    pixels = image(height, width)
    tiles = [pixels[:, left : left + 16] for left in range(0, width, 16)]
    encoded = encode_span(tiles, 16, lambda tile: tile.tobytes(), coarsest=False)
    assert encoded.segments == [pad_tile(tile, 16).tobytes() for tile in tiles]
    assert encoded.half is not None
    np.testing.assert_array_equal(encoded.half, mean(pixels))
    assert encode_span(tiles, 16, lambda tile: b"", coarsest=True).half is None
