"""The fast reader gives the same bytes as OpenSlide."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.slides import find_slide, open_slide
from nuclei_segmentation.shared.slides.jpeg_tiles import JpegTiles
from tests.helpers.slides import damaged_tiles, read_all, tissue_like


def test_sample_slide_has_openslides_pixels(sample_slide, same_pixels):
    slide = same_pixels(sample_slide, (Region(100, 200, 1000, 700), Region(2219, 2966, 1, 1), Region(0, 0, 2220, 3)))
    assert slide.info.format == "aperio"
    assert slide.info.mpp == (0.499, 0.499)
    assert slide.info.objective == 20


def test_real_pyramid_has_openslides_pixels(more_slides, same_pixels):
    slide = same_pixels(more_slides / "HE_TMA_core.tif")
    assert slide.info.levels == ((1380, 1484), (690, 742), (345, 371))


def test_an_ome_tiff_that_openslide_cannot_open_has_the_pixels_of_the_same_image_as_plain_tiff(more_slides, opened):
    ome = opened(more_slides / "HE_TMA_core.ome.tif")
    assert ome.info.format == "ome-tiff"
    assert ome.info.mpp == pytest.approx((0.50008, 0.50008), rel=1e-5)
    assert np.array_equal(read_all(ome), read_all(opened(more_slides / "HE_TMA_core.tif", "openslide")))


@pytest.mark.parametrize("tile", [240, 256, 512])
@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_ycbcr_with_its_own_tables(make_tiff, same_pixels, tile, subsampling):
    path = make_tiff(tissue_like(701, 533), tile=(tile, tile), compression="jpeg", subsampling=subsampling)
    same_pixels(path, (Region(17, 33, 300, 411),))


def test_jpeg_that_stores_rgb_has_openslides_pixels(make_tiff, same_pixels):
    path = make_tiff(tissue_like(601, 433), compression="jpeg", compressionargs={"outcolorspace": "rgb"})
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].photometric == tifffile.PHOTOMETRIC.RGB
    same_pixels(path)


@pytest.mark.parametrize("options", [{"Q": 60}, {"Q": 95}, {"Q": 95, "rgbjpeg": True}, {"bigtiff": True}], ids=str)
@pytest.mark.parametrize("pyramid", [False, True])
def test_shared_tables(make_vips, same_pixels, options, pyramid):
    slide = same_pixels(make_vips(tissue_like(900, 700), pyramid=pyramid, **options))
    assert len(slide.info.levels) == (3 if pyramid else 1)


@pytest.mark.parametrize(("order", "bigtiff"), [("<", False), ("<", True), (">", True)])
def test_byte_orders_and_levels(make_tiff, same_pixels, order, bigtiff):
    path = make_tiff(tissue_like(800, 600), levels=3, compression="jpeg", order=order, bigtiff=bigtiff)
    slide = same_pixels(path)
    assert slide.info.levels == ((800, 600), (400, 300), (200, 150))


def test_big_endian_classic_tiff_which_openslide_cannot_open(make_tiff, opened):
    image = tissue_like(800, 600)
    one, other = (make_tiff(image, f"{name}.tif", compression="jpeg", order=order) for name, order in ("a<", "b>"))
    assert np.array_equal(read_all(opened(one)), read_all(opened(other)))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (255, 256), (256, 256), (257, 1), (16, 16)])
def test_small_sizes(make_tiff, same_pixels, size):
    slide = same_pixels(make_tiff(tissue_like(*size), compression="jpeg"))
    assert (slide.info.width, slide.info.height) == size
    assert slide.thumbnail(1 << 20).pixels.shape == (size[1], size[0], 3)


def test_progressive_jpeg(tmp_path, same_pixels):
    cv2 = pytest.importorskip("cv2")
    image = tissue_like(512, 256)
    tiles = []
    for x in (0, 256):
        flags = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 90]
        tiles.append(cv2.imencode(".jpg", image[:, x : x + 256, ::-1], flags)[1].tobytes())
    path = tmp_path / "progressive.tif"
    tifffile.imwrite(
        path, iter(tiles), shape=image.shape, dtype=np.uint8, tile=(256, 256), photometric="ycbcr", compression="jpeg",
        subsampling=(2, 2), metadata=None,
    )  # fmt: skip
    same_pixels(path)


def test_tile_without_bytes_is_background_as_in_openslide(make_tiff, same_pixels):
    path = make_tiff(tissue_like(700, 500), compression="jpeg")
    set_counts(path, {1: 0})
    slide = same_pixels(path)
    assert (slide.read(Region(256, 0, 256, 256)).pixels == 255).all()
    assert (slide.read(Region(260, 10, 100, 200)).pixels == 255).all()


def test_read_gives_the_caller_its_own_pixels(make_tiff, opened):
    slide = opened(make_tiff(tissue_like(700, 500), compression="jpeg"))
    for region in (Region(0, 0, 256, 256), Region(512, 256, 188, 244), Region(3, 4, 100, 100)):
        first = slide.read(region).pixels
        kept = first.copy()
        first[:] = 0
        assert np.array_equal(slide.read(region).pixels, kept)
        assert first.flags.c_contiguous


@pytest.mark.parametrize("region", [Region(0, 0, 0, 1), Region(-1, 0, 5, 5), Region(690, 0, 20, 5)])
def test_regions_outside_the_slide_are_an_error_of_the_caller(make_tiff, opened, region):
    path = make_tiff(tissue_like(700, 500), compression="jpeg")
    for reader in ("jpeg", "openslide"):
        with pytest.raises(ValueError, match="700 × 500"):
            opened(path, reader).read(region)


@pytest.mark.parametrize("tile", [240, 256, 176])
def test_reading_row_by_row_decodes_each_tile_once(sample_slide, monkeypatch, tile):
    decoded: list[int] = []
    plain = JpegTiles._tile
    monkeypatch.setattr(JpegTiles, "_tile", lambda self, number: decoded.append(number) or plain(self, number))
    with open_slide(sample_slide) as slide:
        decoded.clear()  # opening decodes a few
        grid = TileGrid(slide.info.width, slide.info.height, tile)
        for position in grid:
            slide.read(grid.region(*position).intersect(grid.bounds))
    assert sorted(decoded) == list(range(130))


def test_one_row_of_tiles_is_cache_enough(sample_slide, monkeypatch):
    decoded: list[int] = []
    with open_slide(sample_slide) as slide:
        row = 10 * 240 * 240 * 3
        small = JpegTiles(slide.info, slide._levels, cache=row + 240 * 240 * 3 * 2)
        plain = small._tile
        small._cache._decode = lambda number: decoded.append(number) or plain(number)
        grid = TileGrid(slide.info.width, slide.info.height, 256)
        for position in grid:
            small.read(grid.region(*position).intersect(grid.bounds))
        small.close()
    assert sorted(decoded) == list(range(130))


def test_threads_get_the_same_pixels(sample_slide):
    with open_slide(sample_slide) as slide:
        expected = read_all(slide)
    with open_slide(sample_slide) as slide, ThreadPoolExecutor(8) as pool:
        grid = TileGrid(slide.info.width, slide.info.height, 256)
        start = threading.Barrier(8)

        def read(position):
            region = grid.region(*position).intersect(grid.bounds)
            return region, slide.read(region).pixels

        list(pool.map(lambda _: start.wait(), range(8)))
        for region, pixels in pool.map(read, [position for position in grid for _ in range(2)]):
            assert np.array_equal(pixels, expected[region.y : region.bottom, region.x : region.right])


def test_jpeg_of_another_size_than_its_tile_is_damage(tmp_path, opened):
    image = tissue_like(512, 512)
    for size, name in ((128, "small"), (272, "large"), (4000, "huge")):
        tiles = [imagecodecs.jpeg8_encode(image[:256, :256], 90)] * 3
        tiles.append(imagecodecs.jpeg8_encode(np.zeros((size, size, 3), np.uint8), 90))
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(
            path, iter(tiles), shape=image.shape, dtype=np.uint8, tile=(256, 256), photometric="ycbcr",
            compression="jpeg", subsampling=(2, 2), metadata=None,
        )  # fmt: skip
        assert damaged_tiles(opened(path), 256) == {(1, 1)}


def test_a_file_that_only_openslide_decodes_goes_to_openslide(tmp_path, opened):
    """OpenSlide ignores bytes between the last scan and the end marker; the strict decoder does not."""
    image = tissue_like(256, 256)
    data = imagecodecs.jpeg8_encode(image, 90)
    path = tmp_path / "odd.tif"
    tifffile.imwrite(
        path, iter([data[:-2] + bytes(64) + data[-2:]]), shape=image.shape, dtype=np.uint8, tile=(256, 256),
        photometric="ycbcr", compression="jpeg", subsampling=(2, 2), metadata=None,
    )  # fmt: skip
    slide = opened(path)
    assert slide.info.reader == "OpenSlide"
    assert not slide.read(Region(0, 0, 256, 256)).damaged


def test_the_sample_is_found_and_opened_from_its_folder(sample_slide, tmp_path):
    (tmp_path / "a slide.svs").write_bytes(sample_slide.read_bytes())
    with open_slide(find_slide(tmp_path)) as slide:
        assert slide.info.width == 2220


def set_counts(path: Path, counts: dict[int, int]) -> None:
    """Change the stored sizes of tiles, given by their numbers."""
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tag = tiff.pages[0].tags["TileByteCounts"]
        values = list(tag.value)
        for number, count in counts.items():
            values[number] = count
        tag.overwrite(values)
