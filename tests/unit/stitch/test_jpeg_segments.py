from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from nuclei_segmentation.operators.stitch.pyramid.jpeg_segments import encode_jpeg, shared_tables
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.settings import JpegSettings


def image(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(("subsampling", "factors"), [("444", 0x11), ("422", 0x21), ("420", 0x22)])
def test_segments_are_baseline_jpeg_in_ycbcr_with_the_subsampling_of_the_settings(
    subsampling: str, factors: int
) -> None:
    smooth = np.repeat(np.repeat(image(16, 16), 16, 0), 16, 1)
    jpeg = JpegSettings(quality=90, subsampling=subsampling)  # type: ignore[arg-type] # from the list above
    segment = encode_jpeg(smooth[::-1, ::-1], jpeg)
    frame = segment.index(b"\xff\xc0")  # start of a baseline frame: length, precision, height, width, components
    assert segment[frame + 10 : frame + 19 : 3] == bytes([1, 2, 3])
    assert segment[frame + 11] == factors
    decoded = imagecodecs.jpeg8_decode(segment, tables=shared_tables(jpeg), colorspace="YCBCR", outcolorspace="RGB")
    assert decoded.shape == (256, 256, 3)
    assert np.abs(decoded.astype(int) - smooth[::-1, ::-1]).mean() < 12


def test_a_higher_quality_gives_larger_segments() -> None:
    pixels = image(64, 64)
    sizes = [len(encode_jpeg(pixels, JpegSettings(quality=quality))) for quality in (10, 50, 85, 100)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("quality", [1, 50, 85, 100])
@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
def test_a_segment_and_the_shared_tables_make_the_full_jpeg(quality: int, subsampling: str) -> None:
    jpeg = JpegSettings(quality, subsampling)  # type: ignore[arg-type] # from the list above
    tables = shared_tables(jpeg)
    assert tables[:2] == b"\xff\xd8"
    assert tables[-2:] == b"\xff\xd9"
    for seed, size in enumerate((16, 64, 256)):
        pixels = image(size, size, seed)
        own = imagecodecs.jpeg8_encode(pixels, level=quality, subsampling=subsampling)
        segment = encode_jpeg(pixels, jpeg)
        assert len(segment) + len(tables) == len(own) - 18 + 4  # less the JFIF marker, plus a second start and end
        stored = imagecodecs.jpeg8_decode(segment, tables=tables, colorspace="YCBCR", outcolorspace="RGB")
        np.testing.assert_array_equal(stored, imagecodecs.jpeg8_decode(own))
