"""The TIFF that stitch writes, read by the programs in which people open it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import PIL.Image
import PIL.ImageCms
import pytest
import pyvips
import tifffile

from nuclei_segmentation.operators.stitch import OutputSpec, TiledSlide, memory_needed, stitch
from nuclei_segmentation.shared.batches import MapBatch, Pixels, TileBatch
from nuclei_segmentation.shared.geometry import Region, TileGrid
from nuclei_segmentation.shared.runtime.resources import anonymous_memory
from nuclei_segmentation.shared.runtime.version import PROGRAM
from nuclei_segmentation.shared.runtime.worker_pool import WorkerPool
from nuclei_segmentation.shared.settings import JpegSettings, OverlaySettings
from nuclei_segmentation.shared.slides import open_slide
from nuclei_segmentation.shared.slides.slide import RegionPixels, Slide, SlideInfo
from tests.helpers.stitch_cases import Case, halved, write_image

WIDTH, HEIGHT = 1301, 777
ICC = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
JPEGS = [JpegSettings(), JpegSettings(95, "444"), JpegSettings(75, "422")]


def smooth(height: int, width: int) -> Pixels:
    """An image that JPEG changes little."""
    small = np.random.default_rng(3).integers(60, 250, (height // 64 + 2, width // 64 + 2, 3), np.uint8)
    image = PIL.Image.fromarray(small).resize((width, height), PIL.Image.Resampling.BICUBIC)
    return np.asarray(image).copy()


@pytest.fixture(scope="module", params=JPEGS, ids=lambda jpeg: jpeg.subsampling)
def jpeg(request: pytest.FixtureRequest) -> JpegSettings:
    settings: JpegSettings = request.param
    return settings


@pytest.fixture(scope="module")
def image(jpeg: JpegSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "image.tif"
    write_image(path, smooth(HEIGHT, WIDTH), jpeg, mpp=(0.2499, 0.26), icc=ICC)
    return path


@pytest.fixture(scope="module")
def levels() -> list[Pixels]:
    pixels = [smooth(HEIGHT, WIDTH)]
    while max(pixels[-1].shape) > 256:
        pixels.append(halved(pixels[-1]))
    return pixels


def far(one: Pixels, other: Pixels) -> int:
    return int(np.abs(one.astype(int) - other).max())


def test_openslide_reads_every_level(image: Path, levels: list[Pixels]) -> None:
    with openslide.OpenSlide(image) as slide:
        assert slide.properties["openslide.vendor"] == "generic-tiff"
        assert slide.level_dimensions == tuple(level.shape[1::-1] for level in levels)
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(0.2499, rel=1e-9)
        assert float(slide.properties["openslide.mpp-y"]) == pytest.approx(0.26, rel=1e-9)
        assert slide.color_profile is not None
        assert slide.color_profile.tobytes() == ICC
        assert not slide.associated_images
        for number, level in enumerate(levels):
            pixels = np.asarray(slide.read_region((0, 0), number, level.shape[1::-1]))
            assert (pixels[..., 3] == 255).all()
            assert far(pixels[..., :3], level) < 40


def test_libvips_reads_every_level(image: Path, levels: list[Pixels]) -> None:
    for number, level in enumerate(levels):
        page = pyvips.Image.new_from_file(str(image), page=number, access="sequential")
        assert page.get("n-pages") == len(levels)
        assert page.get("icc-profile-data") == ICC
        # libvips counts per millimetre.
        assert page.xres == pytest.approx(1000 / 0.2499 * level.shape[1] / WIDTH, rel=1e-6)
        assert page.yres == pytest.approx(1000 / 0.26 * level.shape[0] / HEIGHT, rel=1e-6)
        assert far(page.numpy(), level) < 40


def test_tifffile_reads_every_level_and_finds_the_tags(image: Path, levels: list[Pixels], jpeg: JpegSettings) -> None:
    with tifffile.TiffFile(image) as tiff:
        assert tiff.series[0].is_pyramidal
        assert [series.shape for series in tiff.series[0].levels] == [level.shape for level in levels]
    with tifffile.TiffFile(image) as tiff:  # opened anew: once tifffile has read OME-XML, it knows no pages but its own
        for number, (page, level) in enumerate(zip(tiff.pages, levels, strict=True)):
            assert far(page.asarray(), level) < 40
            assert page.subfiletype == (1 if number else 0)
            assert page.photometric == tifffile.PHOTOMETRIC.YCBCR
            assert page.compression == tifffile.COMPRESSION.JPEG
            assert page.subsampling == {"444": None, "422": (2, 1), "420": (2, 2)}[jpeg.subsampling]
            assert (page.tilewidth, page.tilelength) == (256, 256)
            assert page.resolutionunit == tifffile.RESUNIT.CENTIMETER
            assert page.iccprofile == ICC
            of_file = {"ImageDescription", "Software", "SubIFDs"} if number == 0 else set()
            sampling = set() if page.subsampling is None else {"YCbCrSubSampling"}
            assert {tag.name for tag in page.tags} == of_file | sampling | {
                "NewSubfileType",
                "ImageWidth",
                "ImageLength",
                "BitsPerSample",
                "Compression",
                "PhotometricInterpretation",
                "SamplesPerPixel",
                "XResolution",
                "YResolution",
                "PlanarConfiguration",
                "ResolutionUnit",
                "TileWidth",
                "TileLength",
                "TileOffsets",
                "TileByteCounts",
                "JPEGTables",
                "ReferenceBlackWhite",
                "InterColorProfile",
            }


def test_segments_decode_to_what_a_plain_jpeg_decodes_to(image: Path, levels: list[Pixels], jpeg: JpegSettings) -> None:
    with tifffile.TiffFile(image) as tiff, image.open("rb") as file:
        for page, level in zip(tiff.pages, levels, strict=True):
            columns = -(-level.shape[1] // 256)
            for number, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
                y, x = (256 * place for place in divmod(number, columns))
                tile = level[y : y + 256, x : x + 256]
                tile = np.pad(tile, ((0, 256 - tile.shape[0]), (0, 256 - tile.shape[1]), (0, 0)), mode="edge")
                own = imagecodecs.jpeg8_encode(tile, level=jpeg.quality, subsampling=jpeg.subsampling)
                file.seek(offset)
                stored = imagecodecs.jpeg8_decode(
                    file.read(count), tables=page.jpegtables, colorspace="YCBCR", outcolorspace="RGB"
                )
                np.testing.assert_array_equal(stored, imagecodecs.jpeg8_decode(own))
                assert count < len(own) - 500


def test_the_file_does_not_say_when_where_or_by_which_version_it_was_made(image: Path, tmp_path: Path) -> None:
    content = image.read_bytes().replace(ICC, b"")
    for trace in (
        b"tifffile",
        b"python",
        b"x.svs",
        b"image.tif",
        b"UUID",
        bytes(image.parent),
        version(PROGRAM).encode(),
    ):
        assert trace not in content, trace
    assert not re.search(rb"20\d\d[:-]\d\d[:-]\d\d", content)
    again = tmp_path / "another name"
    write_image(again, smooth(HEIGHT, WIDTH), JpegSettings(), mpp=(0.2499, 0.26), icc=ICC)
    once_more = tmp_path / "folder" / "third"
    once_more.parent.mkdir()
    write_image(once_more, smooth(HEIGHT, WIDTH), JpegSettings(), mpp=(0.2499, 0.26), icc=ICC)
    assert again.read_bytes() == once_more.read_bytes()


def test_the_description_says_sizes_and_what_the_image_is_for_only(image: Path) -> None:
    with tifffile.TiffFile(image) as tiff:
        description, software = tiff.pages[0].description, tiff.pages[0].software
    assert software == "nuclei-segmentation-operators"
    assert re.sub(r"<OME [^>]*>", "<OME>", description) == (
        '<?xml version="1.0" encoding="UTF-8"?><OME><Image ID="Image:0">'
        "<Description>For research use only; not for diagnosis.</Description>"
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" Interleaved="true" SizeX="1301" SizeY="777" '
        'SizeC="3" SizeZ="1" SizeT="1" PhysicalSizeX="0.2499" PhysicalSizeY="0.26">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )


def test_it_is_a_slide_again(image: Path, levels: list[Pixels]) -> None:
    with closing(open_slide(image)) as slide:
        assert slide.info.levels == tuple(level.shape[1::-1] for level in levels)
        assert (slide.info.mpp, slide.info.mpp_note) == ((0.2499, 0.26), "")
        assert slide.info.reader == "stored JPEG tiles, decoded directly"
        assert slide.info.icc == ICC
        assert far(slide.read(Region(0, 0, WIDTH, HEIGHT)).pixels, levels[0]) < 40


def test_it_is_a_slide_again_with_a_large_colour_profile(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Directories are listed twice, but read once: otherwise these would exceed what is read of directories."""
    path, icc = tmp_path / "image.tif", ICC.ljust(8 << 20, b"\0")
    write_image(path, np.zeros((40, 3000, 3), np.uint8), JpegSettings(), icc=icc)
    with closing(open_slide(path)) as slide:
        assert slide.info.levels == ((3000, 40), (1500, 20), (750, 10), (375, 5), (188, 3))
        assert slide.info.icc == icc
    assert not caplog.records


