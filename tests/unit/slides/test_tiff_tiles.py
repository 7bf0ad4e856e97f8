"""The reader for TIFF files that OpenSlide cannot open, compared with tifffile."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import pyvips
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


GREY, RGB = (64, 64), (64, 64, 3)
PALETTE = {"photometric": "palette", "colormap": np.zeros((3, 256), np.uint16)}


@pytest.mark.parametrize(
    ("image", "options", "reason"),
    [
        (np.zeros(GREY, np.float32), {"photometric": "minisblack"}, "32-bit floating-point samples"),
        (np.zeros(RGB, np.float16), {}, "16-bit floating-point samples"),
        (np.zeros(RGB, np.int8), {}, "8-bit signed samples"),
        (np.zeros(RGB, np.int16), {}, "16-bit signed samples"),
        (np.zeros(RGB, np.uint32), {}, "32-bit samples"),
        (np.zeros((64, 64), bool), {"photometric": "minisblack"}, "1-bit samples"),
        (np.zeros((64, 64, 4), np.uint16), {"photometric": "separated"}, "CMYK"),
        (np.zeros(RGB, np.uint8), {"photometric": "cielab"}, "CIELab"),
        (np.zeros(RGB, np.uint8), {"compression": "lerc"}, r"compression 34887 \(LERC\)"),
        (np.zeros(RGB, np.uint8), {"compression": "jpegxl"}, r"compression 50002 \(JPEG XL\)"),
    ],
    ids=["float", "half", "int8", "int16", "uint32", "bit", "cmyk", "cielab", "lerc", "jpegxl"],
)
@pytest.mark.parametrize("tile", [(64, 64), None], ids=["tiles", "strips"])
@pytest.mark.parametrize("reader", [None, "tiff"])
def test_unsupported_files_are_refused_however_they_are_stored(make_tiff, image, options, reason, tile, reader):
    if options.get("photometric") == "cielab" and tile and reader is None:
        pytest.skip("OpenSlide reads it")
    path = make_tiff(image, tile=tile, **options)
    with pytest.raises(UnreadableSlide, match=reason) as caught:
        open_slide(path, reader=reader)
    assert "vips" not in str(caught.value)  # it would make black or wrong images of these


@pytest.mark.parametrize(
    ("image", "options", "reason"),
    [
        (tissue_like(300, 200), {"compression": "webp"}, r"compression 50001 \(WebP\)"),
        (
            tissue_like(300, 200)[..., 1],
            {"photometric": "palette", "colormap": np.random.default_rng(0).integers(0, 1 << 16, (3, 256), np.uint16)},
            "palette",
        ),
    ],
    ids=["webp", "palette"],
)
def test_the_advice_on_vips_works_where_it_is_given(make_tiff, opened, image, options, reason):
    path = make_tiff(image, tile=None if "colormap" in options else (64, 64), **options)
    with pytest.raises(UnreadableSlide, match=reason) as caught:
        open_slide(path)
    assert "vips tiffsave IN OUT.tif --tile --pyramid --compression jpeg" in str(caught.value)
    pyvips.Image.new_from_file(str(path)).tiffsave(
        str(path.with_name("out.tif")), tile=True, pyramid=True, compression="jpeg", Q=95
    )
    expected = (options["colormap"] >> 8).T[image] if "colormap" in options else image
    error = np.abs(read_all(opened(path.with_name("out.tif"))).astype(int) - expected)
    assert error.mean() < (25 if "colormap" in options else 6)  # neighbouring entries of the palette differ wildly


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "deflate", "lzw", "packbits", "jpeg2000"])
@pytest.mark.parametrize("shape", [{"tile": (64, 64)}, {"tile": None, "rowsperstrip": 17}], ids=["tiles", "strips"])
@pytest.mark.parametrize("planar", ["CONTIG", "SEPARATE"])
def test_samples_of_16_bits_are_scaled_by_the_bits_that_hold_data(make_tiff, opened, order, compression, shape, planar):
    if compression == "jpeg2000" and ("rowsperstrip" in shape or order == ">"):
        pytest.skip("tifffile does not write it, or swaps its bytes")
    image = tissue_like(200, 150)
    image[:8, :8] = 255
    stored = image.astype(np.uint16) << 4  # as a camera of 12 bits gives them
    stored = np.ascontiguousarray(np.moveaxis(stored, 2, 0)) if planar == "SEPARATE" else stored
    predictor = compression in ("deflate", "lzw") or None
    path = make_tiff(
        stored, order=order, compression=compression, predictor=predictor, planarconfig=planar, bigtiff=False, **shape
    )
    slide = opened(path)
    assert np.array_equal(read_all(slide, 64), image)
    assert np.abs(slide.thumbnail(200 * 150).pixels.astype(int) - image).max() <= 1


@pytest.mark.parametrize("bits", [8, 9, 10, 14, 16])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_samples_of_any_camera(make_tiff, opened, caplog, bits, photometric):
    image = tissue_like(200, 150)[..., 0]
    image[:4] = 255
    path = make_tiff(image.astype(np.uint16) << (bits - 8), tile=(64, 64), photometric=photometric)
    expected = 255 - image if photometric == "miniswhite" else image
    assert np.array_equal(read_all(opened(path), 64)[..., 1], expected)
    said = f"16-bit samples, of which {bits} bits hold data" in caplog.text
    assert said == (8 < bits < 16)


def test_a_hot_pixel_does_not_darken_the_slide(make_tiff, opened):
    image = np.full((400, 400), 130, np.uint16)
    image[10, 10] = 65535
    pixels = read_all(opened(make_tiff(image, tile=(64, 64), photometric="minisblack")), 64)
    assert pixels[100, 100].tolist() == [130] * 3
    assert pixels[10, 10].tolist() == [255] * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("tile", [(64, 64), None], ids=["tiles", "strips"])
@pytest.mark.parametrize("planar", ["CONTIG", "SEPARATE"])
def test_alpha_is_understood_alike_in_tiles_and_strips(make_tiff, opened, dtype, tile, planar):
    image, alpha = tissue_like(200, 150), np.full((150, 200), 255, np.uint8)
    image[0, 0], alpha[:, :100] = 255, 0
    samples = np.dstack([image, alpha]).astype(dtype)
    if dtype == np.uint16:
        samples = samples << np.array([4, 4, 4, 8], np.uint16) | np.array([0, 0, 0, 255], np.uint16)
    samples = np.ascontiguousarray(np.moveaxis(samples, 2, 0)) if planar == "SEPARATE" else samples
    path = make_tiff(samples, tile=tile, extrasamples=["UNASSALPHA"], planarconfig=planar)
    pixels = read_all(opened(path), 64)
    assert np.array_equal(pixels[:, 100:], image[:, 100:])
    assert (pixels[:, :100] >= (255 if dtype == np.uint8 else 254)).all()


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
