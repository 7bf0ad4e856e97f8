"""The reader for TIFF files that OpenSlide cannot open, compared with tifffile."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import tifffile

from nuclei_segmentation.shared.errors import UnreadableSlide
from nuclei_segmentation.shared.geometry import Region
from nuclei_segmentation.shared.slides import open_slide
from nuclei_segmentation.shared.slides.tiff_index import read_index
from nuclei_segmentation.shared.slides.tiff_tiles import cut_strips
from tests.helpers.slides import damaged_tiles, read_all, tissue_like


@pytest.mark.parametrize(
    ("compression", "predictor"),
    [
        (None, False),
        ("packbits", False),
        *((c, p) for c in ("lzw", "deflate", "adobe_deflate", "zstd") for p in (False, True)),
    ],
)
@pytest.mark.parametrize("shape", [{"tile": (128, 128)}, {"tile": None, "rowsperstrip": 17}, {"tile": None}], ids=str)
@pytest.mark.parametrize("order", ["<", ">"])
def test_lossless_tiles_are_read_exactly(make_tiff, opened, compression, shape, predictor, order):
    image = tissue_like(301, 207)
    slide = opened(make_tiff(image, compression=compression, predictor=predictor, order=order, **shape), "tiff")
    assert np.array_equal(read_all(slide, 100), image)
    assert slide.thumbnail(1000).pixels.shape == (26, 38, 3)


@pytest.mark.parametrize("planar", ["CONTIG", "SEPARATE"])
@pytest.mark.parametrize("alpha", [None, "ASSOCALPHA", "UNASSALPHA", "UNSPECIFIED"])
def test_transparent_pixels_are_blended_with_white(make_tiff, opened, planar, alpha):
    image = tissue_like(200, 150)
    samples = image
    if alpha:
        samples = np.dstack([image, np.arange(200, dtype=np.uint8)[None].repeat(150, 0)])
    stored = np.moveaxis(samples, 2, 0) if planar == "SEPARATE" else samples
    options = {"extrasamples": [alpha]} if alpha else {}
    slide = opened(make_tiff(np.ascontiguousarray(stored), planarconfig=planar, tile=(64, 64), **options), "tiff")
    weight = samples[..., 3:].astype(float) / 255 if alpha else 0
    expected = {
        None: image,
        "UNSPECIFIED": image,
        "ASSOCALPHA": np.minimum(image + 255 * (1 - weight), 255),
        "UNASSALPHA": image * weight + 255 * (1 - weight),
    }[alpha]
    assert np.abs(read_all(slide, 70) - expected).max() <= 0.5001


@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
@pytest.mark.parametrize("compression", [None, "deflate", "jpeg"])
def test_grey_pixels_become_rgb(make_tiff, opened, photometric, compression):
    image = tissue_like(300, 200)[..., 1]
    path = make_tiff(image, photometric=photometric, compression=compression, tile=(128, 128))
    expected = tifffile.imread(path)
    if photometric == "miniswhite":
        expected = 255 - expected
    slide = opened(path)
    assert np.array_equal(read_all(slide), expected[..., None].repeat(3, 2))


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 2)])
def test_jpeg_in_strips(make_vips, opened, subsampling):
    path = make_vips(tissue_like(300, 200), tile=False, Q=95 if subsampling == (1, 1) else 80)
    slide = opened(path)
    assert slide.info.reader == "stored TIFF tiles, decoded directly"
    pixels = read_all(slide)
    if subsampling == (1, 1):
        assert np.array_equal(pixels, tifffile.imread(path))
    assert np.abs(pixels.astype(int) - tifffile.imread(path)).max() < 60


@pytest.mark.parametrize("reversible", [True, False])
def test_jpeg_2000_tiles(make_tiff, opened, reversible):
    image = tissue_like(300, 200)
    options = {"compression": "jpeg2000", "tile": (128, 128)}
    path = make_tiff(image, compressionargs={"reversible": reversible, "level": 0 if reversible else 40}, **options)
    pixels = read_all(opened(path, "tiff"))
    assert np.array_equal(pixels, tifffile.imread(path))
    assert np.abs(pixels.astype(int) - image).max() < 60


def test_ome_tiff_with_its_pyramid_below_the_first_image(tmp_path, opened):
    image = tissue_like(900, 700)
    path = tmp_path / "pyramid.ome.tif"
    with tifffile.TiffWriter(path, bigtiff=True, byteorder=">", ome=True) as tiff:
        options = {"tile": (256, 256), "compression": "deflate", "photometric": "rgb"}
        tiff.write(image, subifds=2, metadata={"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}, **options)
        for factor in (2, 4):
            size = (900 // factor, 700 // factor)
            tiff.write(cv2.resize(image, size, interpolation=cv2.INTER_AREA), subfiletype=1, **options)
    slide = opened(path, "tiff")
    assert slide.info.levels == ((900, 700), (450, 350), (225, 175))
    assert slide.info.mpp == (0.5, 0.5)
    assert np.array_equal(read_all(slide), image)


def test_large_strips_without_compression_are_read_row_by_row(make_tiff, opened, monkeypatch):
    monkeypatch.setattr("nuclei_segmentation.shared.slides.tiff_tiles._STRIP", 5000)
    image = tissue_like(300, 200)
    for rows in (200, 60, 64):
        path = make_tiff(image, f"{rows}.tif", tile=None, rowsperstrip=rows)
        with path.open("rb") as file:
            cut = cut_strips(read_index(file.fileno()).base)
        assert cut.tile_height <= 5
        assert np.array_equal(read_all(opened(path, "tiff")), image)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert {row for row, _ in damaged_tiles(opened(path, "tiff"), 50)} == {1, 2, 3}


@pytest.mark.parametrize(
    ("image", "options", "reason"),
    [
        (np.zeros((64, 64, 3), np.uint16), {}, "16-bit samples"),
        (np.zeros((64, 64), np.float32), {"photometric": "minisblack"}, "32-bit floating-point samples"),
        (np.zeros((64, 64, 4), np.uint8), {"photometric": "separated"}, "CMYK"),
        (
            np.zeros((64, 64), np.uint8),
            {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)},
            "palette",
        ),
        (np.zeros((64, 64, 3), np.uint8), {"compression": "webp"}, "compression 50001"),
        (np.zeros((64, 64, 3), np.uint8), {"compression": "lerc"}, "compression 34887"),
    ],
    ids=["16", "float", "cmyk", "palette", "webp", "lerc"],
)
def test_unsupported_files_are_refused_with_advice(make_tiff, image, options, reason):
    path = make_tiff(image, tile=(64, 64), **options)
    with pytest.raises(UnreadableSlide, match=reason) as caught:
        open_slide(path, reader="tiff")
    assert "vips tiffsave" in str(caught.value)


def test_truncated_strips_are_damage(make_tiff, opened):
    path = make_tiff(tissue_like(300, 200), tile=None, rowsperstrip=20, compression="deflate")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])
    slide = opened(path)
    assert not slide.read(Region(0, 0, 300, 20)).damaged
    assert slide.read(Region(0, 180, 300, 20)).damaged
    slide.thumbnail(1000)


def test_a_larger_later_image_is_reported(tmp_path, caplog):
    path = tmp_path / "several.tif"
    with tifffile.TiffWriter(path) as file:
        for image in (tissue_like(200, 100), tissue_like(300, 200)):
            file.write(image, photometric="rgb", compression="deflate", metadata=None)
    with open_slide(path) as slide:
        assert (slide.info.width, slide.info.height) == (200, 100)
    assert "several images; the first (200 x 100 pixels) is used, although another is larger (300 x 200)" in caplog.text