def test_an_unknown_pixel_size_and_profile_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    write_image(path, smooth(300, 300), JpegSettings(), mpp=None, icc=None)
    with openslide.OpenSlide(path) as slide:
        assert "openslide.mpp-x" not in slide.properties
        assert slide.color_profile is None
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].tags["ResolutionUnit"].value == tifffile.RESUNIT.NONE
        assert "InterColorProfile" not in tiff.pages[0].tags


def test_nuclei_show_at_every_level(tmp_path: Path) -> None:
    case = Case(600, 300, 256, side=256, share=1.0, style="fill", opacity=1.0)
    case.maps[..., 0] = 255
    case.stitch(tmp_path, raw=False)
    with openslide.OpenSlide(tmp_path / "image.tif") as slide:
        for number, size in enumerate(slide.level_dimensions):
            pixels = np.asarray(slide.read_region((0, 0), number, size))[..., :3]
            assert far(pixels, np.broadcast_to(np.array(case.overlay.color, np.uint8), pixels.shape)) <= 3


def test_openslide_and_libvips_read_a_bigtiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuclei_segmentation.operators.stitch.pyramid.tiff._CLASSIC_LIMIT", 0)
    path = tmp_path / "image.tif"
    pixels = smooth(500, 700)
    write_image(path, pixels, JpegSettings(), mpp=(0.5, 0.5), icc=ICC)
    assert path.read_bytes()[:4] == b"II\x2b\0"
    with openslide.OpenSlide(path) as slide:
        assert slide.level_dimensions[0] == (700, 500)
        assert far(np.asarray(slide.read_region((0, 0), 0, (700, 500)))[..., :3], pixels) < 40
    assert far(pyvips.Image.new_from_file(str(path)).numpy(), pixels) < 40


