from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import pyvips
import tifffile

from nuclei_segmentation.operators.stitch.objects.nuclei import Nuclei, NucleiHeader
from nuclei_segmentation.operators.stitch.outputs.density import DensityWriter
from tests.helpers.drawn_nuclei import header, nuclei_at


def write(path: Path, slide: NucleiHeader, chunks: Sequence[Nuclei]) -> npt.NDArray[np.float32]:
    with DensityWriter(path, slide) as writer:
        for nuclei in chunks:
            writer.append(writer.encode(nuclei))
        writer.finish()
    return tifffile.imread(path)


def test_density_is_nuclei_per_mm2_of_each_square_of_100_um(tmp_path: Path) -> None:
    # 0.25 and 0.5 µm per pixel: squares of 400 x 200 pixels; 1000 x 500 pixels are 3 x 3 squares, the last ones of half
    # the width and height.
    points = [(0, 0), (399.9, 199.9), (400, 0), (900, 450), (999.9, 499.9), (10, 410)]
    density = write(tmp_path / "density.tif", header(1000, 500, mpp=(0.25, 0.5)), [nuclei_at(points)])
    np.testing.assert_allclose(density, [[200, 100, 0], [0, 0, 0], [200, 0, 800]])
    assert density.dtype == np.float32


def test_chunks_add_up_and_every_nucleus_is_counted(tmp_path: Path) -> None:
    points = np.random.default_rng(0).uniform(0, (3001, 1999), (500, 2))
    slide = header(3001, 1999, mpp=(0.5, 0.5))
    whole = write(tmp_path / "a.tif", slide, [nuclei_at(points)])
    parts = write(tmp_path / "b.tif", slide, [nuclei_at(points[:100]), nuclei_at(points[100:])])
    np.testing.assert_array_equal(whole, parts)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    heights, widths = np.diff([*range(0, 1999, 200), 1999]), np.diff([*range(0, 3001, 200), 3001])
    assert (whole * np.outer(heights, widths) * 0.25e-6).sum() == pytest.approx(500)


@pytest.mark.parametrize("mpp", [None, (30.0, 30.0)])  # at the second, nuclei cannot be told apart
def test_without_a_pixel_size_density_is_per_million_pixels_and_the_file_says_so(
    tmp_path: Path, mpp: tuple[float, float] | None
) -> None:
    density = write(tmp_path / "density.tif", header(800, 400, mpp=mpp), [nuclei_at([(1, 1), (2, 2), (700, 3)])])
    np.testing.assert_allclose(density, [[2 / 0.16, 1 / 0.16]])
    with tifffile.TiffFile(tmp_path / "density.tif") as tiff:
        assert tiff.pages.first.description.startswith(
            "Nuclei per 1,000,000 pixels; one pixel is 400 pixels of the slide"
        )
        assert tiff.pages.first.resolutionunit == tifffile.RESUNIT.NONE


def test_a_slide_without_nuclei_is_zero(tmp_path: Path) -> None:
    density = write(tmp_path / "density.tif", header(1000, 1000), [])
    assert density.shape == (3, 3)
    assert not density.any()


def test_the_file_holds_its_pixel_size_and_unit_and_nothing_of_the_slide(tmp_path: Path) -> None:
    write(tmp_path / "density.tif", header(4000, 2000), [nuclei_at([(1, 1)])])
    with tifffile.TiffFile(tmp_path / "density.tif") as tiff:
        (page,) = tiff.pages
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        assert page.get_resolution(tifffile.RESUNIT.MICROMETER) == (0.01, 0.01)
        assert page.description == "Nuclei per mm^2; one pixel is 100 um. For research use only; not for diagnosis."
        assert not {"Software", "DateTime", "DocumentName"} & {tag.name for tag in page.tags}
    assert pyvips.Image.new_from_file(str(tmp_path / "density.tif")).xres == pytest.approx(10)  # pixels per mm


@pytest.mark.parametrize(("mpp", "width"), [(0.25, 2800), (0.28, 2500), (0.07, 10_000), (1.12, 625)])
def test_a_slide_of_seven_squares_has_no_eighth(tmp_path: Path, mpp: float, width: int) -> None:
    slide = header(width, 1, mpp=(mpp, mpp))
    density = write(tmp_path / "density.tif", slide, [nuclei_at([(width - 0.5, 0.5)])])
    assert density.shape == (1, 7)
    assert density[0].tolist() == pytest.approx([0] * 6 + [1 / (0.1 * mpp / 1000)])
