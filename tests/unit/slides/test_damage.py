"""Slides that are truncated or have flipped bits give an exact error or hatched tiles, never wrong pixels silently."""

from __future__ import annotations

import contextlib
import random

import numpy as np
import pytest
import pyvips
import tifffile
from hypothesis import given
from hypothesis import strategies as st

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.slides import open_slide
from nuclei_segmentation.shared.slides.hatching import hatch
from nuclei_segmentation.shared.slides.jpeg import BadJpeg, JpegDecoder
from nuclei_segmentation.shared.slides.tiff_index import read_index
from tests.helpers.slides import damaged_tiles, read_all, tissue_like


def test_hatching_depends_on_the_position_alone():
    whole = np.zeros((60, 70, 3), np.uint8)
    hatch(whole, Region(5, 9, 70, 60))
    part = np.zeros((20, 30, 3), np.uint8)
    hatch(part, Region(25, 19, 30, 20))
    assert np.array_equal(part, whole[10:30, 20:50])
    assert {tuple(color) for color in whole.reshape(-1, 3)} == {(255, 0, 255), (255, 255, 0)}


@pytest.mark.parametrize("reader", ["jpeg", "openslide"])
def test_a_broken_tile_is_hatched_and_its_neighbours_are_intact(make_tiff, opened, reader):
    image = tissue_like(800, 600)
    path = make_tiff(image, compression="jpeg")
    expected = read_all(opened(path))
    with tifffile.TiffFile(path) as tiff:
        offset, count = tiff.pages[0].dataoffsets[5], tiff.pages[0].databytecounts[5]
    with path.open("r+b") as file:
        file.seek(offset + count // 2)
        file.write(bytes(count // 2))
    slide = opened(path, reader)
    grid = TileGrid(800, 600, 256)
    for position in grid:
        region = grid.region(*position).intersect(grid.bounds)
        region_pixels = slide.read(region)
        pixels = expected[region.y : region.bottom, region.x : region.right].copy()
        assert region_pixels.damaged == (position == (1, 1))
        if region_pixels.damaged:
            hatch(pixels, region)
        assert np.array_equal(region_pixels.pixels, pixels)
    slide.thumbnail(10_000)


def test_region_over_a_broken_tile_is_hatched_only_there(make_tiff, opened):
    path = make_tiff(tissue_like(600, 300), compression="jpeg")
    expected = read_all(opened(path))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages[0].tags["TileOffsets"]
        tag.overwrite([offset + (1 << 30) * (number == 1) for number, offset in enumerate(tag.value)])
    slide = opened(path)
    region_pixels = slide.read(Region(100, 50, 400, 200))
    pixels = expected[50:250, 100:500].copy()
    hatch(pixels[:, 156:], Region(256, 50, 244, 200))
    assert region_pixels.damaged
    assert np.array_equal(region_pixels.pixels, pixels)
    unknown = np.zeros((300, 600), np.bool_)
    unknown[:256, 256:512] = True  # the other tiles are known
    assert np.array_equal(slide.thumbnail(600 * 300).unknown, unknown)


def test_slide_truncated_anywhere(sample_slide, tmp_path, opened):
    """The sample slide's directories lie behind their images: level 0 first, the label and the macro image last."""
    data, whole = sample_slide.read_bytes(), read_all(opened(sample_slide))
    with tifffile.TiffFile(sample_slide) as tiff:
        first = tiff.pages[0].offset
    path = tmp_path / "cut.svs"
    for percent in range(0, 100, 4):
        cut = len(data) * percent // 100
        path.write_bytes(data[:cut])
        if cut > first + 4000:
            assert np.array_equal(read_all(opened(path)), whole)
            continue
        with pytest.raises(UnreadableSlide, match=r"^cut\.svs cannot be read: |^cut\.svs is empty"):
            open_slide(path)


@pytest.mark.parametrize("levels", [1, 3])
def test_slide_truncated_after_its_directories(make_tiff, opened, levels):
    """tifffile writes each directory before its tiles, so the end of the file contains pixels only."""
    path = make_tiff(tissue_like(900, 700), levels=levels, compression="jpeg")
    whole = read_all(opened(path))
    data = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages[0]
        ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
    for cut in (len(data) - 1, len(data) - 1000, ends[8], ends[8] - 1, ends[4] + 5, ends[0]):
        path.write_bytes(data[:cut])
        slide = opened(path)
        lost = {divmod(i, 4) for i, end in enumerate(ends) if end > cut}
        assert damaged_tiles(slide, 256) == lost
        if not lost:
            assert np.array_equal(read_all(slide), whole)
        slide.thumbnail(20_000)


def test_flipped_bits_are_noticed_at_least_where_openslide_notices_them(sample_slide, tmp_path, opened):
    """JPEG has no checksum: a flip that leaves the code words in step shows only in the pixels, for any decoder."""
    data = sample_slide.read_bytes()
    with tifffile.TiffFile(sample_slide) as tiff:
        offsets, counts = tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts
    chance, path = random.Random(3), tmp_path / "flipped.svs"
    numbers = chance.sample(range(len(offsets)), 60)
    broken = bytearray(data)
    for number in numbers:
        broken[offsets[number] + chance.randrange(100, counts[number])] ^= 1 << chance.randrange(8)
    path.write_bytes(broken)
    fast, slow = (damaged_tiles(opened(path, reader), 240) for reader in ("jpeg", "openslide"))
    assert slow <= fast <= {divmod(number, 10) for number in numbers}
    assert len(fast) > 30
    good, bad = opened(sample_slide), opened(path)
    for row, column in TileGrid(2220, 2967, 240):
        if (row, column) not in {divmod(number, 10) for number in numbers}:
            region = Region(column * 240, row * 240, 240, 240).intersect(Region(0, 0, 2220, 2967))
            assert np.array_equal(good.read(region).pixels, bad.read(region).pixels)


def test_the_openslide_reader_still_works_after_an_error(make_tiff, opened):
    """A handle is useless after its first error; a new one reads what is intact."""
    path = make_tiff(tissue_like(1200, 300), compression="jpeg")
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[2]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"not JPEG")
    slide = opened(path, "openslide")
    found = [slide.read(Region(x, 0, 256, 256)).damaged for x in (0, 512, 256, 520, 768, 0)]
    assert found == [False, True, False, True, False, False]


def test_a_file_that_is_truncated_while_open_is_damage(make_tiff, opened):
    path = make_tiff(tissue_like(600, 300), compression="jpeg")
    slide = opened(path)
    with path.open("r+b") as file:
        file.truncate(100)
    assert slide.read(Region(0, 0, 256, 256)).damaged
    assert slide.read(Region(0, 0, 300, 256)).damaged


@given(
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=6),
    st.integers(0, 1 << 20),
    st.sampled_from([1, 2, 4, 8]),
)
def test_any_change_to_a_stored_tile_gives_pixels_or_the_one_error(stored_tile, changes, length, factor):
    tables, segment = stored_tile
    data = bytearray(segment)
    for at, value in changes:
        data[at % min(len(data), 700)] = value  # mostly in the headers
    data = data[: length % (2 * len(data))]
    decoder = JpegDecoder(tables, 6, 64, 64)
    with contextlib.suppress(BadJpeg):
        assert decoder.decode(bytes(data)).shape == (64, 64, 3)
    with contextlib.suppress(BadJpeg):
        assert decoder.decode_scaled(bytes(data), factor).shape == (64 // factor, 64 // factor, 3)


@pytest.fixture(scope="module", params=["own", "shared"])
def stored_tile(request, tmp_path_factory):
    """The bytes of a tile, and its shared JPEG tables or None."""
    path = tmp_path_factory.mktemp("tile") / "one.tif"
    options = {"tile_width": 64, "tile_height": 64, "tile": True, "compression": "jpeg"}
    pyvips.Image.new_from_array(tissue_like(64, 64)).tiffsave(str(path), **options)
    with path.open("rb") as file:
        level = read_index(file.fileno()).base
        file.seek(int(level.offsets[0]))
        segment = file.read(int(level.counts[0]))
    if request.param == "shared":
        return level.tables, segment
    return None, level.tables[:-2] + segment[2:]