class Endless(Slide):
    """A slide of any size whose pixels take no memory."""

    def __init__(self, width: int, height: int) -> None:
        self.info = SlideInfo(Path("x"), "none", "none", width, height, ((width, height),), None, "", None, None)

    def read(self, region: Region) -> RegionPixels:
        return RegionPixels(np.full((region.height, region.width, 3), region.x % 251, np.uint8), False)

    def thumbnail(self, limit: int) -> Pixels:
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_memory_stays_below_the_bound_on_a_wide_slide(tmp_path: Path, share: float) -> None:
    width, height, tile = 40_000, 1300, 256
    grid = TileGrid(width, height, tile)
    foreground = np.array(list(grid) if share else [], np.int32).reshape(-1, 2)
    peak = before = 0

    def batches() -> Iterator[MapBatch]:
        blob = np.zeros((8, tile, tile, 1), np.uint8)
        blob[:, 50:90, 50:90] = 255
        for start in range(0, len(foreground), 8):
            tile_ids = np.arange(start, min(start + 8, len(foreground)))
            pixels = np.full((len(tile_ids), tile, tile, 3), start % 251, np.uint8)
            yield MapBatch(
                tile_ids, blob[: len(tile_ids)].copy(), TileBatch(tile_ids, pixels, np.zeros(len(tile_ids), bool))
            )

    def sample(done: int, total: int) -> None:
        nonlocal peak
        peak = max(peak, anonymous_memory())

    with WorkerPool(2) as pool:
        before = anonymous_memory()
        stitch(
            TiledSlide(Endless(width, height), grid, foreground),
            batches(),
            OutputSpec(tmp_path / "image.tif", tmp_path / "spool", OverlaySettings(), JpegSettings()),
            pool,
            sample,
        )
    assert peak - before < memory_needed(width, tile, 2)


def test_a_slide_of_100000_pixels_needs_less_than_250_mb() -> None:
    for tile in (16, 256, 512, 1024):
        assert memory_needed(100_000, tile, 2) < 250e6
