"""image.tif, read by each library that other programs open slides with: all find one pyramid, of the same pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openslide
import PIL.ImageCms
import pytest
import pyvips
import tifffile

from nuclei_segmentation.operators.stitch.pyramid import tiff
from nuclei_segmentation.shared.batches import Pixels
from nuclei_segmentation.shared.settings import JpegSettings
from tests.helpers import bioformats
from tests.helpers.slides import tissue_like
from tests.helpers.stitch_cases import write_image

ICC = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
X, Y, WIDTH, HEIGHT = 13, 7, 100, 90
"""A rectangle that lies in the coarsest level of each image, and is not aligned to the blocks of JPEG."""

ROUNDING = 3
"""Most by which two decoders may differ: standards let each of Y, Cb and Cr be off by one, and Cb counts 1.77 times in
blue. All of today decode with libjpeg-turbo and agree. What a program smooths or converts differs by much more."""


@dataclass(frozen=True, slots=True)
class Image:
    path: Path
    sizes: tuple[tuple[int, int], ...]
    """(width, height) of each level."""
    mpp: tuple[float, float] | None


CASES = {
    "pyramid": (JpegSettings(), ((1901, 1203), (951, 602), (476, 301), (238, 151)), (0.2499, 0.26)),
    "bigtiff": (JpegSettings(95, "444"), ((700, 900), (350, 450), (175, 225)), None),
    "smaller than a tile": (JpegSettings(75, "422"), ((200, 120),), (0.5, 0.5)),
}


@pytest.fixture(scope="module", params=CASES)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Image:
    jpeg, sizes, mpp = CASES[request.param]
    path = tmp_path_factory.mktemp("image") / "image.tif"
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "bigtiff":
            patch.setattr(tiff, "_CLASSIC_LIMIT", 0)
        write_image(path, tissue_like(*sizes[0]), jpeg, mpp, ICC)
    assert path.read_bytes()[2] == (43 if request.param == "bigtiff" else 42)
    return Image(path, sizes, mpp)


@pytest.fixture(scope="module")
def rectangles(image: Image) -> list[Pixels]:
    """The rectangle of each level, as OpenSlide reads it."""
    with openslide.OpenSlide(image.path) as slide:
        levels = [slide.read_region((0, 0), number, size) for number, size in enumerate(slide.level_dimensions)]
    return [np.asarray(level.crop((X, Y, X + WIDTH, Y + HEIGHT)))[..., :3] for level in levels]


def far(one: Pixels, other: Pixels) -> int:
    assert one.shape == other.shape == (HEIGHT, WIDTH, 3)
    return int(np.abs(one.astype(int) - other).max())


def inside(level: Pixels) -> Pixels:
    return level[Y : Y + HEIGHT, X : X + WIDTH]


def test_openslide(image: Image, rectangles: list[Pixels]) -> None:
    with openslide.OpenSlide(image.path) as slide:
        assert slide.level_dimensions == image.sizes
        assert "research use only" in slide.properties["openslide.comment"]
        tile = {slide.properties[f"openslide.level[{number}].tile-width"] for number in range(len(image.sizes))}
        assert tile == {"256"}
        if image.mpp is None:
            assert "openslide.mpp-x" not in slide.properties
        else:
            found = [float(slide.properties[f"openslide.mpp-{axis}"]) for axis in "xy"]
            assert found == pytest.approx(image.mpp, rel=1e-9)
    # What the other libraries are compared with is tissue, and not an empty area.
    assert all(rectangle.std() > 5 for rectangle in rectangles)


def test_tifffile(image: Image, rectangles: list[Pixels]) -> None:
    with tifffile.TiffFile(image.path) as file:
        assert file.is_ome
        (series,) = file.series
        assert [level.shape[1::-1] for level in series.levels] == list(image.sizes)
        assert [page.offset for page in file.pages[1:]] == list(file.pages[0].subifds or ())
        assert "research use only" in file.ome_metadata
        attributes = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
        found = [attributes.get(f"PhysicalSize{axis}") for axis in "XY"]
        assert found == list(image.mpp or (None, None))
        for level, rectangle in zip(series.levels, rectangles, strict=True):
            assert far(inside(level.asarray()), rectangle) <= ROUNDING


def test_libvips(image: Image, rectangles: list[Pixels]) -> None:
    def read(**level: int) -> pyvips.Image:
        return pyvips.Image.new_from_file(str(image.path), **level)

    assert read().get("n-pages") == len(image.sizes)
    if image.mpp is not None:  # libvips counts pixels per millimetre
        assert (1000 / read().xres, 1000 / read().yres) == pytest.approx(image.mpp, rel=1e-6)
    for number, (size, rectangle) in enumerate(zip(image.sizes, rectangles, strict=True)):
        ways = [read(page=number)] + ([read(subifd=number - 1)] if number else [])
        for level in ways:
            assert (level.width, level.height) == size
            assert far(inside(level.numpy()), rectangle) <= ROUNDING


@pytest.mark.slow
def test_bioformats(image: Image, rectangles: list[Pixels], tmp_path: Path) -> None:
    """With it, Fiji, OMERO and QuPath's other reader."""
    bioformats.need()
    found = bioformats.info(image.path)
    assert (found.format, found.series) == ("OME-TIFF", 1)
    assert found.widths == tuple(width for width, _ in image.sizes)
    assert (int(found.pixels["SizeX"]), int(found.pixels["SizeY"])) == image.sizes[0]
    assert (found.pixels["SizeC"], found.pixels["Type"]) == ("3", "uint8")
    sizes = [found.pixels.get(f"PhysicalSize{axis}") for axis in "XY"]
    assert sizes == ([None, None] if image.mpp is None else [str(value) for value in image.mpp])
    assert found.pixels.get("PhysicalSizeXUnit", "µm") == "µm"
    assert "research use only" in found.xml
    for level, rectangle in zip(bioformats.crops(image.path, X, Y, WIDTH, HEIGHT, tmp_path), rectangles, strict=True):
        assert far(level, rectangle) <= ROUNDING
