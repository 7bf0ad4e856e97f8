from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.operators.stitch.pyramid.segments import encode, finish, halve, shared_tables, whole
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.settings import JpegSettings


def image(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def mean(pixels: Pixels) -> Pixels:
    """The definition: means of 2 × 2, halves up, the last row and column of odd sizes twice."""
    height, width = pixels.shape[:2]
    even = np.pad(pixels.astype(int), ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return ((even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2] + 2) // 4).astype(np.uint8)


@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 99))
def test_halves_by_the_exact_mean(height: int, width: int, seed: int) -> None:
    pixels = image(height, width, seed)
    out = np.zeros((-(-height // 2), -(-width // 2) + 4, 3), np.uint8)
    halve(pixels, out[:, 2:-2])
    np.testing.assert_array_equal(out[:, 2:-2], mean(pixels))
    assert (out[:, :2] == 0).all()
    assert (out[:, -2:] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 16), (16, 7), (16, 16)])
def test_tiles_at_the_edge_are_filled_with_their_last_pixels(size: tuple[int, int]) -> None:
    pixels = image(*size)
    expected = np.pad(pixels, ((0, 16 - size[0]), (0, 16 - size[1]), (0, 0)), mode="edge")
    np.testing.assert_array_equal(whole(pixels, 16), expected)


@pytest.mark.parametrize("width", [1, 16, 31, 128])
@pytest.mark.parametrize("height", [1, 9, 16])
def test_a_run_is_encoded_tile_by_tile_and_halved_as_a_whole(height: int, width: int) -> None:
    pixels = image(height, width)
    tiles = [pixels[:, left : left + 16] for left in range(0, width, 16)]
    encoded = finish(tiles, 16, lambda tile: tile.tobytes(), last=False)
    assert encoded.segments == [whole(tile, 16).tobytes() for tile in tiles]
    assert encoded.half is not None
    np.testing.assert_array_equal(encoded.half, mean(pixels))
    assert finish(tiles, 16, lambda tile: b"", last=True).half is None


@pytest.mark.parametrize(("subsampling", "factors"), [("444", 0x11), ("422", 0x21), ("420", 0x22)])
def test_segments_are_baseline_jpeg_in_ycbcr_with_the_subsampling_of_the_settings(
    subsampling: str, factors: int
) -> None:
    smooth = np.repeat(np.repeat(image(16, 16), 16, 0), 16, 1)
    jpeg = JpegSettings(quality=90, subsampling=subsampling)  # type: ignore[arg-type] # from the list above
    segment = encode(smooth[::-1, ::-1], jpeg)
    frame = segment.index(b"\xff\xc0")  # start of a baseline frame: length, precision, height, width, components
    assert segment[frame + 10 : frame + 19 : 3] == bytes([1, 2, 3])
    assert segment[frame + 11] == factors
    decoded = imagecodecs.jpeg8_decode(segment, tables=shared_tables(jpeg), colorspace="YCBCR", outcolorspace="RGB")
    assert decoded.shape == (256, 256, 3)
    assert np.abs(decoded.astype(int) - smooth[::-1, ::-1]).mean() < 12


def test_quality_changes_the_size() -> None:
    pixels = image(64, 64)
    sizes = [len(encode(pixels, JpegSettings(quality=quality))) for quality in (10, 50, 85, 100)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("quality", [1, 50, 85, 100])
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_segments_and_shared_tables_make_the_whole_jpeg(quality: int, subsampling: str) -> None:
    jpeg = JpegSettings(quality, subsampling)  # type: ignore[arg-type] # from the list above
    tables = shared_tables(jpeg)
    assert tables[:2] == b"\xff\xd8"
    assert tables[-2:] == b"\xff\xd9"
    for seed, size in enumerate((16, 64, 256)):
        pixels = image(size, size, seed)
        own = imagecodecs.jpeg8_encode(pixels, level=quality, subsampling=subsampling)
        segment = encode(pixels, jpeg)
        assert len(segment) + len(tables) == len(own) - 18 + 4  # less the JFIF marker, plus a second start and end
        stored = imagecodecs.jpeg8_decode(segment, tables=tables, colorspace="YCBCR", outcolorspace="RGB")
        np.testing.assert_array_equal(stored, imagecodecs.jpeg8_decode(own))
